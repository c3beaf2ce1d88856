"""Whole frames on the GPU: like the CPU backend's, in every size, on every stream, and refused in one sentence where
they cannot be.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.render import Camera, Gaussians, GaussianStatistics, RasterSettings, rasterize
from kinosplat.render.backend import passes_for
from kinosplat.render.camera import look_at
from kinosplat.render.pass_times import PassTimes
from kinosplat.render.rasterize import frame_inputs

pytestmark = pytest.mark.gpu


def cloud(n: int, *, seed: int = 0, moving: bool = False, scale: float = 0.02, device: str = "cuda") -> Gaussians:
    """A ball of Gaussians around the origin, degree 3."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    time = {}
    if moving:
        time = {
            "displacements": 0.1 * normal(n, 3),
            "time_centres": torch.rand(n, generator=generator),
            "log_durations": -1.5 + 0.3 * normal(n),
        }
    return Gaussians(
        means=0.5 * normal(n, 3),
        quats=normal(n, 4),
        log_scales=torch.tensor(scale).log() + 0.6 * normal(n, 3),
        opacity_logits=normal(n),
        sh_dc=0.5 * normal(n, 3),
        sh_rest=0.1 * normal(n, 15, 3),
        **time,
    ).to(device)


def camera(width: int, height: int, angle: float = 0.0, time: float | None = None, device: str = "cuda") -> Camera:
    """Two and a half units from the origin, looking at it."""
    K = torch.tensor([[1.1 * width, 0, width / 2], [0, 1.1 * width, height / 2], [0, 0, 1]])
    position = 2.5 * torch.tensor([torch.sin(torch.tensor(angle)), -0.2, -torch.cos(torch.tensor(angle))])
    made = look_at(position, torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), K=K, width=width, height=height, time=time)
    return made.to(device)


def gradients(gaussians: Gaussians, cameras: list[Camera], weights: Tensor) -> dict[str, Tensor]:
    leaves = gaussians.map(lambda tensor: tensor.clone().requires_grad_())
    (rasterize(leaves, cameras).rgb * weights.to(leaves.device)).sum().backward()
    return {name: leaf.grad for name, leaf in leaves.parameters().items()}


def relative_error(a: Tensor, b: Tensor) -> float:
    return float((a.cpu().double() - b.cpu().double()).norm() / b.cpu().double().norm())


@pytest.mark.parametrize("moving", [False, True])
def test_a_picture_and_its_gradients_are_those_of_the_cpu_backend(moving: bool) -> None:
    gaussians = cloud(20_000, moving=moving)
    view = camera(320, 240, time=0.4 if moving else None)
    weights = torch.randn(1, 240, 320, 3, generator=torch.Generator().manual_seed(1))
    on_gpu = rasterize(gaussians.map(lambda t: t.requires_grad_(False)), [view], settings=RasterSettings(depth=True))
    on_cpu = rasterize(gaussians.to("cpu"), [view.to("cpu")], settings=RasterSettings(depth=True))
    assert on_gpu.n_visible == on_cpu.n_visible
    error = (on_gpu.rgb.cpu() - on_cpu.rgb).square().mean()
    assert -10 * torch.log10(error) > 90
    ours, expected = gradients(gaussians, [view], weights), gradients(gaussians.to("cpu"), [view.to("cpu")], weights)
    for name, gradient in expected.items():
        assert relative_error(ours[name], gradient) < 1e-3, name


def test_a_batch_is_its_cameras_one_by_one() -> None:
    gaussians = cloud(5000, moving=True)
    cameras = [camera(160, 90, angle, time) for angle, time in ((0.0, 0.2), (0.7, 0.5), (2.0, 0.9))]
    weights = torch.randn(3, 90, 160, 3, generator=torch.Generator().manual_seed(2))
    batch = rasterize(gaussians, cameras)
    alone = [rasterize(gaussians, [one]) for one in cameras]
    assert torch.equal(batch.rgb, torch.cat([output.rgb for output in alone]))
    assert batch.n_hits == sum(output.n_hits for output in alone)
    together = gradients(gaussians, cameras, weights)
    apart = [gradients(gaussians, [one], weights[i : i + 1]) for i, one in enumerate(cameras)]
    for name, gradient in together.items():
        assert relative_error(gradient, sum(part[name] for part in apart)) < 1e-5, name


def test_cameras_whose_tiles_do_not_fit_16_bits_are_rendered_together() -> None:
    gaussians = cloud(300, scale=0.3)
    cameras = [camera(8192, 4096, angle) for angle in (0.0, 0.7, 2.0)]
    with torch.no_grad():
        batch = rasterize(gaussians, cameras)
        for together, one in zip(batch.rgb, cameras, strict=True):
            assert torch.equal(together, rasterize(gaussians, [one]).rgb[0])


@pytest.mark.parametrize("spread", [1e-3, 1.0, 30.0])
def test_depths_close_together_and_far_apart_are_put_in_order(spread: float) -> None:
    generator = torch.Generator().manual_seed(3)
    gaussians = cloud(20_000)
    depths = torch.exp(spread * torch.rand(20_000, generator=generator) - spread / 2).cuda()
    means = torch.randn(20_000, 2, generator=generator).cuda() * 0.3 * depths[:, None]
    gaussians = replace(
        gaussians,
        means=torch.cat([means, depths[:, None]], 1),
        log_scales=gaussians.log_scales + depths.log()[:, None],
    )
    view = replace(camera(160, 120), world_to_camera=torch.eye(4, device="cuda"))
    on_gpu = rasterize(gaussians, [view], settings=RasterSettings(near=1e-8, depth=True))
    on_cpu = rasterize(gaussians.to("cpu"), [view.to("cpu")], settings=RasterSettings(near=1e-8, depth=True))
    assert -10 * torch.log10((on_gpu.rgb.cpu() - on_cpu.rgb).square().mean()) > 70


def test_a_frame_that_was_given_up_leaves_the_next_alone() -> None:
    gaussians, view = cloud(2000), camera(64, 48)
    expected = rasterize(gaussians, [view])
    given_up = frame_inputs(cloud(100_000), [view], None, None, RasterSettings(), None)
    passes_for(gaussians.device).begin_frame(given_up, keep_state=True, statistics=None)
    nothing = rasterize(gaussians.select(torch.zeros(0, dtype=torch.int64, device="cuda")), [view])
    assert nothing.n_visible == 0
    passes_for(gaussians.device).begin_frame(given_up, keep_state=True, statistics=None)
    output = rasterize(gaussians, [view])
    assert output.n_visible == expected.n_visible
    assert torch.equal(output.rgb, expected.rgb)


def test_a_second_backward_pass_gives_the_same_gradients() -> None:
    gaussians, view = cloud(3000), camera(160, 120)
    leaves = gaussians.map(lambda t: t.clone().requires_grad_())
    loss = rasterize(leaves, [view]).rgb.square().sum()
    loss.backward(retain_graph=True)
    first = {name: leaf.grad.clone() for name, leaf in leaves.parameters().items()}
    loss.backward()
    for name, leaf in leaves.parameters().items():
        assert relative_error(leaf.grad, 2 * first[name]) < 1e-5, name


def test_two_runs_give_the_same_picture() -> None:
    gaussians, view = cloud(50_000), camera(640, 360)
    first, second = rasterize(gaussians, [view]).rgb, rasterize(gaussians, [view]).rgb
    assert torch.equal(first, second)


def test_the_picture_without_gradients_is_at_least_50_db_from_the_exact_one() -> None:
    gaussians, view = cloud(50_000), camera(640, 360)
    packed = rasterize(gaussians, [view]).rgb
    exact = rasterize(gaussians.map(lambda t: t.clone().requires_grad_()), [view]).rgb
    assert -10 * torch.log10((packed - exact).square().mean()) > 50


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("sh_degree", [1, 2, 3])
def test_a_set_for_drawing_looks_the_same(moving: bool, sh_degree: int) -> None:
    gaussians, settings = cloud(50_003, moving=moving), RasterSettings(sh_degree=sh_degree)
    stored = replace(gaussians, sh_rest=gaussians.sh_rest[:, : (sh_degree + 1) ** 2 - 1].contiguous())
    view = camera(320, 240, time=0.4 if moving else None)
    with torch.no_grad():
        exact, drawn = (rasterize(g, [view], settings=settings).rgb for g in (stored, stored.for_drawing()))
        with_depth = rasterize(stored.for_drawing(), [view], settings=replace(settings, depth=True)).rgb
    assert -10 * torch.log10((exact - drawn).square().mean()) > 50.0
    assert -10 * torch.log10((exact - with_depth).square().mean()) > 50.0


def test_a_set_for_drawing_takes_no_gradients() -> None:
    gaussians = cloud(100).for_drawing()
    looked_from = camera(32, 24)
    looked_from.world_to_camera.requires_grad_()
    with pytest.raises(InputError, match="sh_rest in float16 is for drawing on a GPU without gradients"):
        rasterize(gaussians, [looked_from])


@pytest.mark.parametrize("n_features", [1, 8, 9, 16, 21])
def test_any_number_of_features_is_blended_as_by_the_cpu_backend(n_features: int) -> None:
    """Channels go in groups; every group must see the same weights and add its part of the gradients."""
    draws = torch.Generator().manual_seed(n_features)
    values = torch.randn(1000, n_features, generator=draws)
    weights = torch.randn(1, 48, 64, n_features, generator=draws)
    found = {}
    for device in ("cpu", "cuda"):
        features = values.to(device, copy=True).requires_grad_()
        leaves = cloud(1000, scale=0.1, device=device).map(lambda tensor: tensor.clone().requires_grad_())
        output = rasterize(leaves, [camera(64, 48, device=device)], features=features)
        (output.features * weights.to(device)).sum().backward()
        gradients = {name: leaf.grad for name, leaf in leaves.parameters().items()}
        found[device] = {"picture": output.features.detach(), "features": features.grad} | gradients
    for name, expected in found["cpu"].items():
        if expected.abs().max() > 0:
            assert relative_error(found["cuda"][name], expected) < 1e-3, name


@pytest.mark.parametrize(("width", "height"), [(1, 1), (17, 1), (1, 300), (8192, 4096)])
def test_every_size_of_picture_is_rendered_to_its_last_pixel(width: int, height: int) -> None:
    gaussians = cloud(300, scale=0.3)
    leaves = gaussians.map(lambda t: t.clone().requires_grad_())
    output = rasterize(leaves, [camera(width, height)], background=torch.tensor([0.1, 0.2, 0.3], device="cuda"))
    assert output.rgb.shape == (1, height, width, 3)
    assert torch.isfinite(output.rgb).all()
    assert (output.alpha >= 0).all()
    output.rgb.mean().backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves.parameters().values())


def test_ten_million_gaussians_fit() -> None:
    n = 10_000_000
    generator = torch.Generator("cuda").manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device="cuda") - 0.5

    gaussians = Gaussians(
        means=uniform(n, 3),
        quats=uniform(n, 4),
        log_scales=uniform(n, 3) - 7,
        opacity_logits=uniform(n),
        sh_dc=uniform(n, 3),
        sh_rest=uniform(n, 3, 3),
    )
    leaves = gaussians.map(lambda t: t.requires_grad_())
    output = rasterize(leaves, [camera(640, 360)])
    assert output.n_visible > 5_000_000
    output.rgb.sum().backward()
    assert torch.isfinite(leaves.means.grad).all()
    assert (leaves.sh_dc.grad != 0).any()


def test_nothing_visible_leaves_the_background_and_zero_gradients() -> None:
    gaussians = cloud(1000)
    world_to_camera = torch.eye(4, device="cuda")
    world_to_camera[2, 3] = -100.0
    behind = replace(camera(64, 48), world_to_camera=world_to_camera)
    leaves = gaussians.map(lambda t: t.clone().requires_grad_())
    colour = torch.tensor([0.1, 0.2, 0.3], device="cuda")
    output = rasterize(leaves, [behind], background=colour)
    assert output.n_visible == 0
    assert torch.equal(output.rgb, colour.expand(1, 48, 64, 3))
    output.rgb.sum().backward()
    assert all((leaf.grad == 0).all() for leaf in leaves.parameters().values())


def test_work_goes_to_the_current_stream() -> None:
    gaussians, view = cloud(20_000), camera(320, 240)
    expected = rasterize(gaussians, [view]).rgb
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        # The set is ready only when the stream gets there: work on another stream would see zeros.
        late = gaussians.map(torch.zeros_like)
        torch.cuda._sleep(50_000_000)
        for name, tensor in late.parameters().items():
            tensor.copy_(getattr(gaussians, name))
        output = rasterize(late, [view]).rgb
    stream.synchronize()
    assert torch.equal(output, expected)


def test_gradients_are_worked_out_on_the_stream_of_the_picture() -> None:
    gaussians, view = cloud(20_000), camera(320, 240)
    weights = torch.randn(1, 240, 320, 3, device="cuda")
    expected = gradients(gaussians, [view], weights)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        found = gradients(gaussians, [view], weights)
    stream.synchronize()
    for name, gradient in expected.items():
        assert relative_error(found[name], gradient) < 1e-5, name  # atomics add up in another order


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="This machine has one CUDA device.")
def test_the_device_of_the_tensors_is_used_whatever_device_is_current() -> None:
    gaussians, view = cloud(2000), camera(64, 48)
    expected = rasterize(gaussians, [view]).rgb
    assert torch.cuda.current_device() == 0
    elsewhere = rasterize(gaussians.to("cuda:1"), [view.to("cuda:1")]).rgb
    assert elsewhere.device == torch.device("cuda:1")
    assert torch.equal(elsewhere.cpu(), expected.cpu())


def test_gaussians_with_nan_are_left_out() -> None:
    gaussians, view = cloud(2000), camera(64, 48)
    expected = rasterize(gaussians.select(torch.arange(1000, 2000, device="cuda")), [view])
    broken = gaussians.map(torch.clone)
    for row, tensor in enumerate(broken.parameters().values()):
        tensor[row] = torch.nan
    for name, tensor in broken.parameters().items():
        if name == "means":
            tensor[6:1000] = torch.inf
    output = rasterize(broken, [view])
    assert output.n_visible == expected.n_visible
    assert torch.equal(output.rgb, expected.rgb)


def test_statistics_are_those_of_the_cpu_backend() -> None:
    gaussians, view = cloud(5000), camera(160, 120)
    collected = {}
    for device in ("cuda", "cpu"):
        statistics = GaussianStatistics.zeros(5000, device)
        leaves = gaussians.to(device).map(lambda t: t.clone().requires_grad_())
        visible = torch.zeros(5000, dtype=torch.bool, device=device)
        rasterize(leaves, [view.to(device)], statistics=statistics, visible=visible).rgb.square().sum().backward()
        collected[device] = {name: tensor.cpu() for name, tensor in vars(statistics).items()}
        assert torch.equal(visible, statistics.n_seen > 0)
    ours, expected = collected["cuda"], collected["cpu"]
    assert torch.equal(ours["n_seen"], expected["n_seen"])
    assert (ours["n_pixels"] - expected["n_pixels"]).abs().sum() <= 1e-4 * expected["n_pixels"].sum()
    for name in ("blend_weight", "screen_gradient", "max_radius"):
        assert relative_error(ours[name], expected[name]) < 1e-3, name


def refusal(gaussians: Gaussians, view: Camera) -> str:
    with pytest.raises(InputError) as caught:
        rasterize(gaussians, [view])
    return str(caught.value)


def test_tensors_that_do_not_fit_are_refused_by_name() -> None:
    gaussians, view = cloud(10), camera(16, 12)
    elsewhere = replace(gaussians, quats=gaussians.quats.cpu())
    assert refusal(elsewhere, view) == "quats must be on cuda:0, got cpu; move it there first."
    strided = replace(gaussians, means=torch.zeros(10, 6, device="cuda")[:, ::2])
    assert refusal(strided, view) == "means must be contiguous; call .contiguous() on it first."
    double = replace(gaussians, sh_dc=gaussians.sh_dc.double())
    assert refusal(double, view) == "sh_dc must be float32, got float64; convert it first."
    features = torch.zeros(10, 2)
    with pytest.raises(InputError) as caught:
        rasterize(gaussians, [view], features=features)
    assert str(caught.value) == "features must be on cuda:0, got cpu; move it there first."
    assert refusal(gaussians.to(dtype=torch.float64), view) == "means must be float32, got float64; convert it first."


def test_pass_times_are_within_the_frame_and_change_nothing() -> None:
    gaussians, view = cloud(100_000), camera(640, 480)
    with torch.no_grad():
        expected = rasterize(gaussians, [view]).rgb
        times = PassTimes()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        rgb = rasterize(gaussians, [view], times=times).rgb
        end.record()
        end.synchronize()
    seconds = times.seconds()
    assert list(seconds) == ["project", "bin", "blend"]
    assert all(value > 0 for value in seconds.values())
    assert 1e3 * sum(seconds.values()) < begin.elapsed_time(end)
    assert torch.equal(rgb, expected)
