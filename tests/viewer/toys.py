"""A small moving scene that every test of the viewer looks at."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from kinosplat.render.camera import Camera, look_at
from kinosplat.render.gaussians import Gaussians
from kinosplat.viewer.subject import GaussianSubject

FPS = 10.0
N_FRAMES = 11


def toy_gaussians(n: int = 300, *, moving: bool = True) -> Gaussians:
    """Blobs in a cube of edge 2, those of a moving set drifting to +x by 0.4 a second."""
    generator = torch.Generator().manual_seed(7)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    in_time = {}
    if moving:
        in_time = {
            "displacements": torch.tensor([0.4, 0.0, 0.0]).repeat(n, 1),
            "time_centres": torch.full((n,), 0.5),
            "log_durations": torch.zeros(n),
        }
    return Gaussians(
        means=2 * uniform(n, 3) - 1,
        quats=torch.randn(n, 4, generator=generator),
        log_scales=torch.log(0.04 + 0.1 * uniform(n, 3)),
        opacity_logits=1 + uniform(n),
        sh_dc=2 * (uniform(n, 3) - 0.5),
        sh_rest=0.1 * (uniform(n, 3, 3) - 0.5),
        **in_time,
    )


def toy_cameras(*, moving: bool = True) -> list[Camera]:
    """Six cameras in a ring of radius 4, 96 x 72 pixels."""
    K = torch.tensor([[90.0, 0, 48], [0, 90, 36], [0, 0, 1]])
    cameras = []
    for i in range(6):
        angle = 2 * math.pi * i / 6
        place = torch.tensor([4 * math.cos(angle), 4 * math.sin(angle), 1.0])
        cameras.append(
            look_at(
                place, torch.zeros(3), torch.tensor([0.0, 0, 1]), K=K, width=96, height=72, time=0.0 if moving else None
            )
        )
    return cameras


def toy_subject(*, moving: bool = True, n: int = 300) -> GaussianSubject:
    """The scene with a clip of one second."""
    return GaussianSubject(
        label="toy",
        model=toy_gaussians(n, moving=moving),
        cameras=toy_cameras(moving=moving),
        background=torch.tensor([0.1, 0.2, 0.3]),
        times=tuple(i / FPS for i in range(N_FRAMES)) if moving else (),
        fps=FPS if moving else None,
        up=(0.0, 0.0, 1.0),
    )


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether `condition` came true within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()
