"""How much memory a run will take, foretold from its options, so that one that cannot fit is refused at once.

The estimate is a lower bound on purpose: what is certain to be needed when the cap on the Gaussians is reached. What
depends on the scene (pairs of Gaussians and tiles, the allocator's slack) comes on top; a run that meets its end there
is caught in the loop, which saves it (loop.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from typing_extensions import assert_never

from kinosplat.errors import InputError
from kinosplat.scenes import Scene, free_memory_bytes
from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.methods.field_config import HashGrid, HollowNerf

FLOAT_BYTES = 4
COPIES = 4
"""Parameter, gradient and two moments."""
PAIR_BYTES = 80
"""Scratch for each pair of a Gaussian and a camera of a batch: what the rasterizer keeps until the backward pass is
over, and its gradients (render/native_cuda.py; less is visible than there is, but more than one hit belongs to each).
"""
PIXEL_BYTES = 112
"""Of each picture of a batch: rendering, target, mask, the loss's terms, and their gradients."""
STILL_NUMBERS = 14
"""Of a Gaussian without its view-dependent colours: mean, rotation, scale, opacity, colour."""
TIME_NUMBERS = 5
"""Displacement, time centre and duration."""


@dataclass(frozen=True)
class Needs:
    """Bytes a run of a Gaussian method needs at its cap."""

    a_gaussian: int
    """For each Gaussian."""
    fixed: int
    """Whatever their number."""

    def of(self, n_gaussians: int) -> int:
        """All bytes with so many Gaussians."""
        return self.a_gaussian * n_gaussians + self.fixed


def needs_of(config: TrainConfig, scene: Scene) -> Needs:
    """What a resolved run of Gaussians needs on `scene`, which is as its method sees it."""
    batch_size = config.schedule.batch_size
    n_pixels = max(view.camera.width * view.camera.height for view in scene.train)
    method = config.method
    assert isinstance(method, (ThreeDGS, FourDGS))
    n_numbers = STILL_NUMBERS + 3 * ((method.gaussians.sh_degree + 1) ** 2 - 1)
    if isinstance(method, FourDGS) and scene.is_moving:
        n_numbers += TIME_NUMBERS
    return Needs(
        a_gaussian=COPIES * FLOAT_BYTES * n_numbers + PAIR_BYTES * batch_size,
        fixed=PIXEL_BYTES * n_pixels * batch_size,
    )


def free_bytes(device: torch.device) -> int:
    """Memory that a run on `device` may still take."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return free_memory_bytes()


def refuse_what_cannot_fit(config: TrainConfig, scene: Scene, device: torch.device) -> None:
    """Raise InputError when the cap on the Gaussians is certain not to fit on `device`, saying how many would."""
    match config.method:
        case ThreeDGS() | FourDGS():
            max_gaussians, batch_size = config.method.gaussians.max_gaussians, config.schedule.batch_size
        case HashGrid() | HollowNerf():
            return  # a field takes all its memory at its first step, which says so if that ends there
        case _:
            assert_never(config.method)
    assert max_gaussians is not None
    needs, free = needs_of(config, scene), free_bytes(device)
    if needs.of(max_gaussians) <= free:
        return
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine"
    fitting = (free - needs.fixed) // needs.a_gaussian
    remedy = f"lower it to {fitting} or less" if fitting > 0 else "make the pictures smaller with --downscale"
    if batch_size > 1:
        remedy += f", or lower --batch-size from {batch_size}"
    raise InputError(
        f"--max-gaussians {max_gaussians} needs {needs.of(max_gaussians) / 2**30:.1f} GiB, but {where} has "
        f"{free / 2**30:.1f} GiB free; {remedy}."
    )
