"""How much memory a run will take, foretold from its options, so that one that cannot fit is refused at once.

Of Gaussians it is what torch hands out at the moments of a step at which most is there at once, which the steps of
docs/performance.md are within a tenth of. Not in it: what the allocator keeps beside that, and hits beyond a usual
number; a run that meets its end there is caught in the loop, which saves it (loop.py). Pictures stay on a GPU as far as
the run leaves room for them, and are given up when memory runs out. First points are found before all that, with memory
of their own: 4.7 GiB for Panoptic, whose training then takes 2.9, of which 2.6 are its 4050 pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from typing_extensions import assert_never

from kinosplat.errors import InputError
from kinosplat.render.backend import load_native
from kinosplat.render.field.layout import GridLayout
from kinosplat.scenes import Scene, View, free_memory_bytes
from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.methods.field_config import FieldConfig, HashGrid, HollowNerf

FLOAT_BYTES = 4
KEPT_COPIES = 3
"""Parameter and two moments; the gradient is the fourth."""
STILL_NUMBERS = 14
"""Of a Gaussian without its view-dependent colours: mean, rotation, scale, opacity, colour."""
TIME_NUMBERS = 5
"""Displacement, time centre and duration."""
STATISTICS_BYTES = 20
"""Of a Gaussian, where densification wants statistics (render/statistics.py)."""

# Of a pair of a Gaussian and a camera of the batch on a GPU (cuda/gpu/scratch.h).
ROW_BYTES = 40
"""Record, blue and depth: kept until the pictures have been differentiated."""
PROJECT_BYTES = 28
"""Scratch of the project pass, gone when the lists are there."""
BLENDED_GRADIENT_BYTES = 40
"""Of a Gaussian: gradients of mean, rotation and scale, which are there before the others and hold a row's."""
ROW_GRADIENT_BYTES = 40
"""Of a pair in a batch of several pictures: the gradients of a row, which then lie beside those."""
LIST_BYTES, SORT_BYTES = 4, 8
"""Of an entry of a list: kept, and while the lists are sorted."""
ENTRIES_A_PAIR = 2
"""Entries of a pair: there are 0.2 to 3 hits in the scenes of docs/performance.md, and an entry has one to four."""
HITS_A_PAIR = 3
"""The same of the CPU's lists, whose entries are hits."""
HIT_KEPT_BYTES, HIT_GRADIENT_BYTES = 8, 36
"""Of a hit on the CPU: kept, and while a picture is differentiated (render/native_cpu.py)."""

# Of a pixel of the batch.
TARGET_BYTES = 12
"""The picture as floats."""
MASK_BYTES = 4
"""Its mask."""
COMPARED_BYTES = 64
"""Colour and alpha as drawn, what the loss keeps of each number, and the gradient of the colour."""
DIFFERENTIATED_BYTES = 28
"""Colour and alpha as drawn, and the gradient of the colour."""
CORRECTED_BYTES = 12
"""The colour as a camera with another exposure shows it, and later its gradient."""

WORKSPACE_BYTES = 32 * 2**20
"""What torch keeps for products of matrices on an H100; less elsewhere."""
PICTURES_SHARE = 0.25
"""Part of a GPU's free memory that pictures may take at most."""


@dataclass(frozen=True)
class Peak:
    """A moment of a step at which much is allocated."""

    a_gaussian: int
    """Bytes for each Gaussian."""
    fixed: int
    """Bytes whatever their number."""


@dataclass(frozen=True)
class Needs:
    """What a run of a Gaussian method allocates."""

    peaks: tuple[Peak, ...]
    """Moments of a step, of which the run needs the largest."""

    def of(self, n_gaussians: int) -> int:
        """Bytes with so many Gaussians."""
        return max(peak.a_gaussian * n_gaussians + peak.fixed for peak in self.peaks)

    def fitting(self, n_bytes: int) -> int:
        """How many Gaussians `n_bytes` suffice for; 0 or less where not even the rest fits."""
        return min((n_bytes - peak.fixed) // peak.a_gaussian for peak in self.peaks)


def needs_of(config: TrainConfig, views: Sequence[View], device: torch.device) -> Needs:
    """What a resolved run of Gaussians on `device` needs to learn from `views`, which are as its method sees them."""
    n_cameras, method = config.schedule.batch_size, config.method
    assert isinstance(method, (ThreeDGS, FourDGS))
    n_numbers = STILL_NUMBERS + 3 * ((method.gaussians.sh_degree + 1) ** 2 - 1)
    if isinstance(method, FourDGS) and any(view.camera.time is not None for view in views):
        n_numbers += TIME_NUMBERS
    gradients = FLOAT_BYTES * n_numbers
    # One more byte says what was visible.
    kept = KEPT_COPIES * gradients + 1 + (STATISTICS_BYTES if method.densify == "classic" else 0)
    n_pixels = n_cameras * max(view.camera.width * view.camera.height for view in views)
    target = TARGET_BYTES + (MASK_BYTES if any(view.mask is not None for view in views) else 0)
    shown = target + (CORRECTED_BYTES if config.corrections.exposure or config.image.saturation else 0)
    compared, differentiated = (n_pixels * (shown + extra) for extra in (COMPARED_BYTES, DIFFERENTIATED_BYTES))
    if device.type == "cpu":
        record = FLOAT_BYTES * (load_native().cpu.record_stride(3) + 3)
        pairs = n_cameras * (record + HITS_A_PAIR * HIT_KEPT_BYTES)
        with_gradients = kept + pairs + gradients + HITS_A_PAIR * HIT_GRADIENT_BYTES
        return Needs((Peak(kept + pairs, compared), Peak(with_gradients, differentiated)))
    pairs = n_cameras * (ROW_BYTES + ENTRIES_A_PAIR * LIST_BYTES)
    sorting = n_cameras * (PROJECT_BYTES + ENTRIES_A_PAIR * SORT_BYTES)
    row_gradients = ROW_GRADIENT_BYTES * n_cameras if n_cameras > 1 else 0
    return Needs(
        (
            Peak(kept + pairs + sorting, n_pixels * target + WORKSPACE_BYTES),
            Peak(kept + pairs, compared + WORKSPACE_BYTES),
            Peak(kept + pairs + row_gradients + BLENDED_GRADIENT_BYTES, differentiated + WORKSPACE_BYTES),
            Peak(kept + gradients + row_gradients, differentiated + WORKSPACE_BYTES),
        )
    )


def free_bytes(device: torch.device) -> int:
    """Memory that a run on `device` may still take."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return free_memory_bytes()


def room_for_pictures(config: TrainConfig, views: Sequence[View], device: torch.device) -> int:
    """Bytes of `views` that may stay on `device`, a GPU: what the run leaves free once it is as large as it may be."""
    free = free_bytes(device)
    match config.method:
        case ThreeDGS() | FourDGS():
            needed = needs_of(config, views, device).of(_cap(config))
        case HashGrid() | HollowNerf():
            needed = table_bytes(config.method.grid)
        case _:
            assert_never(config.method)
    # What is allocated by now is part of what the run needs.
    to_come = max(needed - torch.cuda.memory_allocated(device), 0)
    return max(min(int(PICTURES_SHARE * free), free - to_come), 0)


def refuse_what_cannot_fit(config: TrainConfig, scene: Scene, device: torch.device) -> None:
    """Raise InputError when the model of a resolved config is certain not to fit on `device`, saying what would."""
    free = free_bytes(device)
    match config.method:
        case ThreeDGS() | FourDGS():
            needs = needs_of(config, scene.train, device)
            option, needed = f"--max-gaussians {_cap(config)}", needs.of(_cap(config))
            fitting, batch_size = needs.fitting(free), config.schedule.batch_size
            remedy = f"lower it to {fitting} or less" if fitting > 0 else "make the pictures smaller with --downscale"
            if batch_size > 1:
                remedy += f", or lower --batch-size from {batch_size}"
        case HashGrid() | HollowNerf():
            grid = config.method.grid
            # The samples of a step come on top; a step that finds no memory for them is done again with fewer.
            option, needed = f"--log2-table-size {grid.log2_table_size}", table_bytes(grid)
            remedy = "lower it"
        case _:
            assert_never(config.method)
    if needed <= free:
        return
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine"
    raise InputError(f"{option} needs {needed / 2**30:.1f} GiB, but {where} has {free / 2**30:.1f} GiB free; {remedy}.")


def table_bytes(grid: FieldConfig) -> int:
    """Of the hash grid of a settled config, with gradients and moments."""
    assert grid.levels is not None
    assert grid.features is not None
    assert grid.finest_resolution is not None
    assert grid.log2_table_size is not None
    layout = GridLayout(grid.levels, grid.features, grid.base_resolution, grid.finest_resolution, grid.log2_table_size)
    return (KEPT_COPIES + 1) * FLOAT_BYTES * layout.n_features * layout.n_entries


def _cap(config: TrainConfig) -> int:
    assert isinstance(config.method, (ThreeDGS, FourDGS))
    assert config.method.gaussians.max_gaussians is not None
    return config.method.gaussians.max_gaussians
