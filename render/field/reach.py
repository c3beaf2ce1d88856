"""What of a field can still be reached when only some cells of its space are left.

Lattices of cells divide [0, 1]^3, the grid positions, into `side` cells an axis, x fastest: that of the saliency grid
(field.SALIENCY) has 63, that of the occupancy grid of a bounded space as many as that has. (side^3,) bool, true where
kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinosplat.render.field.field import SALIENCY
from kinosplat.render.field.layout import GridLayout
from kinosplat.render.field.reference import vertex_entries

SIDE = SALIENCY.base_resolution
"""Cells along an axis."""
SURELY_ALL = 16
"""A hashed level is not searched when the kept cells have room for so many times more vertices than it has entries:
then all but e^-16 of the entries are in use."""
CHUNK = 1 << 22
"""Vertices looked at together; bounds memory, changes no value."""


def cells_within(alive: Tensor) -> Tensor:
    """(63^3,) bool: cells with at least one of their eight vertices among the (64^3,) `alive` ones."""
    grid = alive.view(1, 1, SIDE + 1, SIDE + 1, SIDE + 1).float()
    return torch.nn.functional.max_pool3d(grid, 2, stride=1).flatten() > 0


def drop_vertices(cells: Tensor) -> Tensor:
    """(64^3,) bool: vertices that belong to no kept cell."""
    grid = torch.nn.functional.pad(cells.view(1, 1, SIDE, SIDE, SIDE).float(), (1,) * 6)
    return torch.nn.functional.max_pool3d(grid, 2, stride=1).flatten() == 0


def overlapping(cells: Tensor, side: int) -> Tensor:
    """(side^3,) bool: cells of a lattice of `side` that share volume with one of `cells` (n^3,) of another lattice."""
    n = side_of(cells)
    reached = cells.view(n, n, n)
    target = torch.arange(side, device=cells.device)
    first, last = target * n // side, ((target + 1) * n - 1) // side
    for axis in range(3):
        parts = [reached.index_select(axis, torch.minimum(first + k, last)) for k in range(-(-n // side) + 1)]
        reached = torch.stack(parts).any(dim=0)
    return reached.flatten()


def side_of(cells: Tensor) -> int:
    """Cells along an axis of a lattice."""
    return round(len(cells) ** (1 / 3))


def reachable_entries(cells: Tensor, layout: GridLayout) -> Tensor:
    """(n_entries,) bool: entries of the hash grid that a position in a kept cell interpolates between."""
    reachable = torch.zeros(layout.n_entries, dtype=torch.bool, device=cells.device)
    side = side_of(cells)
    kept = cells.nonzero()[:, 0]
    corner = torch.stack([kept % side, kept // side % side, kept // side**2], dim=1)
    for level, (resolution, hashed) in enumerate(zip(layout.resolutions, layout.hashed, strict=True)):
        # A cell of width N / side touches vertices floor(low) to floor(high) + 1 along an axis.
        first = corner * resolution // side
        width = -(-resolution // side) + 2
        if hashed and len(kept) * (resolution / side) ** 3 > SURELY_ALL * layout.table_size:
            reachable[layout.offsets[level] : layout.offsets[level + 1]] = True
            continue
        steps = torch.cartesian_prod(*[torch.arange(width, device=cells.device)] * 3).view(1, -1, 3)
        last = ((corner + 1) * resolution // side + 1).clamp(max=resolution)
        for part in torch.arange(len(kept), device=cells.device).split(max(CHUNK // width**3, 1)):
            vertices = torch.minimum(first[part, None] + steps, last[part, None])
            reachable[vertex_entries(vertices.view(-1, 3), level, layout)] = True
    return reachable
