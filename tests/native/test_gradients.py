"""The derivatives of the native code are those of its pictures: finite differences in float64 through every input.

The mathematics is one source for both backends, so what holds here holds on the GPU. Blending jumps where alpha passes
1/255; the scenes are seeded, and no pixel of theirs comes within the step of a finite difference to such a place.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from render.scenes import HandMadeScene, leaves, random_gaussians, ring_cameras
from torch import Tensor

from kinosplat.render import Gaussians, RasterSettings, rasterize

# gradcheck's own test is |analytic - numeric| <= ATOL + RTOL * |numeric|; measured: 0.053 of that at worst.
STEP, ATOL, RTOL = 1e-6, 1e-6, 1e-5

GAUSSIAN_INPUTS = (
    "means", "quats", "log_scales", "opacity_logits", "sh_dc", "sh_rest", "displacements", "time_centres",
    "log_durations"
)  # fmt: skip
OTHER_INPUTS = ("pose[0]", "pose[1]", "K[0]", "K[1]", "background", "features")


def small_scene(*, antialiased: bool) -> HandMadeScene:
    """Five Gaussians of degree 3 that all move, as two cameras see them at two times, in pictures of 11 x 9 pixels."""
    gaussians = random_gaussians(5, torch.float64, seed=11, moving=True, scale=0.3)
    gaussians = replace(
        gaussians,
        displacements=torch.linspace(-0.3, 0.4, 15, dtype=torch.float64).reshape(5, 3),
        log_durations=torch.linspace(-0.8, 0.3, 5, dtype=torch.float64),
    )
    return HandMadeScene(
        gaussians=gaussians,
        cameras=ring_cameras(2, 11, 9, torch.float64, [0.2, 0.9]),
        background=torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64),
        features=torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(5, 2),
        antialiased=antialiased,
    )


def projections(scene: HandMadeScene) -> Tensor:
    """(3,) random weightings of all numbers in all pictures: as telling as those, and much less to differentiate."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(3, dtype=torch.float64)
    for picture in pictures(scene):
        total = total + torch.randn(3, picture.numel(), generator=generator, dtype=torch.float64) @ picture.flatten()
    return total


def pictures(scene: HandMadeScene) -> tuple[Tensor, ...]:
    out = rasterize(
        scene.gaussians,
        scene.cameras,
        background=scene.background,
        features=scene.features,
        settings=RasterSettings(antialiased=scene.antialiased, depth=True, normal=True),
    )
    assert out.depth is not None
    assert out.normal is not None
    assert out.features is not None
    return out.rgb, out.alpha, out.depth, out.normal, out.features


def with_input(scene: HandMadeScene, name: str, value: Tensor) -> HandMadeScene:
    if name in GAUSSIAN_INPUTS:
        return replace(scene, gaussians=Gaussians(**{**scene.gaussians.parameters(), name: value}))
    if name in ("background", "features"):
        return replace(scene, **{name: value})
    kind, number = name[:-1].split("[")
    cameras = list(scene.cameras)
    field = {"pose": "world_to_camera", "K": "K"}[kind]
    cameras[int(number)] = replace(cameras[int(number)], **{field: value})
    return replace(scene, cameras=tuple(cameras))


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("name", GAUSSIAN_INPUTS + OTHER_INPUTS)
def test_gradients_are_those_of_finite_differences(name: str, antialiased: bool) -> None:
    scene = small_scene(antialiased=antialiased)
    _, inputs = leaves(scene)
    value = inputs[name]

    def render(changed: Tensor) -> Tensor:
        return projections(with_input(scene, name, changed))

    assert torch.autograd.gradcheck(render, (value,), eps=STEP, atol=ATOL, rtol=RTOL)
    (gradient,) = torch.autograd.grad(render(value)[0], value)
    if name.startswith("pose"):
        assert (gradient[3] == 0).all()  # the last row of a rigid transform is not read
        gradient = gradient[:3]
    if name.startswith("K"):
        gradient = gradient[[0, 1, 0, 1], [0, 1, 2, 2]]
    assert (gradient != 0).all()  # a check of nothing but zeros would prove nothing


@pytest.mark.parametrize("name", ["means", "quats", "log_scales", "pose[0]", "K[0]"])
def test_gradients_beside_the_picture_are_right_too(name: str) -> None:
    """Where the Jacobian is taken at the margin, it no longer depends on the mean."""
    scene = small_scene(antialiased=False)
    camera = scene.cameras[0]
    means = torch.tensor([[2.4, 0.3, 0.1], [-2.2, 0.1, 0.2], [0.2, 1.9, 0.0], [0.1, -1.8, 0.3], [1.9, 1.7, 0.4]])
    to_world = camera.world_to_camera.inverse()
    offsets = (means.double() + torch.tensor([0.0, 0.0, 2.0])) @ to_world[:3, :3].T + to_world[:3, 3]
    scene = replace(
        scene,
        cameras=(camera,),
        gaussians=replace(
            scene.gaussians,
            means=offsets,
            displacements=torch.zeros(5, 3, dtype=torch.float64),
            log_scales=scene.gaussians.log_scales + 1.0,
        ),
    )
    value = leaves(scene)[1][name]
    assert pictures(scene)[1].max() > 0.1  # they do reach into it
    assert torch.autograd.gradcheck(
        lambda changed: projections(with_input(scene, name, changed)), (value,), eps=STEP, atol=ATOL, rtol=RTOL
    )


def test_a_still_gaussian_in_a_moving_set_has_no_gradient_in_time() -> None:
    scene = small_scene(antialiased=False)
    still = torch.full((5,), torch.inf, dtype=torch.float64)
    scene = with_input(
        with_input(scene, "log_durations", still), "displacements", torch.zeros(5, 3, dtype=torch.float64)
    )
    scene, inputs = leaves(scene)
    projections(scene)[0].backward()
    for name in ("displacements", "time_centres", "log_durations"):
        assert (inputs[name].grad == 0).all(), name
    assert inputs["means"].grad.isfinite().all()
    assert (inputs["means"].grad != 0).all()
