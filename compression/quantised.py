"""Gaussians as a .kino file will hold them, ready for fine-tuning.

A `Plan` says how each parameter is stored. `QuantisedGaussians` renders with the values that decoding will give while
an optimiser moves what lies behind them: rounding is passed straight through (its gradient is taken as 1), entries of
codebooks are learned directly and their indices stay frozen. `codings` and `final` hand the result to the writer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from kinosplat.compression.kino.codings import (
    ROTATION_LIMIT,
    CodebookCoding,
    Coding,
    MortonCoding,
    QuantisedCoding,
    RotationCoding,
)
from kinosplat.compression.svq import SubVectors
from kinosplat.compression.tunable import moving_rows, with_parameters
from kinosplat.render.gaussians import TIME_PARAMETER_NAMES, Gaussians


@dataclass(frozen=True)
class Grid:
    """value = minimum + step * integer, the same for all chunks."""

    bits: int
    """Bits of the integer."""
    minimum: Tensor
    """(C,) float64 holding float32 numbers."""
    step: Tensor
    """(C,) float64 holding float32 numbers."""

    @classmethod
    def over(cls, values: Tensor, bits: int) -> Grid:
        """The grid that spans `values` (N, C)."""
        low, high = values.amin(dim=0).double(), values.amax(dim=0).double()
        step = ((high - low) / (2**bits - 1)).float().double()
        return cls(bits, low, step)

    def integers(self, values: Tensor) -> Tensor:
        """Nearest integers (N, C), int64."""
        scaled = (values.double() - self.minimum) / torch.where(self.step > 0, self.step, 1.0)
        return scaled.round().clamp(0, 2**self.bits - 1).long()

    def rounded(self, values: Tensor) -> Tensor:
        """The decoded values (N, C) float32, to the bit."""
        return (self.minimum + self.step * self.integers(values).double()).float()

    def ranges(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Minimum and step as a coding takes them."""
        return tuple(self.minimum.tolist()), tuple(self.step.tolist())


@dataclass(frozen=True)
class Plan:
    """How each parameter is stored."""

    grids: dict[str, Grid]
    """For every parameter but rotations and what `palettes` holds."""
    rotation_bits: int
    """Bits of each of the three numbers of a rotation."""
    palettes: dict[str, SubVectors]
    """Parameters stored as indices into codebooks, flattened to (N, C)."""
    table_bits: int = 8
    """Bits of a number in a codebook, 8 or 16."""


def rounded_rotation(quats: Tensor, bits: int) -> Tensor:
    """The unit quaternions (N, 4) that canonical `quats` decode to, on their device; the formula of
    `codings.decode_rotation`.
    """
    middle = 2 ** (bits - 1) - 1
    ratios = (rotation_integers(quats, bits).double() - middle) / middle * ROTATION_LIMIT
    unnormalised = torch.cat([torch.ones_like(ratios[:, :1]), ratios], dim=1)
    return (unnormalised / unnormalised.square().sum(dim=1, keepdim=True).sqrt()).float()


def rotation_integers(quats: Tensor, bits: int) -> Tensor:
    """Integers (N, 3) of canonical quaternions, as the file holds them."""
    middle = 2 ** (bits - 1) - 1
    ratios = quats[:, 1:].double() / quats[:, :1].double()
    return ((ratios / ROTATION_LIMIT * middle).round() + middle).clamp(0, 2 * middle).long()


def straight_through(values: Tensor, rounded: Tensor) -> Tensor:
    """`rounded` to the bit, with the gradient of `values`."""
    return rounded + (values - values.detach())


class QuantisedGaussians:
    """A `Tunable` over canonical Gaussians and a plan."""

    def __init__(self, gaussians: Gaussians, plan: Plan, rates: dict[str, float]) -> None:
        self._fixed = gaussians.detach()
        self._plan = plan
        self._moving = moving_rows(self._fixed)
        self._leaves: dict[str, Tensor] = {}
        self._rates: dict[str, float] = {}
        for name, tensor in self._fixed.parameters().items():
            if name in plan.palettes:
                for i, book in enumerate(plan.palettes[name].codebooks):
                    self._add(f"{name}.{i}", book, 2 * rates[name])
            else:
                self._add(name, tensor[self._moving] if name in TIME_PARAMETER_NAMES else tensor, rates[name])

    def _add(self, name: str, tensor: Tensor, rate: float) -> None:
        if tensor.numel():
            self._leaves[name] = tensor.clone().requires_grad_()
            self._rates[name] = rate

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Parameters behind the rounding, and codebooks."""
        return self._leaves

    @property
    def rates(self) -> dict[str, float]:
        """As given; codebooks learn twice as fast as what they stand for."""
        return self._rates

    def gaussians(self) -> Gaussians:
        """The decoded set."""
        values = {}
        for name, tensor in self._fixed.parameters().items():
            if name in self._plan.palettes:
                values[name] = self._palette(name).values().reshape(tensor.shape)
            elif name in self._leaves:
                leaf = self._leaves[name]
                if name == "quats":
                    values[name] = straight_through(leaf, rounded_rotation(leaf.detach(), self._plan.rotation_bits))
                else:
                    rows = leaf.reshape(len(leaf), -1)
                    rounded = self._plan.grids[name].rounded(rows.detach())
                    values[name] = straight_through(leaf, rounded.reshape(leaf.shape))
        return with_parameters(self._fixed, values, self._moving)

    def _palette(self, name: str) -> SubVectors:
        books = tuple(
            straight_through(book, rounded_table(book.detach(), self._plan.table_bits))
            for book in (self._leaves[f"{name}.{i}"] for i in range(len(self._plan.palettes[name].codebooks)))
        )
        return SubVectors(books, self._plan.palettes[name].indices)

    def final(self) -> tuple[Gaussians, dict[str, Coding]]:
        """What the writer takes: the set behind the rounding, and the coding of each parameter."""
        values = {name: leaf.detach() for name, leaf in self._leaves.items() if name in self._fixed.parameters()}
        gaussians = with_parameters(self._fixed, values, self._moving)
        codings: dict[str, Coding] = {"quats": RotationCoding(self._plan.rotation_bits)}
        for name, grid in self._plan.grids.items():
            minimum, step = grid.ranges()
            kind = MortonCoding if name == "means" else QuantisedCoding
            codings[name] = kind(grid.bits, minimum, step)
        for name, palette in self._plan.palettes.items():
            books = tuple(self._leaves[f"{name}.{i}"] for i in range(len(palette.codebooks)))
            codings[name] = CodebookCoding(
                tuple(book.detach().cpu().numpy().astype(np.float32) for book in books),
                palette.indices.cpu().numpy(),
                table_bits=8 if self._plan.table_bits == 8 else 16,
            )
        return replace(gaussians, quats=clamped_rotation(gaussians.quats)), codings


def rounded_table(book: Tensor, bits: int) -> Tensor:
    """The codebook (K, d) that the file will hold."""
    return Grid.over(book, 8).rounded(book) if bits == 8 else book.half().float()


def clamped_rotation(quats: Tensor) -> Tensor:
    """Quaternions whose three ratios are inside the limit; rounding clamps them in the same way."""
    ratios = (quats[:, 1:] / quats[:, :1]).clamp(-ROTATION_LIMIT, ROTATION_LIMIT)
    return torch.nn.functional.normalize(torch.cat([torch.ones_like(ratios[:, :1]), ratios], dim=1), dim=1)
