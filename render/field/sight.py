"""What rays can see of a field, for learning: samples up to the one that ends each ray, with what the density network
says of them. Raw calls of native passes, no autograd.

On a processor rays are marched and then asked for their density in parts (in_sight.py). On a GPU all happens in buffers
of a fixed capacity, and how many samples there are stays on the device: the host hears of it later, or never.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.render.field import native, native_mlp, native_step, reference
from kinosplat.render.field.composite import visible_part
from kinosplat.render.field.field import SALIENCY, Field
from kinosplat.render.field.in_sight import density_in_sight
from kinosplat.render.field.march import sample_points
from kinosplat.render.field.occupancy import OccupancyGrid
from kinosplat.render.field.rays import Rays
from kinosplat.render.field.render import march_rays
from kinosplat.render.field.samples import Samples

FIRST_MET = 8
"""On a processor the density is asked for at so many samples of each ray first; many rays end within them."""


@dataclass(frozen=True)
class Room:
    """How many samples there is room for on a GPU; rays that find none are left out (cuda/gpu/field_step.h)."""

    met: int
    """In occupied cells."""
    kept: int
    """That can be seen."""


@dataclass(frozen=True)
class SampleCounts:
    """Samples of all rays of a step, extrapolated where some found no room."""

    met: float
    """In occupied cells; on a processor those whose density was asked for."""
    kept: float
    """That can be seen."""

    def n_stored(self) -> int:
        """How many samples were kept, where all found room."""
        return int(self.kept)


class DeviceCounts:
    """Counts on their way from a GPU."""

    def __init__(self, counts: Tensor, n_rays: int) -> None:
        """`counts` (8,) int32 as a step's scratch has them."""
        self._n_rays = n_rays
        self._numbers = torch.empty(counts.shape, dtype=counts.dtype, pin_memory=True)
        self._numbers.copy_(counts, non_blocking=True)
        self._arrival = torch.cuda.Event()
        self._arrival.record()

    def read(self) -> SampleCounts:
        """Wait for them."""
        self._arrival.synchronize()
        n_met, _, n_rays_met, _, n_kept, *_ = self._numbers.tolist()
        return SampleCounts(n_met, n_kept * self._n_rays / max(n_rays_met, 1))

    def n_stored(self) -> int:
        """Wait, and tell how many samples were kept in the buffer."""
        self._arrival.synchronize()
        return int(self._numbers[5])


@dataclass(frozen=True)
class Told:
    """What the density network is told of S samples."""

    features: Tensor
    """(S, L * F) of the hash grid."""
    inputs: Tensor
    """(S, L * F): the features, on a GPU in 16 bits, or these times the saliency."""
    logits: Tensor | None = None
    """(S,) of the saliency, where there is one."""
    gate: Tensor | None = None
    """(S,) factor of the density, where there is a saliency."""


@dataclass(frozen=True)
class Sight:
    """What R rays can see: S samples, or buffers that hold so many."""

    samples: Samples
    """Up to the one that ends each ray."""
    positions: Tensor
    """(S, 3) grid positions."""
    told: Told
    """What the density network is told of them."""
    colour_inputs: Tensor
    """(S, n_outputs + harmonics) of the colour network: what the other says, and the direction's harmonics."""
    counted: SampleCounts | DeviceCounts
    """How many samples there were."""
    count: Tensor | None = None
    """() int32 samples in use; None for all."""
    counts: Tensor | None = None
    """(4,) int32 as native passes take them; None where all rays found room."""


@torch.no_grad()
def look(field: Field, grid: OccupancyGrid, rays: Rays, jitter: Tensor, near: float, room: Room) -> Sight:
    """What can be seen along `rays` from `near` (world units) on; `jitter` (R,) in [0, 1) moves their samples.

    The field must be of the native backend; its tensors may require gradients, which nothing here has.
    """
    field = field.mapped(lambda tensor: tensor.detach())
    if field.device.type == "cuda":
        return _look_in_buffers(field, grid, rays, jitter, near, room)
    samples = march_rays(grid, rays, near, jitter, "native")
    samples, density = density_in_sight(
        lambda positions: field.density(positions)[0], rays, samples, grid.space, "native", FIRST_MET
    )
    n_met = len(samples)
    samples = visible_part(density, samples, "native")
    positions, directions = sample_points(rays.origins, rays.directions, samples, grid.space, "native")
    told, outputs = ask(field, positions)
    harmonics = native.sh_forward(directions, field.shape.direction_degrees)
    colour_inputs = torch.cat([outputs, harmonics], dim=1)
    return Sight(samples, positions, told, colour_inputs, SampleCounts(n_met, len(samples)))


def ask(field: Field, positions: Tensor, count: Tensor | None = None) -> tuple[Told, Tensor]:
    """What the density network is told at (S, 3) grid positions, and what it says: (S, n_outputs), first the log
    density.
    """
    # A GPU's networks round their inputs to 16 bits: those that nothing else reads need not have more.
    is_half = positions.is_cuda and field.saliency is None and field.shape.layout.width % 2 == 0
    dtype = torch.float16 if is_half else positions.dtype
    features = native.encode_forward(positions, field.table, field.shape.layout, dtype, count)
    told = Told(features, features)
    if field.saliency is not None:
        logits = native.encode_forward(positions, field.saliency, SALIENCY, count=count).view(-1)
        gated, gate = native_step.gate_features(features, logits, field.sharpness, count)
        told = Told(features, gated, logits, gate)
    return told, native_mlp.mlp_forward(told.inputs, field.density_weights, count)


def _look_in_buffers(field: Field, grid: OccupancyGrid, rays: Rays, jitter: Tensor, near: float, room: Room) -> Sight:
    from kinosplat.render.field import native_cuda_buffers as passes

    scratch = passes.StepScratch(len(rays), field.device)
    marching = native.native_marching(grid.space, grid.rule, grid.resolution)
    marched = passes.MarchedRays(rays.origins, rays.directions, jitter, near)
    met, positions = passes.march_into(marched, grid.bits, grid.blocks, marching, room.met, scratch)
    told, outputs = ask(field, positions, scratch.met)
    hollow = [tensor for tensor in (told.logits, told.gate) if tensor is not None]
    along = [positions, told.inputs.view(torch.float32), *([told.features, *hollow] if hollow else [])]
    kept = passes.keep_visible(
        met,
        outputs,
        told.gate,
        field.shape.density_scale,
        reference.STOP,
        rays.directions,
        field.shape.direction_degrees,
        room.kept,
        along,
        scratch,
    )
    positions, inputs, *rest = kept.rows
    inputs = inputs.view(told.inputs.dtype)
    features, *hollow = rest or [inputs]
    return Sight(
        kept.samples,
        positions,
        Told(features, inputs, *hollow),
        kept.colour_inputs,
        DeviceCounts(scratch.counts, len(rays)),
        scratch.kept,
        scratch.kept_counts,
    )
