"""Points on surfaces from depth maps: those that views agree on, that nobody looks past, and that lie inside all
outlines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from kinosplat.scenes.points.budget import Budget
from kinosplat.scenes.points.candidates import Candidates, joined, lifted, no_candidates
from kinosplat.scenes.points.fusion import fill, n_seen_through
from kinosplat.scenes.points.pictures import spread
from kinosplat.scenes.points.plane_sweep import DepthMaps, Range, depth_maps, depth_range
from kinosplat.scenes.points.rig import Rig, near_depths
from kinosplat.scenes.points.visual_hull import INSIDE, sample

LEAST_AGREEING = ((16, 3), (5, 2), (0, 1))
"""From so many depth maps on, so many others must agree with a depth."""
AGREEING_SHARE = 2 / 3
"""Or this share of those that have the place in their picture, where that is fewer: to the edges of what a rig looks at
few cameras do.
"""
WORST_COST = 0.45
"""Matches worse than this (ZNCC below 0.55) are not believed even if views agree."""
FREE_STEPS = 3.0
"""Steps of inverse depth by which a view must look past a point to say that there is nothing."""
SEEN_THROUGH = 2
"""Views that must say so for a point on which others agree; for one that is filled in, one is enough."""
FILLED_PIXELS = 1 / 16
"""Share of the pixels without a depth that get one from their surroundings."""
OUTLINE_SLACK = 1.5
"""Factor by which outlined things may come nearer or go farther than at the times looked at."""
OUTLINE_QUORUM = 0.8
"""Share of the views seeing a point that must have it inside their outline, give or take a pixel."""
LEAST_FOR_BOX = 1000
"""Points that a box around the object has to be drawn from."""
BOX_SLACK = 0.05
"""Share of its longest side by which the box, of all but a hundredth of the points on each side, is enlarged."""
UNKNOWN_QUORUM = 0.5
"""Share of the views seeing a point of the hull that must have no depth there; else it is inside or behind something.
"""


def whole_surface(rig: Rig, usable: Tensor | None, seed: int, budget: Budget) -> tuple[Candidates, Candidates]:
    """Points on which views agree, and points between those at the depth of their surroundings; pixels (V, H, W)
    `usable`.
    """
    pyramid = _pyramid(rig, budget)
    maps = depth_maps(pyramid, budget.sweep, depth_range(pyramid[0], budget.sweep))
    known = _believed(maps, usable)
    inverse = fill(maps.inverse_depth, known)
    missing = _both(~known & (inverse > 0), usable)
    generator = torch.Generator().manual_seed(seed)
    missing &= torch.rand(missing.shape, generator=generator).to(missing.device) < FILLED_PIXELS
    return (
        _not_seen_through(rig, maps, known, lifted(rig, maps.inverse_depth, known), SEEN_THROUGH),
        _not_seen_through(rig, maps, known, lifted(rig, inverse, missing), 1),
    )


def outlined_surface(
    rig: Rig, outline: Tensor, within: Range, n_views: int, budget: Budget, hull: Candidates | None = None
) -> tuple[Candidates, Candidates]:
    """Points inside the outline, (V, H, W) bool, and in most of the other outlines; and what is left of the hull.

    Depth is searched in `n_views` of the views. Pixels without one get it from their surroundings, unless there is a
    visual hull to fill in with: of that, what is near the other points, no view looks past, and most see without a
    depth is left.
    """
    nothing = no_candidates(rig.images.device)
    if not bool(outline.any()):
        return nothing, nothing if hull is None else hull
    pyramid = _pyramid(rig, budget)
    shares = [_share(outline, small) for small in pyramid]
    views = spread(range(len(rig.images)), n_views)
    maps = depth_maps(pyramid, budget.sweep, within, views, shares)
    known = _believed(maps, outline)
    points = _not_seen_through(rig, maps, known, lifted(rig, maps.inverse_depth, known), SEEN_THROUGH)
    if hull is None:
        inverse = fill(maps.inverse_depth, known)
        filled = lifted(rig, inverse, outline & ~known & (inverse > 0))
        points = joined([points, _not_seen_through(rig, maps, known, filled, 1)])
    points = _in_most(rig, max_pool2d(outline.float()[:, None], 3, stride=1, padding=1)[:, 0], points, OUTLINE_QUORUM)
    if hull is None:
        return points, nothing
    unknown = (outline & ~known)[views].float()
    left = _not_seen_through(rig, maps, known, hull[_near(hull.positions, points.positions)], 1)
    return points, _in_most(rig.only(views), unknown, left, UNKNOWN_QUORUM)


def outlined_range(rigs: Sequence[Rig], outlines: Sequence[Tensor], budget: Budget) -> Range:
    """The range of depths of what is outlined, from the first and the middle of several times, and some slack."""
    lows, highs = [], []
    for key in sorted({0, len(rigs) // 2}):
        small = _pyramid(rigs[key], budget)[0]
        low, high = depth_range(small, budget.sweep, _share(outlines[key], small))
        lows.append(low / OUTLINE_SLACK)
        highs.append(torch.minimum(high * OUTLINE_SLACK, 1 / near_depths(small)))
    return torch.stack(lows).amin(dim=0), torch.stack(highs).amax(dim=0)


def resized(rig: Rig, height: int, width: int) -> Rig:
    """The same pictures at another size, by an area filter."""
    if rig.size == (height, width):
        return rig
    images = interpolate(rig.images.permute(0, 3, 1, 2), (height, width), mode="area").permute(0, 2, 3, 1)
    scale = torch.tensor([width / rig.size[1], height / rig.size[0], 1.0], device=rig.K.device)
    return replace(rig, images=images, K=rig.K * scale[:, None])


def _pyramid(rig: Rig, budget: Budget) -> list[Rig]:
    """The rig's pictures from small to full size, each with four times the pixels of the one before."""
    sizes = [rig.size]
    while sizes[0][0] * sizes[0][1] > 2 * budget.coarse_pixels:
        sizes.insert(0, (-(-sizes[0][0] // 2), -(-sizes[0][1] // 2)))
    return [resized(rig, *size) for size in sizes]


def _share(outline: Tensor, rig: Rig) -> Tensor:
    """The outline (V, H, W) at the size of a rig, as the share of each pixel that is inside."""
    return interpolate(outline.float()[:, None], rig.size, mode="area")[:, 0]


def _believed(maps: DepthMaps, usable: Tensor | None) -> Tensor:
    """(V, H, W) bool: pixels whose depth other views confirm."""
    least = next(least for n_maps, least in LEAST_AGREEING if len(maps.views) >= n_maps)
    enough = (AGREEING_SHARE * maps.n_seeing).ceil().clamp(1, least)
    return _both((maps.n_agreeing >= enough) & (maps.cost < WORST_COST), usable)


def _not_seen_through(rig: Rig, maps: DepthMaps, known: Tensor, points: Candidates, n_views: int) -> Candidates:
    """The points that fewer than `n_views` views look past."""
    looked_past = n_seen_through(rig, maps.inverse_depth, known, FREE_STEPS * maps.step, points.positions)
    return points[looked_past < n_views]


def _near(positions: Tensor, others: Tensor) -> Tensor:
    """(P,) bool: inside the box of most of the other points, a bit enlarged; everything if there are hardly any."""
    if len(others) < LEAST_FOR_BOX:
        return torch.ones(len(positions), dtype=torch.bool, device=positions.device)
    ordered = others.sort(dim=0).values
    low, high = ordered[len(others) // 100], ordered[-1 - len(others) // 100]
    slack = BOX_SLACK * (high - low).max()
    return ((positions > low - slack) & (positions < high + slack)).all(dim=1)


def _in_most(rig: Rig, areas: Tensor, points: Candidates, quorum: float) -> Candidates:
    """The points that enough of the views seeing them have inside an area, (V, H, W) float."""
    n_seen = torch.zeros(len(points), device=areas.device)
    n_inside = torch.zeros_like(n_seen)
    for view in range(len(areas)):
        value, seen = sample(rig, areas[view][..., None], points.positions, view)
        n_seen += seen
        n_inside += seen & (value[..., 0] >= INSIDE)
    return points[n_inside >= quorum * n_seen]


def _both(a: Tensor, b: Tensor | None) -> Tensor:
    return a if b is None else a & b
