"""The visual hull: what lies inside the object's outline in all pictures, carved out of a grid of cells (Laurentini
1994).

The box that holds it is found on a coarse grid around the place all cameras look at, and then carved finely. Cells at
the surface become points with the median colour of the views that see them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool3d

from kinosplat.scenes.points.rig import Rig, focus_point

COARSE_CELLS = 48
"""Cells on a side of the grid that finds where the object is."""
INSIDE = 0.5
"""A mask's value from which on a place counts as inside."""
QUORUM = 0.95
"""Share of the views seeing a cell that must have it inside: one mask of twenty may have a hole."""
LEAST_VIEWS = 2
"""Views that must see a cell; places that one camera alone looks at are unbounded."""


def visual_hull(
    rig: Rig, masks: Tensor, n_points: int, n_cells: int, quorum: float = QUORUM
) -> tuple[Tensor, Tensor] | None:
    """(P, 3) surface points and (P, 3) colours in [0, 1], about `n_points` or fewer; None when nothing is inside the
    masks (V, H, W).

    `n_cells` is the finest grid's longest side.
    """
    box = _object_box(rig, masks, quorum)
    if box is None:
        return None
    low, high = box
    cell = (high - low).max() / n_cells
    counts = ((high - low) / cell).ceil().long() + 2
    inside = _carve(rig, masks, low - cell, cell, counts, quorum)
    surface = inside & (max_pool3d((~inside).float()[None, None], 3, stride=1, padding=1)[0, 0] > 0)
    places = surface.nonzero()
    if len(places) == 0:
        return None
    if len(places) > n_points:
        places = places[torch.linspace(0, len(places) - 1, n_points, device=places.device).long()]
    points = low - cell + (places + 0.5) * cell
    return points, _colours(rig, points, low - cell, cell, inside)


def _object_box(rig: Rig, masks: Tensor, quorum: float) -> tuple[Tensor, Tensor] | None:
    """Corners of a box around everything inside the masks, searched in a cube that reaches to the cameras."""
    focus = focus_point(rig.positions, rig.forwards)
    if focus is None:
        return None
    reach = (rig.positions - focus).norm(dim=1).median()
    low, high = focus - reach, focus + reach
    for _ in range(3):
        cell = (high - low).max() / COARSE_CELLS
        counts = ((high - low) / cell).ceil().long()
        inside = _carve(rig, _grown(masks, rig, cell, reach), low, cell, counts, quorum).nonzero()
        if len(inside) == 0:
            return None
        low, high = low + inside.amin(dim=0) * cell - cell, low + (inside.amax(dim=0) + 1) * cell + cell
    return low, high


def _grown(masks: Tensor, rig: Rig, cell: Tensor, distance: Tensor) -> Tensor:
    """Masks grown by half a cell's size in the picture, so that thin parts survive on a coarse grid."""
    radius = int((rig.K[:, 0, 0].median() * cell / distance / 2).ceil())
    return torch.nn.functional.max_pool2d(masks[:, None], 2 * radius + 1, stride=1, padding=radius)[:, 0]


def _carve(rig: Rig, masks: Tensor, low: Tensor, cell: Tensor, counts: Tensor, quorum: float) -> Tensor:
    """(X, Y, Z) bool: cells whose centre is inside the masks of enough of the views that see it."""
    n_seen = torch.zeros(tuple(counts.tolist()), dtype=torch.int16, device=masks.device)
    n_inside = torch.zeros_like(n_seen)
    points = _centres(low, cell, counts)
    for view in range(len(masks)):
        value, seen = sample(rig, masks[view][..., None], points, view)
        n_seen += seen
        n_inside += seen & (value[..., 0] >= INSIDE)
    return (n_seen >= min(LEAST_VIEWS, len(masks))) & (n_inside >= quorum * n_seen)


def _centres(low: Tensor, cell: Tensor, counts: Tensor) -> Tensor:
    axes = [low[i] + (torch.arange(int(counts[i]), device=low.device) + 0.5) * cell for i in range(3)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def sample(rig: Rig, values: Tensor, points: Tensor, view: int) -> tuple[Tensor, Tensor]:
    """Bilinear values (..., C) of a picture (H, W, C) of `view` at points (..., 3), and whether it sees them."""
    height, width = rig.size
    pixels, depth = rig.project(points, view)
    grid = pixels / torch.tensor([width, height], device=pixels.device) * 2 - 1
    seen = (grid.abs() <= 1).all(dim=-1) & (depth > 0)
    found = grid_sample(
        values.permute(2, 0, 1)[None], grid.reshape(1, -1, 1, 2), align_corners=False, padding_mode="border"
    )
    return found[0, :, :, 0].T.reshape(*points.shape[:-1], values.shape[-1]), seen


def _colours(rig: Rig, points: Tensor, low: Tensor, cell: Tensor, inside: Tensor) -> Tensor:
    """Median colour of each point over the views that see it in front of the other cells, found by a depth buffer of
    the points.
    """
    height, width = rig.size
    colours = []
    for view in range(len(rig.images)):
        value, seen = sample(rig, rig.images[view], points, view)
        pixels, depth = rig.project(points, view)
        # A buffer with pixels as large as a cell has no holes.
        scale = (cell * rig.K[view, 0, 0] / depth.clamp(min=1e-6).median()).clamp(min=1.0)
        x, y = (pixels / scale).long().unbind(-1)
        columns, rows = int(width / scale) + 1, int(height / scale) + 1
        place = y.clamp(0, rows - 1) * columns + x.clamp(0, columns - 1)
        nearest = torch.full((rows * columns,), torch.inf, device=depth.device)
        nearest.scatter_reduce_(0, place[seen], depth[seen], "amin")
        visible = seen & (depth < nearest[place] + 3 * cell)
        colours.append(torch.where(visible[:, None], value, torch.nan))
    median = torch.stack(colours).nanmedian(dim=0).values
    return torch.where(median.isnan(), 0.5, median)
