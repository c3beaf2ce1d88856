"""Features of positions and directions, by any backend, differentiable; `reference.py` says what they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import assert_never

from kinosplat.render.field import native, reference
from kinosplat.render.field.backend import FieldBackend
from kinosplat.render.field.layout import GridLayout
from kinosplat.render.field.sparse_table import SparseTable


def encode(positions: Tensor, table: Tensor | SparseTable, layout: GridLayout, backend: FieldBackend) -> Tensor:
    """(S, L * F) features of (S, 3) positions in [0, 1]^3; table (n_entries, F), for tcnn as long as it asks for.

    Sparse tables are not learned; they are unpacked only where gradients of the positions are wanted.
    """
    if isinstance(table, SparseTable):
        if backend == "native" and not (torch.is_grad_enabled() and positions.requires_grad):
            return native.encode_sparse(positions, table, layout)
        table = table.whole()
    match backend:
        case "native":
            return _NativeGrid.apply(positions, table, layout)
        case "reference":
            return reference.encode(positions, table, layout)
        case "tcnn":
            from kinosplat.render.field.tcnn import tcnn_grid

            return tcnn_grid(layout).encode(positions, table)
        case _:
            assert_never(backend)


def n_table_entries(layout: GridLayout, backend: FieldBackend) -> int:
    """Rows of the table that the backend reads; tiny-cuda-nn has other vertices and rounds levels up."""
    if backend == "tcnn":
        from kinosplat.render.field.tcnn import tcnn_grid

        return tcnn_grid(layout).n_entries
    return layout.n_entries


def encode_directions(directions: Tensor, n_degrees: int, backend: FieldBackend) -> Tensor:
    """(S, n_degrees^2) spherical harmonics of (S, 3) unit directions."""
    if backend == "reference":
        return reference.encode_directions(directions, n_degrees)
    return _NativeDirections.apply(directions, n_degrees)


class _NativeGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
        ctx.save_for_backward(positions, table)
        ctx.layout = layout
        return native.encode_forward(positions.detach(), table.detach(), layout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dL_dfeatures: Tensor) -> Any:
        positions, table = ctx.saved_tensors
        dL_dtable, dL_dpositions = native.encode_backward(
            dL_dfeatures.contiguous(),
            positions,
            table,
            ctx.layout,
            table_gradient=ctx.needs_input_grad[1],
            positions_gradient=ctx.needs_input_grad[0],
        )
        return dL_dpositions, dL_dtable, None


class _NativeDirections(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, directions: Tensor, n_degrees: int) -> Tensor:
        ctx.save_for_backward(directions)
        ctx.n_degrees = n_degrees
        return native.sh_forward(directions.detach(), n_degrees)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dL_dvalues: Tensor) -> Any:
        if not ctx.needs_input_grad[0]:
            return None, None
        (directions,) = ctx.saved_tensors
        return native.sh_backward(dL_dvalues.contiguous(), directions, ctx.n_degrees), None
