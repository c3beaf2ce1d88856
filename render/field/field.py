"""A radiance field: a hash grid, a network for density, one for colour, and maybe a saliency grid that gates them.

Architecture of Mueller et al. 2022; the gate is that of HollowNeRF (Xie et al. 2023): saliency p, features p * f, and a
density multiplied by tanh(sharpness * |p * f|), so that where p is driven to zero nothing is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kinosplat.render.field.backend import FieldBackend
from kinosplat.render.field.encoding import encode, encode_directions, n_table_entries
from kinosplat.render.field.layout import GridLayout, Space
from kinosplat.render.field.mlp import mlp
from kinosplat.render.field.sparse_table import SparseIndex, SparseTable

LARGEST_EXPONENT = 15.0
"""Log densities are clamped at this from above, and at minus this in gradients, so that both stay finite."""
FIRST_FEATURE = 1e-4
"""Entries of a table start uniform in plus or minus this (Mueller et al. 2022, section 4)."""
SALIENCY = GridLayout(n_levels=1, n_features=1, base_resolution=63, finest_resolution=63, log2_table_size=18)
"""The saliency grid, 64^3 logits, is a dense level of one feature."""
EMPTY_DENSITY = 0.1
"""What a network without biases says of features of zero, in units of the space: nearly nothing. With 1 a field starts
as fog, and a mask that shrinks passes through it before its gate closes: after 600 steps of a small scene that costs
3 dB, and 6 dB with a mask.
"""
REMOVED = -1e30
"""Logit of a vertex that is gone for good: saliency 0 in all cells around it; not infinite, since 0 times it is 0."""


@dataclass(frozen=True)
class FieldShape:
    """Everything about a field that is not a tensor."""

    layout: GridLayout = field(default_factory=GridLayout)
    """Levels of the hash grid."""
    space: Space = field(default_factory=Space)
    """What it covers."""
    n_hidden: int = 64
    """Width of the hidden layers."""
    density_layers: int = 1
    """Hidden layers of the density network."""
    colour_layers: int = 2
    """Hidden layers of the colour network."""
    n_outputs: int = 16
    """Outputs of the density network: log density and what the colour network reads besides."""
    direction_degrees: int = 4
    """Degrees of the spherical harmonics of the viewing direction."""
    hollow: bool = False
    """Whether there is a saliency grid."""

    @property
    def density_scale(self) -> float:
        """Density where the network says 0, 1 / world units: in units of the space, so that a field learns the same at
        any scale of the scene.
        """
        return EMPTY_DENSITY / self.space.half_extent

    @property
    def density_widths(self) -> tuple[int, ...]:
        """Widths of the density network, inputs first."""
        return (self.layout.width, *([self.n_hidden] * self.density_layers), self.n_outputs)

    @property
    def colour_widths(self) -> tuple[int, ...]:
        """Widths of the colour network, inputs first."""
        n_inputs = self.n_outputs + self.direction_degrees**2
        return (n_inputs, *([self.n_hidden] * self.colour_layers), 3)


@dataclass(frozen=True)
class Field:
    """Parameters of a field; tensors may require gradients."""

    shape: FieldShape
    """What the tensors mean."""
    backend: FieldBackend
    """Which code evaluates it."""
    table: Tensor
    """(n_entries, F) features of the hash grid, or the rows kept of them where there is an index."""
    density_weights: tuple[Tensor, ...]
    """(n_outputs, n_inputs) a layer."""
    colour_weights: tuple[Tensor, ...]
    """(n_outputs, n_inputs) a layer."""
    saliency: Tensor | None = None
    """(64^3, 1) logits at the vertices, x fastest; REMOVED where nothing is for good."""
    sharpness: float = 1e5
    """Factor on the length of the gated features in the gate."""
    index: SparseIndex | None = None
    """Which entries the rows of the table are, on its device; None for all of them."""

    @staticmethod
    def create(shape: FieldShape, backend: FieldBackend, generator: torch.Generator) -> Field:
        """A field that knows nothing: features near zero, weights as torch.nn.Linear draws them, on the CPU."""

        def uniform(*size: int, bound: float) -> Tensor:
            return (2 * torch.rand(*size, generator=generator) - 1) * bound

        def network(widths: tuple[int, ...]) -> tuple[Tensor, ...]:
            # He et al. 2015, the uniform form: the variance of what ReLU lets through is kept.
            return tuple(uniform(n_out, n_in, bound=(6 / n_in) ** 0.5) for n_in, n_out in pairwise(widths))

        return Field(
            shape=shape,
            backend=backend,
            table=uniform(n_table_entries(shape.layout, backend), shape.layout.n_features, bound=FIRST_FEATURE),
            density_weights=network(shape.density_widths),
            colour_weights=network(shape.colour_widths),
            saliency=torch.zeros(SALIENCY.n_entries, 1) if shape.hollow else None,
        )

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.table.device

    @property
    def entries(self) -> Tensor | SparseTable:
        """The table as it is read."""
        return self.table if self.index is None else SparseTable(self.table, self.index)

    def whole(self) -> Field:
        """The same with all entries in its table."""
        entries = self.entries
        return replace(self, table=entries.whole(), index=None) if isinstance(entries, SparseTable) else self

    def parameters(self) -> dict[str, Tensor]:
        """All tensors by name."""
        named = {"table": self.table}
        named |= {f"density.{i}": weight for i, weight in enumerate(self.density_weights)}
        named |= {f"colour.{i}": weight for i, weight in enumerate(self.colour_weights)}
        return named if self.saliency is None else named | {"saliency": self.saliency}

    def with_parameters(self, tensors: dict[str, Tensor]) -> Field:
        """The same field with other tensors of the same names."""
        return replace(
            self,
            table=tensors["table"],
            density_weights=tuple(tensors[f"density.{i}"] for i in range(len(self.density_weights))),
            colour_weights=tuple(tensors[f"colour.{i}"] for i in range(len(self.colour_weights))),
            saliency=tensors.get("saliency"),
        )

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Field:
        """The field with every tensor changed."""
        return self.with_parameters({name: change(tensor) for name, tensor in self.parameters().items()})

    def density(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Density (S,), in 1 / world units, and outputs of the density network (S, n_outputs), at grid positions."""
        features = encode(positions, self.entries, self.shape.layout, self.backend)
        if self.saliency is None:
            outputs = mlp(features, self.density_weights, self.backend)
            return self._unit_density(outputs), outputs
        saliency = self.saliency_at(positions)
        outputs = mlp(features * saliency, self.density_weights, self.backend)
        # |p f| = p |f|. The gate's gradient, 1e4 times all others while features are small, reaches the saliency alone:
        # in Adam's second moment it would hold the features back for a thousand steps.
        length = torch.linalg.vector_norm(features.detach(), dim=1)
        gate = torch.tanh(self.sharpness * saliency[:, 0] * length)
        return self._unit_density(outputs) * gate, outputs

    def saliency_at(self, positions: Tensor) -> Tensor:
        """(S, 1) saliency p in [0, 1] at (S, 3) grid positions."""
        assert self.saliency is not None
        # tiny-cuda-nn has no grid of this layout, so the saliency is always read by this project's own code.
        backend: FieldBackend = "native" if self.backend == "tcnn" else self.backend
        return torch.sigmoid(encode(positions, self.saliency, SALIENCY, backend))

    def colour(self, outputs: Tensor, directions: Tensor) -> Tensor:
        """(S, 3) colours in [0, 1] from outputs of the density network and (S, 3) unit viewing directions."""
        seen_from = encode_directions(directions, self.shape.direction_degrees, self.backend)
        return torch.sigmoid(mlp(torch.cat([outputs, seen_from], dim=1), self.colour_weights, self.backend))

    def _unit_density(self, outputs: Tensor) -> Tensor:
        return truncated_exp(outputs[:, 0]) * self.shape.density_scale


def truncated_exp(values: Tensor) -> Tensor:
    """exp(min(x, 15)), whose gradient is exp of x clamped to [-15, 15], so that it never vanishes altogether."""
    result: Tensor = _TruncatedExp.apply(values)
    return result


class _TruncatedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return torch.exp(values.clamp(max=LARGEST_EXPONENT))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        return gradient * torch.exp(values.clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT))
