"""From depth maps to points: what several views agree on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from kinosplat.scenes.points.rig import Rig


def agreement(rig: Rig, inverse_depth: Tensor, tolerance: Tensor, neighbours: Tensor) -> Tensor:
    """(V, H, W) int: how many of the neighbours (V, n) have their own depth within `tolerance` (V,) of where a pixel's point is.

    Tolerances are in 1/depth, like `inverse_depth` (V, H, W).
    """
    height, width = rig.size
    counts = torch.zeros(inverse_depth.shape, dtype=torch.int32, device=inverse_depth.device)
    for view in range(len(inverse_depth)):
        points = rig.unproject(view, 1 / inverse_depth[view])
        for other in neighbours[view].tolist():
            pixels, depth = rig.project(points, other)
            grid = pixels / torch.tensor([width, height], device=pixels.device) * 2 - 1
            inside = (grid.abs() <= 1).all(dim=-1) & (depth > 0)
            # The nearest pixel's depth: between pixels on either side of an edge there is nothing.
            seen = grid_sample(inverse_depth[other][None, None], grid[None], mode="nearest", align_corners=False)[0, 0]
            counts[view] += inside & ((seen - 1 / depth.clamp(min=1e-9)).abs() < tolerance[other])
    return counts


def fill(inverse_depth: Tensor, known: Tensor) -> Tensor:
    """Inverse depths (V, H, W) with what is not `known` taken from the nearest surroundings that are; 0 in views where nothing is."""
    weight = known.float()[:, None]
    value = inverse_depth[:, None] * weight
    filled = inverse_depth.clone()
    missing = ~known
    height, width = inverse_depth.shape[1:]
    radius = 1
    while bool(missing.any()) and radius < 2 * max(height, width):
        # Sums over ever larger blocks of pixels; the first that holds something known decides.
        blocks = (max(height // (2 * radius), 1), max(width // (2 * radius), 1))
        sums = interpolate(value, blocks, mode="area")[:, 0], interpolate(weight, blocks, mode="area")[:, 0]
        mean = torch.where(sums[1] > 0, sums[0] / sums[1].clamp(min=1e-9), 0.0)
        mean = interpolate(mean[:, None], (height, width), mode="nearest")[:, 0]
        found = missing & (mean > 0)
        filled = torch.where(found, mean, filled)
        missing &= ~found
        radius *= 2
    return torch.where(missing, 0.0, filled)


def merge(positions: Tensor, colors: Tensor, n_points: int, cell: float) -> tuple[Tensor, Tensor]:
    """Points (P, 3) with colours (P, 3), averaged in cells that grow from size `cell` until at most `n_points` are left."""
    while len(positions) > n_points:
        places = torch.floor((positions - positions.amin(dim=0)) / cell).long()
        _, group = torch.unique(places, dim=0, return_inverse=True)
        n_groups = int(group.max()) + 1
        if n_groups <= n_points:
            count = torch.bincount(group, minlength=n_groups)[:, None].float()
            sums = (torch.zeros(n_groups, 3, device=group.device).index_add_(0, group, x) for x in (positions, colors))
            merged_positions, merged_colors = (total / count for total in sums)
            return merged_positions, merged_colors
        cell *= max((n_groups / n_points) ** 0.4, 1.05)
    return positions, colors
