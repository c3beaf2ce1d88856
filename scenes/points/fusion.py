"""From depth maps to points: what several views agree on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, grid_sample, interpolate

from kinosplat.scenes.points.rig import Rig

PRIMES = (83492791, 73856093 * 2**20 + 7, 19349663 * 2**24 + 43, 50331653 * 2**28 + 9)
"""Large odd factors that spread cells over 64 bits."""
LEAST_SUPPORT = 2
"""Points that must fall into a cell for it to count."""


def agreement(rig: Rig, inverse_depth: Tensor, tolerance: Tensor, witnesses: Tensor, views: list[int]) -> Tensor:
    """(V, H, W) int: how many witnesses (V, n) have their own depth within `tolerance` (V,) of where a pixel's point is.

    Tolerances are in 1/depth, like `inverse_depth` (V, H, W). Only the pixels of `views` are asked about.
    """
    height, width = rig.size
    counts = torch.zeros(inverse_depth.shape, dtype=torch.int32, device=inverse_depth.device)
    for view in views:
        points = rig.unproject(view, 1 / inverse_depth[view])
        for other in witnesses[view].tolist():
            pixels, depth = rig.project(points, other)
            grid = pixels / torch.tensor([width, height], device=pixels.device) * 2 - 1
            inside = (grid.abs() <= 1).all(dim=-1) & (depth > 0)
            # The nearest pixel's depth: between pixels on either side of an edge there is nothing.
            seen = grid_sample(inverse_depth[other][None, None], grid[None], mode="nearest", align_corners=False)[0, 0]
            counts[view] += inside & ((seen - 1 / depth.clamp(min=1e-9)).abs() < tolerance[other])
    return counts


def fill(inverse_depth: Tensor, known: Tensor) -> Tensor:
    """Inverse depths (V, H, W), with the farthest of the surroundings where not `known`; 0 in views where nothing is known.

    The farthest, because what cannot be matched is rather the wall behind a thing than the thing.
    """
    filled = torch.where(known, inverse_depth, 0.0)
    missing = ~known
    height, width = inverse_depth.shape[1:]
    radius = 1
    while bool(missing.any()) and radius < 2 * max(height, width):
        # The farthest of ever larger blocks of pixels; the first block that holds something known decides.
        blocks = (max(height // (2 * radius), 1), max(width // (2 * radius), 1))
        depth = torch.where(known, 1 / inverse_depth.clamp(min=1e-9), 0.0)
        farthest = interpolate(adaptive_max_pool2d(depth[:, None], blocks), (height, width), mode="nearest")[:, 0]
        found = missing & (farthest > 0)
        filled = torch.where(found, 1 / farthest.clamp(min=1e-9), filled)
        missing &= ~found
        radius *= 2
    return filled


def merge(positions: Tensor, colors: Tensor, sizes: Tensor, n_points: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points (P, 3) and colours (P, 3) averaged in cells, and of these at most `n_points`.

    Cells are about as large as a pixel at the point, `sizes` (P,), rounded to a power of two.

    Cells with one point only are dropped: a surface is found in several views, a mismatch in one. Those with more are
    drawn more often.
    """
    if len(positions) == 0:
        return positions, colors
    level = sizes.log2().round()
    places = torch.floor((positions - positions.amin(dim=0)) / level.exp2()[:, None]).long()
    # One number a cell (Teschner et al. 2003), since unique rows are slow; two cells in a billion may share it.
    hashed = (torch.cat([level.long()[:, None], places], dim=1) * torch.tensor(PRIMES, device=places.device)).sum(dim=1)
    _, group = torch.unique(hashed, return_inverse=True)
    n_groups = int(group.max()) + 1
    count = torch.bincount(group, minlength=n_groups).float()
    kept = (count >= LEAST_SUPPORT).nonzero()[:, 0]
    if len(kept) > n_points:
        # The n largest of log(u) / weight are a draw without replacement (Efraimidis and Spirakis 2006).
        uniform = torch.rand(len(kept), generator=torch.Generator().manual_seed(seed)).to(kept.device)
        kept = kept[(uniform.clamp(min=1e-9).log() / count[kept]).topk(n_points).indices.sort().values]
    sums = (
        torch.zeros(n_groups, 3, device=group.device).index_add_(0, group, values) for values in (positions, colors)
    )
    merged_positions, merged_colors = ((total / count[:, None])[kept] for total in sums)
    return merged_positions, merged_colors


def n_seen_through(rig: Rig, inverse_depth: Tensor, known: Tensor, tolerance: Tensor, points: Tensor) -> Tensor:
    """(P,) int: how many views see something farther away where a point (P, 3) would hide it.

    Depth maps are 1/depth (V, H, W) and count where `known`; `tolerance` (V,) is in 1/depth.
    """
    height, width = rig.size
    counts = torch.zeros(len(points), dtype=torch.int32, device=points.device)
    for view in range(len(inverse_depth)):
        pixels, depth = rig.project(points, view)
        column, row = pixels.floor().long().unbind(-1)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (depth > 0)
        column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
        farther = inverse_depth[view][row, column] < 1 / depth.clamp(min=1e-9) - tolerance[view]
        counts += inside & known[view][row, column] & farther
    return counts
