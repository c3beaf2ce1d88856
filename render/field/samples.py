"""What marching and compositing hand on: samples of rays stored one ray after the other, and what the rays see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """S samples on R rays."""

    offsets: Tensor
    """(R + 1,) int64: the samples of ray r are offsets[r] to offsets[r + 1], nearest first."""
    t: Tensor
    """(S,) distance along the ray of a sample's near end, world units."""
    dt: Tensor
    """(S,) its length, world units; it is evaluated at t + dt / 2."""

    def __len__(self) -> int:
        return self.t.shape[0]

    @cached_property
    def ray(self) -> Tensor:
        """(S,) int64, the ray each sample is on; what is behind the samples in a buffer counts as on the last. Nobody
        waits for how many there are.
        """
        rows = torch.arange(len(self), device=self.offsets.device)
        return torch.searchsorted(self.offsets[1:], rows, right=True).clamp_max(len(self.offsets) - 2)


@dataclass(frozen=True)
class Composited:
    """What R rays see."""

    rgb: Tensor
    """(R, 3) colour over black."""
    alpha: Tensor
    """(R,) sum of the weights."""
    depth: Tensor
    """(R,) sum of weight * midpoint, world units along the ray."""
    distortion: Tensor
    """(R,) distortion of the weights (Barron et al. 2022, equation 15), world units."""
    n_used: Tensor
    """(R,) int32, samples up to the one that ended the ray."""


def runs(starts: Tensor, counts: Tensor) -> Tensor:
    """starts[0], starts[0] + 1, ... (counts[0] of them), then starts[1], ...: int64, of (N,) int64; waits for their
    number.
    """
    before = counts.cumsum(0) - counts
    shifts = torch.repeat_interleave(starts - before, counts)
    return shifts + torch.arange(len(shifts), device=starts.device)
