"""Gaussians as a .kino file will hold them, ready for fine-tuning.

A `Plan` says how each parameter is stored. `QuantisedGaussians` renders with the values that decoding will give while
an optimiser moves what lies behind them: rounding is passed straight through (its gradient is taken as 1), entries of
codebooks are learned directly and their indices stay frozen. `write` hands the result to the writer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from kinosplat.compression.kino.metadata import Metadata
from kinosplat.compression.kino.networks import LATENTS
from kinosplat.compression.kino.tensors import store_tensor
from kinosplat.compression.kino.write import StoredAppearance, write_kino
from kinosplat.compression.networks import WEIGHT_RATE
from kinosplat.compression.stored import StoredSet
from kinosplat.compression.svq import SubVectors
from kinosplat.render.gaussians import Gaussians

LAYER_BITS = 8
"""Of a weight of a network, on one grid a layer."""


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
        return _nearest(values, self.minimum, self.step, self.largest).long()

    def rounded(self, values: Tensor) -> Tensor:
        """The decoded values (N, C) float32, to the bit."""
        return (self.minimum + self.step * _nearest(values, self.minimum, self.step, self.largest)).float()

    @property
    def largest(self) -> Tensor:
        """(C,) float64, the largest integer."""
        return torch.full_like(self.minimum, 2**self.bits - 1)

    def ranges(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Minimum and step as a coding takes them."""
        return tuple(self.minimum.tolist()), tuple(self.step.tolist())


def _nearest(values: Tensor, minimum: Tensor, step: Tensor, largest: Tensor) -> Tensor:
    """Integers (N, C) as float64."""
    scaled = (values.double() - minimum) / torch.where(step > 0, step, 1.0)
    return torch.minimum(scaled.round().clamp_min(0.0), largest)


class _SideBySide:
    """Grids of several parameters of equal length, applied at once and in float32: a step has few kernels to wait for,
    and what they give is within a float's last bit of what decoding gives.
    """

    def __init__(self, grids: dict[str, Grid]) -> None:
        self._widths = {name: len(grid.minimum) for name, grid in grids.items()}
        minimum = torch.cat([grid.minimum for grid in grids.values()])
        step = torch.cat([grid.step for grid in grids.values()])
        inverse = torch.where(step > 0, 1.0 / step, 0.0)
        self._minimum, self._step, self._inverse = minimum.float(), step.float(), inverse.float()
        self._zero = torch.zeros_like(self._minimum)
        self._largest = torch.cat([grid.largest for grid in grids.values()]).float()

    def rounded(self, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
        """The values that decoding gives, with the gradients of the leaves."""
        chosen = {name: leaves[name] for name in self._widths}
        values = torch.cat([leaf.detach().reshape(len(leaf), -1) for leaf in chosen.values()], dim=1)
        integers = (values - self._minimum).mul_(self._inverse).round_().clamp_(self._zero, self._largest)
        columns = torch.addcmul(self._minimum, integers, self._step).split(list(self._widths.values()), dim=1)
        pairs = zip(chosen.items(), columns, strict=True)
        return {name: straight_through(leaf, part.reshape(leaf.shape).contiguous()) for (name, leaf), part in pairs}


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
    result: Tensor = _StraightThrough.apply(values, rounded)
    return result


class _StraightThrough(torch.autograd.Function):
    """One node and no arithmetic: a step has a dozen of these."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rounded: Tensor) -> Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class QuantisedGaussians:
    """A `Tunable` over a canonical set and a plan."""

    def __init__(self, stored: StoredSet, plan: Plan, rates: dict[str, float]) -> None:
        self._stored = stored
        self._plan = plan
        self._leaves: dict[str, Tensor] = {}
        self._rates: dict[str, float] = {}
        self._layers = [] if stored.networks is None else list(stored.networks.layers)
        for name, tensor in stored.rows.items():
            if name in plan.palettes:
                for i, book in enumerate(plan.palettes[name].codebooks):
                    self._add(f"{name}.{i}", book, 2 * rates[name])
            else:
                self._add(name, tensor, rates[name])
        self._grids = _joined(plan.grids, self._leaves)
        if stored.networks is not None:
            for name, layer in stored.networks.layers.items():
                self._add(name, layer, WEIGHT_RATE)

    def _add(self, name: str, tensor: Tensor, rate: float) -> None:
        self._leaves[name] = tensor.detach().clone().requires_grad_()
        self._rates[name] = rate

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Parameters behind the rounding, codebooks, layers of networks."""
        return self._leaves

    @property
    def rates(self) -> dict[str, float]:
        """As given; codebooks learn twice as fast as what they stand for."""
        return self._rates

    def gaussians(self) -> Gaussians:
        """The decoded set."""
        values = {name: value for grids in self._grids for name, value in grids.rounded(self._leaves).items()}
        for name, tensor in self._stored.rows.items():
            if name in self._plan.palettes:
                values[name] = self._palette(name).values().reshape(tensor.shape)
        quats = self._leaves["quats"]
        values["quats"] = straight_through(quats, rounded_rotation(quats.detach(), self._plan.rotation_bits))
        return self._stored.drawn(values, self._rounded_layers())

    def _rounded_layers(self) -> dict[str, Tensor]:
        layers = {name: self._leaves[name] for name in self._layers}
        return {name: straight_through(layer, rounded_layer(layer.detach())) for name, layer in layers.items()}

    def _palette(self, name: str) -> SubVectors:
        books = tuple(
            straight_through(book, rounded_table(book.detach(), self._plan.table_bits))
            for book in (self._leaves[f"{name}.{i}"] for i in range(len(self._plan.palettes[name].codebooks)))
        )
        return SubVectors(books, self._plan.palettes[name].indices)

    def write(self, path: Path, metadata: Metadata) -> int:
        """Write the file and return its bytes."""
        gaussians, codings = self.final()
        return write_kino(path, gaussians, codings, metadata=metadata, appearance=self.appearance())

    def final(self) -> tuple[Gaussians, dict[str, Coding]]:
        """What the writer takes: the set behind the rounding, and the coding of each parameter."""
        values = {name: leaf.detach() for name, leaf in self._leaves.items() if name in self._stored.rows}
        with torch.no_grad():
            gaussians = self._stored.drawn(values, self._rounded_layers())
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

    def appearance(self) -> StoredAppearance | None:
        """Latents and networks as the writer takes them, None without networks."""
        if self._stored.networks is None:
            return None
        networks = self._stored.networks.with_layers({name: self._leaves[name].detach() for name in self._layers})
        arrays = {name: tensor.cpu().numpy().astype(np.float32) for name, tensor in networks.tensors().items()}
        tensors = {
            name: store_tensor(array, 32 if name.endswith("frame") else LAYER_BITS, one_range=True)
            for name, array in arrays.items()
        }
        return StoredAppearance(networks.spec, self._leaves[LATENTS].detach().cpu().numpy(), tensors)


def _joined(grids: dict[str, Grid], leaves: dict[str, Tensor]) -> list[_SideBySide]:
    groups: dict[int, dict[str, Grid]] = {}
    for name, grid in grids.items():
        groups.setdefault(len(leaves[name]), {})[name] = grid
    return [_SideBySide(group) for group in groups.values()]


def rounded_layer(layer: Tensor) -> Tensor:
    """The layer of a network that the file will hold."""
    return Grid.over(layer.reshape(-1, 1), LAYER_BITS).rounded(layer.reshape(-1, 1)).reshape(layer.shape)


def rounded_table(book: Tensor, bits: int) -> Tensor:
    """The codebook (K, d) that the file will hold."""
    return Grid.over(book, 8).rounded(book) if bits == 8 else book.half().float()


def clamped_rotation(quats: Tensor) -> Tensor:
    """Quaternions whose three ratios are inside the limit; rounding clamps them in the same way."""
    ratios = (quats[:, 1:] / quats[:, :1]).clamp(-ROTATION_LIMIT, ROTATION_LIMIT)
    return torch.nn.functional.normalize(torch.cat([torch.ones_like(ratios[:, :1]), ratios], dim=1), dim=1)
