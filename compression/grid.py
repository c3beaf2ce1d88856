"""Evenly spaced levels and rounding to them: the torch side of what `kino/codings.py` encodes and decodes.

Arithmetic is in float64 and rounded once to float32, as a reader of a file does it, so that values agree to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.compression.kino.codings import ROTATION_LIMIT


@dataclass(frozen=True)
class Grid:
    """value = minimum + step * integer, the same for all chunks."""

    bits: int
    """Bits of the integer."""
    minimum: Tensor
    """(C,) float64 holding float32 numbers."""
    step: Tensor
    """(C,) float64 holding float32 numbers."""
    largest: int
    """The largest integer."""

    @classmethod
    def over(cls, values: Tensor, bits: int) -> Grid:
        """The grid that spans `values` (N, C)."""
        low, high = values.amin(dim=0).double(), values.amax(dim=0).double()
        step = ((high - low) / (2**bits - 1)).float().double()
        return cls(bits, low, step, 2**bits - 1)

    @classmethod
    def of_rotations(cls, bits: int, device: torch.device) -> Grid:
        """The grid of x/w, y/w, z/w of canonical rotations; zero is on it, so it has one level less."""
        middle = 2 ** (bits - 1) - 1
        limit = torch.full((3,), ROTATION_LIMIT, dtype=torch.float64, device=device)
        return cls(bits, -limit, limit / middle, 2 * middle)

    def integers(self, values: Tensor) -> Tensor:
        """Nearest integers (N, C), int64."""
        return self._nearest(values).long()

    def rounded(self, values: Tensor) -> Tensor:
        """The decoded values (N, C) float32."""
        return (self.minimum + self.step * self._nearest(values)).float()

    def ranges(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Minimum and step as a coding takes them."""
        return tuple(self.minimum.tolist()), tuple(self.step.tolist())

    def _nearest(self, values: Tensor) -> Tensor:
        scaled = (values.double() - self.minimum) / torch.where(self.step > 0, self.step, 1.0)
        return scaled.round().clamp(0.0, self.largest)


def ratios_of(quats: Tensor) -> Tensor:
    """x/w, y/w, z/w (N, 3) of canonical quaternions wxyz (N, 4): what a file stores of a rotation."""
    return quats[:, 1:] / quats[:, :1]


def quats_of(ratios: Tensor) -> Tensor:
    """Quaternions (N, 4) of ratios (N, 3), not normalised."""
    return torch.cat([torch.ones_like(ratios[:, :1]), ratios], dim=1)
