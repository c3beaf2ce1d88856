"""Buffers of samples on a GPU: marched into, and thinned out, in one launch each (cuda/gpu/field_step.h has the
contracts); called by `sight`.

A buffer has a fixed capacity; how much of it is in use is known on the device alone, so nothing waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kinosplat._native import gpu as native
from kinosplat.errors import InputError
from kinosplat.render.cuda_call import Checked, current_queue, run_pass
from kinosplat.render.field.samples import Samples

LEADING_WORDS = 5
"""Words of 8 bytes of a step's scratch in front of the chains: counts of samples met and kept (4 numbers of 4 bytes
each), and the two chains' tickets."""


class StepScratch:
    """What a step's passes count in: zeros at its start."""

    def __init__(self, n_rays: int, device: torch.device) -> None:
        self._n_blocks = native.buffer_blocks(n_rays)
        self._words = torch.zeros(LEADING_WORDS + 2 * self._n_blocks, dtype=torch.int64, device=device)
        numbers = self._words.view(torch.int32)
        self.counts = numbers[:8]
        """(8,) int32: samples wanted and stored, rays all of whose samples are there, of what was met; then of what was
        kept."""
        self.met = numbers[1]
        """() int32 samples met."""
        self.kept = numbers[5]
        """() int32 samples kept."""
        self.kept_counts = numbers[4:8]
        """(4,) int32."""

    def chain(self, which: int) -> tuple[int, int, int]:
        """Addresses of status, ticket and counts of the first or second chain."""
        begin, word = self._words.data_ptr(), 8
        status = begin + word * (LEADING_WORDS + which * self._n_blocks)
        return status, begin + 4 * word + 4 * which, begin + 2 * word * which


@dataclass(frozen=True)
class MarchedRays:
    """Rays to be marched from `near` (world units) to the end of the space."""

    origins: Tensor
    """(R, 3)."""
    directions: Tensor
    """(R, 3)."""
    jitter: Tensor
    """(R,) in [0, 1)."""
    near: float
    """Distance."""


def march_into(
    rays: MarchedRays, bits: Tensor, blocks: Tensor, marching: Any, capacity: int, scratch: StepScratch
) -> tuple[Samples, Tensor]:
    """Samples of R rays in a buffer for `capacity`, and their grid positions (capacity, 3)."""
    device, n = rays.origins.device, len(rays.origins)
    checked = Checked(device)
    offsets = torch.empty(n + 1, dtype=torch.int64, device=device)
    t, dt = torch.empty(capacity, device=device), torch.empty(capacity, device=device)
    positions = torch.empty(capacity, 3, device=device)
    run_pass(
        native.march_into,
        current_queue(device),
        marching,
        checked("bits", bits, tuple(bits.shape), torch.uint8, 1),
        checked("blocks", blocks, tuple(blocks.shape), torch.uint8, 1),
        n,
        capacity,
        checked("origins", rays.origins, (n, 3)),
        checked("directions", rays.directions, (n, 3)),
        checked("jitter", rays.jitter, (n,)),
        rays.near,
        *scratch.chain(0),
        offsets.data_ptr(),
        t.data_ptr(),
        dt.data_ptr(),
        positions.data_ptr(),
    )
    return Samples(offsets, t, dt), positions


@dataclass(frozen=True)
class Kept:
    """What can be seen of samples, in a buffer of its own."""

    samples: Samples
    colour_inputs: Tensor
    """(capacity, n_outputs + n_degrees^2): the density network's outputs and the direction's harmonics."""
    rows: list[Tensor]
    """What went along, one row a sample."""


def keep_visible(
    met: Samples,
    outputs: Tensor,
    gate: Tensor | None,
    density_scale: float,
    stop: float,
    directions: Tensor,
    n_degrees: int,
    capacity: int,
    along: list[Tensor],
    scratch: StepScratch,
) -> Kept:
    """The samples up to the one that ends each ray, with the rows (samples, n) or (samples,) of `along`."""
    device, n = outputs.device, len(directions)
    if len(along) > native.MAX_ROW_COPIES:
        raise InputError(f"along must be at most {native.MAX_ROW_COPIES} tensors, got {len(along)}.")
    if not 1 <= n_degrees <= 4:
        raise InputError(f"n_degrees must be 1 to 4, got {n_degrees}.")
    checked = Checked(device)
    n_samples, n_outputs = outputs.shape
    samples = Samples(
        torch.empty(n + 1, dtype=torch.int64, device=device),
        torch.empty(capacity, device=device),
        torch.empty(capacity, device=device),
    )
    colour_inputs = torch.empty(capacity, n_outputs + n_degrees**2, device=device)
    rows = [torch.empty(capacity, *tensor.shape[1:], device=device) for tensor in along]
    copies = [
        (checked("along", tensor, (n_samples, *tensor.shape[1:]), alignment=16), row.data_ptr(), row[:1].numel())
        for tensor, row in zip(along, rows, strict=True)
    ]
    status, ticket, counts = scratch.chain(1)
    run_pass(
        native.keep_visible,
        current_queue(device),
        n,
        capacity,
        checked("offsets", met.offsets, (n + 1,), torch.int64, 8),
        checked("t", met.t, (n_samples,)),
        checked("dt", met.dt, (n_samples,)),
        checked("outputs", outputs, (n_samples, n_outputs), alignment=16),
        n_outputs,
        checked("gate", gate, (n_samples,)),
        density_scale,
        stop,
        scratch.chain(0)[2],
        checked("directions", directions, (n, 3)),
        n_degrees,
        status,
        ticket,
        counts,
        samples.offsets.data_ptr(),
        samples.t.data_ptr(),
        samples.dt.data_ptr(),
        colour_inputs.data_ptr(),
        copies,
    )
    return Kept(samples, colour_inputs, rows)
