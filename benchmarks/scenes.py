"""Scenes to measure on, shared by the benchmarks of all backends; the same numbers on every machine."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from kinosplat.render.camera import Camera
from kinosplat.render.gaussians import Gaussians


def random_gaussians(
    n: int,
    *,
    device: torch.device | str = "cpu",
    scales: tuple[float, float] | None = None,
    moving: bool = False,
    alive: float = 1.0,
    duration: float = 10.0,
) -> Gaussians:
    """`n` Gaussians spread evenly over a cube of 6 units around the origin, spherical harmonics of degree 3.

    Standard deviations have a median of 0.01 units and a spread of a factor 1.6, opacities a median of 0.5;
    with `scales` standard deviations are uniform between the two and opacities between 0 and 1. A moving set lives in
    a clip of `duration` seconds: each Gaussian is seen during the share `alive` of it, in the order of their times.
    """
    generator = torch.Generator().manual_seed(n)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    time = {}
    if moving:
        # A Gaussian of opacity 0.5 fades below 1/255 after 3.1 standard deviations in time.
        time = {
            "displacements": 0.02 * normal(n, 3),
            "time_centres": torch.rand(n, generator=generator).sort().values * duration,
            "log_durations": torch.full((n,), math.log(alive * duration / 6.2)) + 0.1 * normal(n),
        }
    gaussians = Gaussians(
        means=6 * torch.rand(n, 3, generator=generator) - 3,
        quats=normal(n, 4),
        log_scales=math.log(0.01) + 0.5 * normal(n, 3),
        opacity_logits=normal(n),
        sh_dc=0.5 * normal(n, 3),
        sh_rest=0.1 * normal(n, 15, 3),
        **time,
    )
    if scales is not None:
        low, high = scales
        gaussians = replace(
            gaussians,
            log_scales=torch.log(low + (high - low) * torch.rand(n, 3, generator=generator)),
            opacity_logits=torch.logit(torch.rand(n, generator=generator), eps=1e-6),
        )
    return gaussians.to(device)


def front_camera(
    width: int, height: int, *, device: torch.device | str = "cpu", focal: float = 1200.0, time: float | None = None
) -> Camera:
    """Six units before the middle of the cube, looking at it; `focal` in pixels."""
    world_to_camera = torch.eye(4)
    world_to_camera[2, 3] = 6.0
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Camera(world_to_camera.to(device), K.to(device), width, height, time)
