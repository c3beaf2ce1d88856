"""Small hand-made scenes that hit the corners of the rasterizer, shared by the tests of all backends.

Every function takes a dtype and returns a `HandMadeScene`; `SCENES` names them all. They are deterministic and small
enough for the plain-torch reference. The axes of a Gaussian differ in length, so that the shortest one, its normal, is
no matter of rounding. Use them as

    @pytest.mark.parametrize("name", SCENES)
    def test_something(name): scene = SCENES[name](torch.float64)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kinosplat.render.camera import Camera, look_at
from kinosplat.render.gaussians import Gaussians

SH_C0 = 0.28209479177387814


@dataclass(frozen=True)
class HandMadeScene:
    """Everything a call of a rasterizer needs."""

    gaussians: Gaussians
    cameras: tuple[Camera, ...]
    background: Tensor
    """(3,)"""
    features: Tensor
    """(N, 2)"""
    antialiased: bool = False

    def to(self, device: torch.device | str, dtype: torch.dtype) -> HandMadeScene:
        """The same scene with its tensors on `device` and in `dtype`."""
        return replace(
            self,
            gaussians=self.gaussians.to(device, dtype),
            cameras=tuple(camera.to(device, dtype) for camera in self.cameras),
            background=self.background.to(device, dtype),
            features=self.features.to(device, dtype),
        )


def identity_camera(
    width: int, height: int, dtype: torch.dtype, focal: float = 10.0, time: float | None = None
) -> Camera:
    """At the origin, looking along +z, principal point in the middle of the picture."""
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=dtype)
    return Camera(torch.eye(4, dtype=dtype), K, width, height, time)


def gaussians_at(
    means: list[list[float]],
    *,
    scales: float | list[float] | list[list[float]] = 0.1,
    opacities: float | list[float] = 0.5,
    colours: list[list[float]] | None = None,
    quats: list[list[float]] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Gaussians:
    """A static set of degree 0 from values as one thinks of them: standard deviations, opacities, colours."""
    n = len(means)
    opacity = torch.as_tensor(opacities, dtype=dtype).expand(n)
    colour = torch.tensor(colours or [[1.0, 0.5, 0.25]] * n, dtype=dtype)
    scale = torch.as_tensor(scales, dtype=dtype)
    return Gaussians(
        means=torch.tensor(means, dtype=dtype),
        quats=torch.tensor(quats or [[1.0, 0.0, 0.0, 0.0]] * n, dtype=dtype),
        log_scales=scale.log().expand(n, 3).clone(),
        opacity_logits=torch.logit(opacity),
        sh_dc=(colour - 0.5) / SH_C0,
        sh_rest=torch.zeros(n, 0, 3, dtype=dtype),
    )


def random_gaussians(
    n: int, dtype: torch.dtype, *, seed: int = 0, moving: bool = False, scale: float = 0.15
) -> Gaussians:
    """A set of degree 3 around the origin, of all shapes; of a moving set, every other one is still (duration +inf)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    still = torch.arange(n) % 2 == 0
    time = {
        "displacements": torch.where(still[:, None], 0.0, 0.2 * normal(n, 3)),
        "time_centres": 0.5 + 0.3 * normal(n),
        "log_durations": torch.where(still, torch.inf, -0.5 + 0.3 * normal(n)),
    }
    return Gaussians(
        means=0.6 * normal(n, 3),
        quats=normal(n, 4),
        log_scales=math.log(scale) + 0.5 * normal(n, 3),
        opacity_logits=normal(n),
        sh_dc=normal(n, 3),
        sh_rest=0.2 * normal(n, 15, 3),
        **(time if moving else {}),
    )


def ring_cameras(
    n: int, width: int, height: int, dtype: torch.dtype, times: list[float] | None = None
) -> tuple[Camera, ...]:
    """Cameras at distance 3 looking at the origin, principal point off the centre and focal lengths unequal."""
    K = torch.tensor([[1.1 * width, 0, 0.45 * width], [0, 1.2 * width, 0.55 * height], [0, 0, 1]], dtype=dtype)
    cameras = []
    for i in range(n):
        angle = 2 * math.pi * i / n + 0.3
        position = torch.tensor([3 * math.cos(angle), 0.4, 3 * math.sin(angle)], dtype=dtype)
        target, up = torch.zeros(3, dtype=dtype), torch.tensor([0.0, -1.0, 0.0], dtype=dtype)
        time = times[i] if times else None
        cameras.append(look_at(position, target, up, K=K, width=width, height=height, time=time))
    return tuple(cameras)


def _scene(gaussians: Gaussians, cameras: tuple[Camera, ...], *, antialiased: bool = False) -> HandMadeScene:
    dtype = gaussians.means.dtype
    features = torch.linspace(-1, 1, 2 * len(gaussians), dtype=dtype).reshape(-1, 2)
    background = torch.tensor([0.2, 0.5, 0.7], dtype=dtype)
    return HandMadeScene(gaussians, cameras, background, features, antialiased)


def still_set(dtype: torch.dtype) -> HandMadeScene:
    """The ordinary case: 40 Gaussians, three cameras."""
    return _scene(random_gaussians(40, dtype), ring_cameras(3, 40, 30, dtype))


def moving_set(dtype: torch.dtype) -> HandMadeScene:
    """Moving and still (duration +inf) Gaussians together, three cameras at three times."""
    return _scene(random_gaussians(40, dtype, moving=True), ring_cameras(3, 40, 30, dtype, [0.0, 0.5, 1.2]))


def antialiased_set(dtype: torch.dtype) -> HandMadeScene:
    """Small Gaussians with the compensation of Mip-Splatting."""
    return _scene(random_gaussians(60, dtype, scale=0.02), ring_cameras(2, 40, 30, dtype), antialiased=True)


def behind_the_camera(dtype: torch.dtype) -> HandMadeScene:
    """In front of, behind, in the plane of and at the very centre of a camera, and before its near plane."""
    means = [[0.1, 0, 2], [0, 0, -2], [0.5, 0, 0], [0, 0, 0], [0, 0, 0.005], [-0.2, 0.1, 1.5]]
    return _scene(gaussians_at(means, scales=[0.1, 0.12, 0.08], dtype=dtype), (identity_camera(16, 12, dtype),))


def huge(dtype: torch.dtype) -> HandMadeScene:
    """Gaussians hundreds of images wide, one of them far outside of the view, where the Jacobian is clamped."""
    means = [[0, 0, 3], [20, 0, 4], [-3, -40, 5], [0.1, 0.2, 2]]
    scales = [[30.0, 25.0, 20.0], [15.0, 10.0, 2.0], [10.0, 20.0, 5.0], [0.1, 0.12, 0.08]]
    gaussians = gaussians_at(means, scales=scales, opacities=[0.3, 0.6, 0.7, 0.8], dtype=dtype)
    return _scene(gaussians, (identity_camera(33, 17, dtype),))


def tiny(dtype: torch.dtype) -> HandMadeScene:
    """Gaussians far below a pixel: the dilation alone gives them their size."""
    means = [[0.1 * i - 0.7, 0.07 * i - 0.3, 2 + 0.1 * i] for i in range(12)]
    return _scene(
        gaussians_at(means, scales=[1e-6, 2e-6, 5e-7], opacities=0.8, dtype=dtype), (identity_camera(16, 12, dtype),)
    )


def edge_on(dtype: torch.dtype) -> HandMadeScene:
    """Flat discs seen from the side, and a needle along the axis of view."""
    means = [[0.05, 0.003, 2], [-0.3, 0.1, 2.5], [0.3, -0.2, 3], [0.2, 0.2, 2.2]]
    scales = [[0.3, 1e-5, 0.3], [1e-5, 0.3, 0.3], [0.3, 0.3, 1e-5], [1e-4, 2e-4, 1.0]]
    tilt = [[1.0, 0, 0, 0], [1.0, 0, 0.01, 0], [1.0, 0.7, 0.1, 0], [1.0, 0, 0, 0]]
    gaussians = gaussians_at(means, scales=scales, quats=tilt, opacities=0.9, dtype=dtype)
    return _scene(gaussians, (identity_camera(24, 20, dtype, focal=20.0),))


def thousands_on_one_pixel(dtype: torch.dtype) -> HandMadeScene:
    """3000 faint small Gaussians behind one another in the middle of the picture, in no order of depth."""
    n = 3000
    order = torch.randperm(n, generator=torch.Generator().manual_seed(3)).tolist()
    means = [[1e-4 * (i % 7), 1e-4 * (i % 5), 1.0 + 0.001 * i] for i in order]
    colours = [[(i % 10 + 1) / 11, (i % 3 + 1) / 4, (i % 7 + 1) / 8] for i in order]
    gaussians = gaussians_at(means, scales=[0.01, 0.012, 0.008], opacities=0.006, colours=colours, dtype=dtype)
    return _scene(gaussians, (identity_camera(5, 5, dtype),))


def opaque_stack(dtype: torch.dtype) -> HandMadeScene:
    """Opaque Gaussians one behind the other: alpha is clipped at 0.999 and pixels finish early."""
    means = [[0.05 * i - 0.1, 0.02 * i, 2.0 + 0.2 * i] for i in range(8)]
    colours = [[(i + 1) / 10, 1 - i / 10, 0.5] for i in range(8)]
    gaussians = gaussians_at(means, scales=[0.3, 0.35, 0.25], opacities=0.9999, colours=colours, dtype=dtype)
    return _scene(gaussians, (identity_camera(16, 12, dtype),))


def opacity_at_the_clip_values(dtype: torch.dtype) -> HandMadeScene:
    """Opacities just above and just below 1/255 and 0.999, next to one another."""
    opacities = [1 / 255 * 1.02, 1 / 255 * 0.98, 0.9985, 0.9995]
    means = [[-0.9, 0, 2], [-0.3, 0, 2.1], [0.3, 0, 2.2], [0.9, 0, 2.3]]
    return _scene(
        gaussians_at(means, scales=[0.1, 0.12, 0.08], opacities=opacities, dtype=dtype),
        (identity_camera(20, 8, dtype),),
    )


def zero_visible(dtype: torch.dtype) -> HandMadeScene:
    """Nothing to see: all behind the camera or far beside the picture."""
    means = [[0, 0, -1], [0, 0, -5], [100, 0, 1], [0, -200, 1]]
    return _scene(gaussians_at(means, dtype=dtype), (identity_camera(9, 7, dtype),))


def no_gaussians(dtype: torch.dtype) -> HandMadeScene:
    """An empty set."""
    return _scene(random_gaussians(2, dtype).select(torch.zeros(0, dtype=torch.int64)), ring_cameras(2, 9, 7, dtype))


def one_pixel_image(dtype: torch.dtype) -> HandMadeScene:
    """A picture of 1 x 1."""
    means = [[0, 0, 2], [0.1, 0, 3], [-0.1, 0.05, 1.5]]
    return _scene(
        gaussians_at(means, scales=[0.2, 0.25, 0.15], dtype=dtype), (identity_camera(1, 1, dtype, focal=1.0),)
    )


def odd_image_sizes(dtype: torch.dtype) -> HandMadeScene:
    """Sides that no tile size divides."""
    return _scene(random_gaussians(25, dtype, seed=5), ring_cameras(2, 67, 35, dtype))


def crowded(dtype: torch.dtype) -> HandMadeScene:
    """400 Gaussians of high opacity: every pixel is finished early, many tiles share every Gaussian."""
    gaussians = random_gaussians(400, dtype, seed=6, scale=0.25)
    return _scene(replace(gaussians, opacity_logits=gaussians.opacity_logits + 2), ring_cameras(1, 100, 70, dtype))


def equal_depths(dtype: torch.dtype) -> HandMadeScene:
    """Overlapping Gaussians at exactly the same depth: the order of the set decides."""
    means = [[0.02 * i, 0.01 * i, 2.0] for i in range(6)]
    colours = [[(i + 1) / 10, 1 - i / 10, 0.3] for i in range(6)]
    gaussians = gaussians_at(means, scales=[0.2, 0.25, 0.15], opacities=0.7, colours=colours, dtype=dtype)
    return _scene(gaussians, (identity_camera(16, 12, dtype),))


def outside_the_margin(dtype: torch.dtype) -> HandMadeScene:
    """Centres beside the picture on all four sides, wide enough to reach into it: the Jacobian is clamped."""
    means = [[2.5, 0.1, 2], [-2.6, 0.2, 2.05], [0.1, 2.2, 2.1], [0.2, -2.4, 2.15], [3, 3, 2.2]]
    scales = [[0.8, 0.5, 0.3], [0.6, 0.8, 0.4], [0.5, 0.7, 0.8], [0.7, 0.9, 0.3], [1.5, 1.0, 0.9]]
    quats = [[1.0, 0.2 * i, -0.1 * i, 0.3] for i in range(5)]
    gaussians = gaussians_at(means, scales=scales, quats=quats, opacities=0.8, dtype=dtype)
    return _scene(gaussians, (identity_camera(20, 16, dtype),))


def not_finite(dtype: torch.dtype) -> HandMadeScene:
    """An ordinary set with its first 14 broken: every parameter NaN, some infinite, no rotation, a scale too large."""
    ordinary = random_gaussians(24, dtype, seed=7, moving=True)
    broken = {name: tensor.clone() for name, tensor in ordinary.parameters().items()}
    for row, tensor in enumerate(broken.values()):
        tensor[row] = torch.nan
    broken["means"][9, 1] = torch.inf
    broken["opacity_logits"][10] = torch.inf
    broken["log_durations"][11] = -torch.inf
    broken["quats"][12] = 0.0
    broken["log_scales"][13] = 1000.0
    gaussians = Gaussians(**broken)
    return _scene(gaussians, ring_cameras(1, 30, 20, dtype, [0.4]))


SCENES: dict[str, Callable[[torch.dtype], HandMadeScene]] = {
    function.__name__: function
    for function in (
        still_set,
        moving_set,
        antialiased_set,
        behind_the_camera,
        huge,
        tiny,
        edge_on,
        thousands_on_one_pixel,
        opaque_stack,
        opacity_at_the_clip_values,
        zero_visible,
        no_gaussians,
        one_pixel_image,
        odd_image_sizes,
        crowded,
        equal_depths,
        outside_the_margin,
        not_finite,
    )
}


def leaves(scene: HandMadeScene) -> tuple[HandMadeScene, dict[str, Tensor]]:
    """The same scene with every input a leaf that wants a gradient, and the leaves by name (`pose[0]`, `K[0]`, ...)."""
    named = {name: tensor.clone().requires_grad_() for name, tensor in scene.gaussians.parameters().items()}
    gaussians = Gaussians(**named)
    cameras = []
    for i, camera in enumerate(scene.cameras):
        named[f"pose[{i}]"] = camera.world_to_camera.clone().requires_grad_()
        named[f"K[{i}]"] = camera.K.clone().requires_grad_()
        cameras.append(replace(camera, world_to_camera=named[f"pose[{i}]"], K=named[f"K[{i}]"]))
    named["background"] = scene.background.clone().requires_grad_()
    named["features"] = scene.features.clone().requires_grad_()
    return replace(
        scene,
        gaussians=gaussians,
        cameras=tuple(cameras),
        background=named["background"],
        features=named["features"],
    ), named
