"""The plain-torch reference draws the pictures one can work out by hand, and its gradients belong to them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kinosplat.render import reference
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.output import RenderOutput
from kinosplat.render.reference import rasterize_reference
from kinosplat.render.settings import RasterSettings
from kinosplat.render.spherical_harmonics import sh_basis
from kinosplat.render.statistics import GaussianStatistics
from render.scenes import (
    SCENES,
    HandMadeScene,
    gaussians_at,
    identity_camera,
    leaves,
    random_gaussians,
    ring_cameras,
)

F64 = torch.float64


def render(scene: HandMadeScene) -> RenderOutput:
    return rasterize_reference(
        scene.gaussians,
        scene.cameras,
        background=scene.background,
        features=scene.features,
        settings=RasterSettings(antialiased=scene.antialiased, depth=True, median_depth=True, normal=True),
    )


def smooth_outputs(output: RenderOutput) -> tuple[torch.Tensor, ...]:
    assert output.depth is not None
    assert output.normal is not None
    assert output.features is not None
    return output.rgb, output.alpha, output.depth, output.normal, output.features


class TestOneGaussian:
    """A round Gaussian on the axis of a 5 x 5 camera with focal length 10: standard deviation 10 * 0.1 / 2 = 0.5 px."""

    camera = identity_camera(5, 5, F64)

    def test_its_centre_has_its_opacity_and_its_colour_over_the_background(self) -> None:
        gaussians = gaussians_at([[0, 0, 2]], opacities=0.6, colours=[[1.0, 0.5, 0.25]])
        output = rasterize_reference(gaussians, [self.camera], background=torch.tensor([0.0, 1.0, 0.5], dtype=F64))
        assert output.alpha[0, 2, 2].item() == pytest.approx(0.6, abs=1e-12)
        assert output.rgb[0, 2, 2].tolist() == pytest.approx([0.6, 0.3 + 0.4, 0.15 + 0.2], abs=1e-12)

    def test_a_pixel_away_it_falls_by_the_dilated_variance(self) -> None:
        output = rasterize_reference(gaussians_at([[0, 0, 2]], opacities=0.6), [self.camera])
        variance = 0.5**2 + 0.3
        assert output.alpha[0, 2, 3].item() == pytest.approx(0.6 * math.exp(-0.5 / variance), abs=1e-12)
        assert output.alpha[0, 1, 3].item() == pytest.approx(0.6 * math.exp(-1.0 / variance), abs=1e-12)

    def test_the_compensation_takes_what_the_dilation_adds(self) -> None:
        output = rasterize_reference(
            gaussians_at([[0, 0, 2]], opacities=0.6), [self.camera], settings=RasterSettings(antialiased=True)
        )
        assert output.alpha[0, 2, 2].item() == pytest.approx(0.6 * 0.25 / 0.55, abs=1e-12)

    def test_contributions_below_one_step_of_eight_bits_are_skipped(self) -> None:
        above, below = 1.0001 / 255, 0.9999 / 255
        assert rasterize_reference(gaussians_at([[0, 0, 2]], opacities=above), [self.camera]).alpha.sum() > 0
        assert rasterize_reference(gaussians_at([[0, 0, 2]], opacities=below), [self.camera]).alpha.sum() == 0

    def test_alpha_is_at_most_0_999_and_there_the_opacity_has_no_gradient(self) -> None:
        gaussians = gaussians_at([[0, 0, 2]], opacities=0.9999)
        logits = gaussians.opacity_logits.requires_grad_()
        centre = rasterize_reference(gaussians, [self.camera]).alpha[0, 2, 2]
        assert centre.item() == pytest.approx(0.999, abs=1e-12)
        (gradient,) = torch.autograd.grad(centre, logits)
        assert gradient.item() == 0

    def test_it_moves_with_time_and_fades_with_the_square_of_the_phase(self) -> None:
        still = gaussians_at([[0, 0, 2]], opacities=0.6)
        moving = replace(
            still,
            displacements=torch.tensor([[0.1, 0.0, 0.0]], dtype=F64),
            time_centres=torch.tensor([1.0], dtype=F64),
            log_durations=torch.tensor([0.5], dtype=F64).log(),
        )
        output = rasterize_reference(moving, [self.camera.at(2.0)])  # phase 2: moved by 0.2 world units = 1 px
        assert output.alpha[0, 2, 3].item() == pytest.approx(0.6 * math.exp(-2.0), abs=1e-12)

    def test_its_normal_is_the_shortest_axis_turned_to_the_camera(self) -> None:
        flat = gaussians_at([[0, 0, 2]], opacities=0.6, scales=[[0.3, 0.3, 0.01]])
        output = rasterize_reference(flat, [self.camera], settings=RasterSettings(normal=True))
        assert output.normal is not None
        assert output.normal[0, 2, 2].tolist() == pytest.approx([0, 0, -0.6], abs=1e-12)


class TestTwoGaussians:
    """Alpha 0.6 at depth 2 before alpha 0.5 at depth 3, given in the wrong order."""

    camera = identity_camera(5, 5, F64)
    gaussians = gaussians_at([[0, 0, 3], [0, 0, 2]], opacities=[0.5, 0.6], colours=[[0, 1, 0], [1, 0, 0]])

    def test_the_nearer_one_covers_the_farther_one(self) -> None:
        output = rasterize_reference(self.gaussians, [self.camera], background=torch.ones(3, dtype=F64))
        assert output.rgb[0, 2, 2].tolist() == pytest.approx([0.6 + 0.2, 0.4 * 0.5 + 0.2, 0.2], abs=1e-12)
        assert output.alpha[0, 2, 2].item() == pytest.approx(1 - 0.4 * 0.5, abs=1e-12)
        assert output.n_visible == 2

    def test_the_expected_depth_is_the_weighted_mean(self) -> None:
        output = rasterize_reference(self.gaussians, [self.camera], settings=RasterSettings(depth=True))
        assert output.depth is not None
        assert output.depth[0, 2, 2].item() == pytest.approx((0.6 * 2 + 0.2 * 3) / 0.8, abs=1e-12)
        assert output.depth[0, 0, 0].item() == 0

    def test_the_median_depth_is_where_half_of_the_light_is_gone(self) -> None:
        output = rasterize_reference(self.gaussians, [self.camera], settings=RasterSettings(median_depth=True))
        assert output.median_depth is not None
        assert output.median_depth[0, 2, 2].item() == 2
        faint = gaussians_at([[0, 0, 3], [0, 0, 2]], opacities=[0.4, 0.3])
        output = rasterize_reference(faint, [self.camera], settings=RasterSettings(median_depth=True))
        assert output.median_depth is not None
        assert output.median_depth[0, 2, 2].item() == 3  # 0.7 after the first, 0.42 after the second
        assert output.median_depth[0, 0, 0].item() == 0

    def test_features_blend_like_colours_but_over_nothing(self) -> None:
        features = torch.tensor([[1.0], [-2.0]], dtype=F64)
        output = rasterize_reference(
            self.gaussians, [self.camera], features=features, background=torch.ones(3, dtype=F64)
        )
        assert output.features is not None
        assert output.features[0, 2, 2].tolist() == pytest.approx([0.6 * -2 + 0.2 * 1], abs=1e-12)

    def test_at_equal_depth_the_order_of_the_set_decides(self) -> None:
        level = replace(self.gaussians, means=torch.tensor([[0, 0, 2.0], [0, 0, 2.0]], dtype=F64))
        output = rasterize_reference(level, [self.camera])
        assert output.rgb[0, 2, 2].tolist() == pytest.approx([0.5 * 0.6, 0.5, 0], abs=1e-12)

    def test_a_pixel_is_finished_before_the_gaussian_that_would_end_it(self) -> None:
        # 1 - alpha: 0.001, then 0.09 would leave 9e-5 < 1e-4, so neither the second nor the faint third is blended.
        stack = gaussians_at(
            [[0, 0, 2], [0, 0, 3], [0, 0, 4]],
            opacities=[0.9999, 0.91, 0.01],
            colours=[[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        )
        output = rasterize_reference(stack, [self.camera])
        assert output.rgb[0, 2, 2].tolist() == pytest.approx([0.999, 0, 0], abs=1e-12)
        assert output.alpha[0, 2, 2].item() == pytest.approx(0.999, abs=1e-12)


class TestWhatIsNotDrawn:
    def test_behind_the_camera_or_before_the_near_plane(self) -> None:
        output = render(SCENES["behind_the_camera"](F64))
        assert output.n_visible == 2

    def test_nothing_visible_leaves_the_background(self) -> None:
        for name in ("zero_visible", "no_gaussians"):
            scene = SCENES[name](F64)
            output = render(scene)
            assert output.n_visible == 0
            assert (output.rgb == scene.background).all()
            assert (output.alpha == 0).all()

    def test_a_gaussian_that_is_not_finite_changes_nothing_and_gets_a_gradient_of_zero(self) -> None:
        scene, inputs = leaves(SCENES["not_finite"](F64))
        good = torch.arange(len(scene.gaussians)) >= 14
        output = render(scene)
        expected = render(replace(scene, gaussians=scene.gaussians.select(good), features=scene.features[good]))
        torch.testing.assert_close(output.rgb, expected.rgb, rtol=0, atol=0)
        sum(value.sum() for value in smooth_outputs(output)).backward()
        for name, tensor in inputs.items():
            assert tensor.grad is not None
            assert tensor.grad.isfinite().all(), name
            if tensor.shape[0] == len(good):
                assert (tensor.grad[~good] == 0).all(), name

    def test_outside_of_the_depth_range(self) -> None:
        gaussians = gaussians_at([[0, 0, 2], [0, 0, 3], [0, 0, 4]])
        output = rasterize_reference(
            gaussians, [identity_camera(5, 5, F64)], settings=RasterSettings(near=2.5, far=3.5)
        )
        assert output.n_visible == 1


class TestGradients:
    # A step would change the order of equal depths, and repair what is not finite; the large ones take too long.
    @pytest.mark.parametrize(
        "name",
        [name for name in SCENES if name not in ("equal_depths", "not_finite", "thousands_on_one_pixel", "crowded")],
    )
    def test_they_are_the_differences_of_what_is_drawn(self, name: str) -> None:
        """Along a random direction of each input; a cut at 1/255 can make one step jump, so two are tried."""
        scene, inputs = leaves(SCENES[name](F64))
        generator = torch.Generator().manual_seed(1)
        weights = [torch.randn(value.shape, generator=generator, dtype=F64) for value in smooth_outputs(render(scene))]

        def loss(values: dict[str, torch.Tensor]) -> torch.Tensor:
            n_cameras = len(scene.cameras)
            moved = replace(
                scene,
                gaussians=Gaussians(**{key: values[key] for key in scene.gaussians.parameters()}),
                cameras=tuple(
                    replace(scene.cameras[i], world_to_camera=values[f"pose[{i}]"], K=values[f"K[{i}]"])
                    for i in range(n_cameras)
                ),
                background=values["background"],
                features=values["features"],
            )
            return sum(((w * v).sum() for w, v in zip(weights, smooth_outputs(render(moved)), strict=True)))

        value = loss(inputs)
        gradients = torch.autograd.grad(value, list(inputs.values()), allow_unused=True)
        for key, gradient in zip(inputs, gradients, strict=True):
            if gradient is None:
                continue
            direction = torch.randn(gradient.shape, generator=generator, dtype=F64) * inputs[key].isfinite()
            slope = (gradient * direction).sum().item()
            errors = []
            for step in (1e-6, 1e-7):
                ahead = loss({**inputs, key: (inputs[key] + step * direction).detach()}).item()
                behind = loss({**inputs, key: (inputs[key] - step * direction).detach()}).item()
                errors.append(abs((ahead - behind) / (2 * step) - slope))
            assert min(errors) <= 1e-6 * max(abs(slope), 1.0), key

    def test_gradcheck_passes_for_every_input(self) -> None:
        gaussians = random_gaussians(2, F64, seed=2, moving=True, scale=0.6)
        # Finite differences need finite durations.
        gaussians = replace(gaussians, log_durations=torch.full((2,), 0.2, dtype=F64))
        scene, inputs = leaves(
            HandMadeScene(
                gaussians, ring_cameras(1, 5, 4, F64, [0.7]), torch.rand(3, dtype=F64), torch.rand(2, 2, dtype=F64)
            )
        )
        names = list(inputs)

        def outputs(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            named = dict(zip(names, values, strict=True))
            moved = replace(
                scene,
                gaussians=Gaussians(**{key: named[key] for key in gaussians.parameters()}),
                cameras=(replace(scene.cameras[0], world_to_camera=named["pose[0]"], K=named["K[0]"]),),
                background=named["background"],
                features=named["features"],
            )
            return smooth_outputs(render(moved))

        assert torch.autograd.gradcheck(outputs, tuple(inputs.values()))

    def test_a_still_gaussian_in_a_moving_set_has_no_gradient_of_time(self) -> None:
        scene, inputs = leaves(SCENES["moving_set"](F64))
        render(scene).rgb.sum().backward()
        still = scene.gaussians.log_durations == torch.inf
        for name in ("displacements", "time_centres", "log_durations"):
            gradient = inputs[name].grad
            assert gradient is not None
            assert (gradient[still] == 0).all(), name
            assert (gradient[~still] != 0).any(), name


class TestStatistics:
    """Of two Gaussians on the axis, alpha 0.6 before 0.5, and one behind the camera; 5 x 5 pixels."""

    gaussians = gaussians_at([[0, 0, 3], [0, 0, 2], [0, 0, -2]], opacities=[0.5, 0.6, 0.5], scales=0.01)

    def collect(self, n_cameras: int) -> tuple[GaussianStatistics, RenderOutput, torch.Tensor]:
        statistics = GaussianStatistics.zeros(3)
        gaussians = replace(self.gaussians, means=self.gaussians.means.clone().requires_grad_())
        output = rasterize_reference(gaussians, [identity_camera(5, 5, F64)] * n_cameras, statistics=statistics)
        return statistics, output, gaussians.means

    def test_weights_and_pixels_are_summed_over_the_picture(self) -> None:
        statistics, output, _ = self.collect(1)
        assert statistics.blend_weight.sum().item() == pytest.approx(output.alpha.sum().item(), abs=1e-6)
        assert statistics.blend_weight[0] < statistics.blend_weight[1]
        # exp(-d^2 / (2 * 0.3025)) * 0.6 >= 1/255 up to d^2 = 3.04: the 3 x 3 pixels; for 0.5 and 0.3011 as well.
        assert statistics.n_pixels.tolist() == [9, 9, 0]

    def test_cameras_are_counted(self) -> None:
        statistics, _, _ = self.collect(2)
        assert statistics.n_seen.tolist() == [2, 2, 0]

    def test_the_radius_is_three_standard_deviations(self) -> None:
        statistics, _, _ = self.collect(1)
        expected = [3 * math.sqrt((10 * 0.01 / z) ** 2 + 0.3) for z in (3, 2)]
        assert statistics.max_radius.tolist() == pytest.approx([*expected, 0], rel=1e-6)

    def test_the_gradient_on_screen_is_that_of_the_mean_in_halves_of_the_picture(self) -> None:
        statistics, output, means = self.collect(2)
        (output.rgb[:, :, 3] * torch.tensor([1.0, 0.5, 2.0], dtype=F64)).sum().backward()
        assert means.grad is not None
        # On the axis du/dx is 10 / z; depth does not matter to the picture, the size on screen moves it very little.
        expected = [2.5 * means.grad[i, :2].norm().item() * z / 10 for i, z in enumerate((3, 2))]
        assert statistics.screen_gradient.tolist() == pytest.approx([*expected, 0], rel=1e-5)
        assert min(expected) > 0.01


def test_a_moving_set_looks_like_its_slice() -> None:
    scene = SCENES["moving_set"](F64)
    for camera in scene.cameras:
        assert camera.time is not None
        moving = rasterize_reference(scene.gaussians, [camera])
        sliced = rasterize_reference(scene.gaussians.at(camera.time), [camera])
        torch.testing.assert_close(moving.rgb, sliced.rgb, rtol=0, atol=1e-14)  # measured 5e-16


def test_the_size_of_the_blocks_changes_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = SCENES["odd_image_sizes"](F64)
    whole = render(scene)
    monkeypatch.setattr(reference, "BLOCK", 7)
    for a, b in zip(smooth_outputs(whole), smooth_outputs(render(scene)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)  # measured 0


@pytest.mark.parametrize("name", SCENES)
def test_float32_draws_what_float64_draws(name: str) -> None:
    single, double = render(SCENES[name](torch.float32)), render(SCENES[name](F64))
    assert single.rgb.dtype == torch.float32
    assert single.n_visible == double.n_visible
    assert (single.rgb - double.rgb).abs().max() < 4e-6  # measured at most 9.1e-7, antialiased_set


def test_the_basis_of_spherical_harmonics_is_orthonormal() -> None:
    """Over 200 x 400 directions, to the accuracy of the midpoint rule."""
    polar = (torch.arange(200, dtype=F64) + 0.5) * math.pi / 200
    azimuth = (torch.arange(400, dtype=F64) + 0.5) * 2 * math.pi / 400
    theta, phi = torch.meshgrid(polar, azimuth, indexing="ij")
    directions = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], dim=-1).reshape(-1, 3)
    weights = (theta.sin() * (math.pi / 200) * (2 * math.pi / 400)).reshape(-1)
    basis = sh_basis(directions, 3)
    products = torch.einsum("p,pi,pj->ij", weights, basis, basis)
    torch.testing.assert_close(products, torch.eye(16, dtype=F64), rtol=0, atol=1e-4)  # measured 7.2e-5
