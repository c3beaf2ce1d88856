"""From depth maps to points: what several views agree on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, grid_sample, interpolate

from kinosplat.scenes.points.parallel import each_view
from kinosplat.scenes.points.rig import Rig


def agreement(
    rig: Rig, inverse_depth: Tensor, tolerance: Tensor, witnesses: Tensor, views: list[int]
) -> tuple[Tensor, Tensor]:
    """(V, H, W) int: how many witnesses (V, n) have their own depth within `tolerance` (V,) of where a pixel's point
    is; (V, H, W) int: how many have the point in their picture.

    Tolerances are in 1/depth, like `inverse_depth` (V, H, W). Only the pixels of `views` are asked about.
    """
    height, width = rig.size
    n_agreeing = torch.zeros(inverse_depth.shape, dtype=torch.int32, device=inverse_depth.device)
    n_seeing = torch.zeros_like(n_agreeing)

    def ask(view: int) -> None:
        points = rig.unproject(view, 1 / inverse_depth[view])
        for other in witnesses[view].tolist():
            pixels, depth = rig.project(points, other)
            grid = pixels / torch.tensor([width, height], device=pixels.device) * 2 - 1
            inside = (grid.abs() <= 1).all(dim=-1) & (depth > 0)
            # The nearest pixel's depth: between pixels on either side of an edge there is nothing.
            seen = grid_sample(inverse_depth[other][None, None], grid[None], mode="nearest", align_corners=False)[0, 0]
            n_seeing[view] += inside
            n_agreeing[view] += inside & ((seen - 1 / depth.clamp(min=1e-9)).abs() < tolerance[other])

    each_view(ask, views, inverse_depth.device)
    return n_agreeing, n_seeing


def fill(inverse_depth: Tensor, known: Tensor) -> Tensor:
    """Inverse depths (V, H, W), with the farthest of the surroundings where not `known`; 0 in views where nothing is
    known.

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
