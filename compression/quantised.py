"""Gaussians as a .kino file will hold them, ready for fine-tuning.

A `Plan` says how each parameter is stored. `QuantisedGaussians` renders with the values that decoding will give while
an optimiser moves what lies behind them: rounding is passed straight through (its gradient is taken as 1), entries of
codebooks are learned directly and their indices stay frozen. `write` hands the result to the writer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kinosplat.compression.grid import Grid, quats_of, ratios_of
from kinosplat.compression.kino.codings import CodebookCoding, Coding, MortonCoding, QuantisedCoding, RotationCoding
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
TABLE_BITS: Literal[8] = 8
"""Of a number in a codebook, on one grid a column."""

Rounding = Callable[[Sequence[Tensor]], list[Tensor]]
"""Tensors to tensors of the same shapes."""


@dataclass(frozen=True)
class Plan:
    """How each parameter is stored."""

    grids: dict[str, Grid]
    """For every parameter but what `palettes` holds; of `quats`, for their ratios."""
    palettes: dict[str, SubVectors]
    """Parameters stored as indices into codebooks, flattened to (N, C)."""


class QuantisedGaussians:
    """A `Tunable` over a canonical set and a plan."""

    def __init__(self, stored: StoredSet, plan: Plan, rates: Mapping[str, float]) -> None:
        self._stored = stored
        self._plan = plan
        self._leaves: dict[str, Tensor] = {}
        self._rates: dict[str, float] = {}
        for name, tensor in stored.leaves.items():
            if name in plan.palettes:
                for book_name, book in _books(name, plan.palettes[name]).items():
                    self._add(book_name, book, 2 * rates[name])
            else:
                self._add(name, ratios_of(tensor) if name == "quats" else tensor, rates.get(name, WEIGHT_RATE))
        self._roundings = _roundings(stored, plan)

    def _add(self, name: str, tensor: Tensor, rate: float) -> None:
        self._leaves[name] = tensor.detach().clone().requires_grad_()
        self._rates[name] = rate

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Parameters behind the rounding (of rotations their ratios), codebooks, layers of networks."""
        return self._leaves

    @property
    def rates(self) -> dict[str, float]:
        """As given; codebooks learn twice as fast as what they stand for."""
        return self._rates

    def gaussians(self) -> Gaussians:
        """The decoded set."""
        return self._stored.drawn(self._decoded())

    def _decoded(self) -> dict[str, Tensor]:
        """What the file will give back, by the names of the set's leaves."""
        values: dict[str, Tensor] = {}
        for names, rounding in self._roundings:
            values |= zip(names, straight_through(rounding, [self._leaves[name] for name in names]), strict=True)
        for name, palette in self._plan.palettes.items():
            books = tuple(values.pop(book_name) for book_name in _books(name, palette))
            values[name] = SubVectors(books, palette.indices).values().reshape(self._stored.rows[name].shape)
        return values | {"quats": quats_of(values["quats"])}

    def write(self, path: Path, metadata: Metadata) -> int:
        """Write the file and return its bytes."""
        gaussians, codings = self.final()
        return write_kino(path, gaussians, codings, metadata=metadata, appearance=self.appearance())

    def final(self) -> tuple[Gaussians, dict[str, Coding]]:
        """What the writer takes: the decoded set, and the coding of each parameter."""
        codings: dict[str, Coding] = {}
        for name, grid in self._plan.grids.items():
            if name == "quats":
                codings[name] = RotationCoding(grid.bits)
            elif name == "means":
                codings[name] = MortonCoding(grid.bits, *grid.ranges())
            else:
                codings[name] = QuantisedCoding(grid.bits, *grid.ranges())
        for name, palette in self._plan.palettes.items():
            books = (self._leaves[book_name].detach().cpu().numpy() for book_name in _books(name, palette))
            codings[name] = CodebookCoding(tuple(books), palette.indices.cpu().numpy(), table_bits=TABLE_BITS)
        with torch.no_grad():
            return self.gaussians(), codings

    def appearance(self) -> StoredAppearance | None:
        """Latents and networks as the writer takes them, None without networks."""
        networks = self._stored.networks
        if networks is None:
            return None
        networks = networks.with_layers({name: self._leaves[name].detach() for name in networks.layers})
        arrays = {name: tensor.cpu().numpy().astype(np.float32) for name, tensor in networks.tensors().items()}
        tensors = {
            name: store_tensor(array, 32 if name.endswith("frame") else LAYER_BITS, one_range=True)
            for name, array in arrays.items()
        }
        return StoredAppearance(networks.spec, self._leaves[LATENTS].detach().cpu().numpy(), tensors)


def _books(name: str, palette: SubVectors) -> dict[str, Tensor]:
    return {f"{name}.{i}": book for i, book in enumerate(palette.codebooks)}


def _roundings(stored: StoredSet, plan: Plan) -> list[tuple[list[str], Rounding]]:
    """Which leaves are rounded together, and how: a step has the fewer kernels to launch, the more they are."""
    on_grids: dict[int, dict[str, Grid]] = {}
    for name, grid in plan.grids.items():
        on_grids.setdefault(len(stored.leaves[name]), {})[name] = grid
    tables: dict[int, list[str]] = {}
    for name, palette in plan.palettes.items():
        for book_name, book in _books(name, palette).items():
            tables.setdefault(len(book), []).append(book_name)
    roundings: list[tuple[list[str], Rounding]] = [(list(group), _OnGrids(group)) for group in on_grids.values()]
    roundings += [(names, _rounded_tables) for names in tables.values()]
    if stored.networks is not None:
        roundings.append((list(stored.networks.layers), _rounded_layers))
    return roundings


class _OnGrids:
    """Rounds leaves of equal length (N, ...) to their grids, side by side and in float32: within a float's last bit of
    what decoding gives.
    """

    def __init__(self, grids: Mapping[str, Grid]) -> None:
        minimum = torch.cat([grid.minimum for grid in grids.values()])
        step = torch.cat([grid.step for grid in grids.values()])
        largest = torch.cat([torch.full_like(grid.step, grid.largest) for grid in grids.values()])
        self._minimum, self._step = minimum.float(), step.float()
        self._inverse = torch.where(step > 0, 1.0 / step, 0.0).float()
        self._zero, self._largest = torch.zeros_like(self._minimum), largest.float()

    def __call__(self, leaves: Sequence[Tensor]) -> list[Tensor]:
        values = _side_by_side(leaves)
        integers = values.sub_(self._minimum).mul_(self._inverse).round_().clamp_(self._zero, self._largest)
        return _apart(torch.addcmul(self._minimum, integers, self._step), leaves)


def _rounded_tables(books: Sequence[Tensor]) -> list[Tensor]:
    """Codebooks (K, d) as the file will hold them; ranges follow their columns. Like a `Grid` over them, in half of its
    kernels: a step is bound by the host.
    """
    values = _side_by_side(books)
    minimum, maximum = torch.aminmax(values, dim=0)
    step = (maximum - minimum) / (2**TABLE_BITS - 1)
    integers = ((values - minimum) / step.clamp_min(1e-30)).round_()
    return _apart(torch.addcmul(minimum, integers, step), books)


def _rounded_layers(layers: Sequence[Tensor]) -> list[Tensor]:
    """Layers of networks as the file will hold them."""
    columns = [layer.reshape(-1, 1) for layer in layers]
    rounded = [Grid.over(column, LAYER_BITS).rounded(column) for column in columns]
    return [column.reshape(layer.shape) for column, layer in zip(rounded, layers, strict=True)]


def _side_by_side(tensors: Sequence[Tensor]) -> Tensor:
    """A new (N, C) of tensors (N, ...)."""
    return torch.cat([tensor.reshape(len(tensor), -1) for tensor in tensors], dim=1)


def _apart(values: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The columns of `values` (N, C) as tensors of the shapes that `like` has."""
    columns = values.split([tensor[:1].numel() for tensor in like], dim=1)
    return [column.reshape(tensor.shape).contiguous() for column, tensor in zip(columns, like, strict=True)]


def straight_through(rounding: Rounding, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What `rounding` makes of the leaves, with the gradients of the leaves."""
    rounded: tuple[Tensor, ...] = _StraightThrough.apply(rounding, *leaves)
    return rounded


class _StraightThrough(torch.autograd.Function):
    """One node for all that is rounded together."""

    @staticmethod
    def forward(ctx: Any, rounding: Rounding, *leaves: Tensor) -> tuple[Tensor, ...]:
        return tuple(rounding(leaves))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *gradients
