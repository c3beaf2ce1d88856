"""First points of a scene by each of the methods, from small pictures of its key frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from kinosplat.scenes.points.fusion import fill, merge, n_seen_through
from kinosplat.scenes.points.pictures import Clip, make_rig, separate, spread
from kinosplat.scenes.points.plane_sweep import DepthMaps, Range, SweepSettings, depth_maps, depth_range
from kinosplat.scenes.points.random_frusta import random_points
from kinosplat.scenes.points.rig import Rig, near_depths
from kinosplat.scenes.points.visual_hull import INSIDE, sample, visual_hull
from kinosplat.scenes.scene import PointCloud, Scene

LEAST_AGREEING = ((16, 3), (5, 2), (0, 1))
"""From so many depth maps on, so many others must agree with a depth."""
WORST_COST = 0.45
"""Matches worse than this (ZNCC below 0.55) are not believed even if views agree."""
FREE_STEPS = 3.0
"""Steps of inverse depth by which a view must look past a point to say that there is nothing."""
SEEN_THROUGH = 2
"""Views that must say so for a point on which others agree; for one that is filled in, one is enough."""
LEAST_POINTS = 200
"""Fewer agreed points than this say that the pictures do not match, and the sweep counts as failed."""
FILLED_SHARE = 0.1
"""Share of the points that stand where no views agree, at the depth of the surroundings."""
FILLED_PIXELS = 1 / 16
"""Share of the pixels without a depth that get one from their surroundings."""
LARGEST_MOVING_SHARE = 0.5
"""Moving things get at most this share of the points."""
MOVING_SLACK = 1.5
"""Factor by which things may come nearer or go farther than at the two times looked at."""
OUTLINE_QUORUM = 0.8
"""Share of the views seeing a moving point that must have it in their foreground."""


@dataclass(frozen=True)
class Budget:
    """How much is looked at; time grows with pixels, views and key frames."""

    coarse_pixels: int
    """Size of the pictures in which depth is searched."""
    fine_pixels: int
    """Size of the pictures in which it is refined; each level in between has four times the pixels."""
    n_views: int
    """Views at a time, evenly spread over the cameras."""
    n_key_frames: int
    """Times, evenly spread over the clip."""
    n_moving_views: int
    """Views at a key frame in which moving things are searched; all views are compared with these."""
    n_cells: int
    """Cells on the longest side of the visual hull's grid."""
    sweep: SweepSettings
    """Planes and patches."""

    @classmethod
    def for_cpu(cls) -> Budget:
        """Seconds on two cores."""
        return cls(6_000, 24_000, 48, 6, 14, 128, SweepSettings())

    @classmethod
    def for_gpu(cls) -> Budget:
        """Seconds on a GPU."""
        return cls(16_000, 256_000, 64, 24, 64, 256, SweepSettings(n_planes=128, n_probe_planes=192))


@dataclass(frozen=True)
class _Points:
    """Candidates, on the device."""

    positions: Tensor
    """(P, 3)."""
    colors: Tensor
    """(P, 3) in [0, 1]."""
    sizes: Tensor
    """(P,) width of a pixel at the point, in scene units."""

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, chosen: Tensor) -> _Points:
        return _Points(self.positions[chosen], self.colors[chosen], self.sizes[chosen])


def hull_points(
    scene: Scene,
    clip: Clip,
    images: Sequence[Tensor],
    masks: Sequence[Tensor | None],
    n_points: int,
    device: torch.device,
    budget: Budget,
) -> tuple[PointCloud, str] | None:
    """The surface of the visual hull at each key time; None when there is no place inside all masks at one of them."""
    n_each = max(n_points // len(clip.keys), 1)
    found = []
    for key in clip.keys:
        mask = masks[key]
        assert mask is not None
        rig = make_rig(scene, clip.views[key], images[key], device)
        hull = visual_hull(rig, mask.to(device), n_each, budget.n_cells)
        if hull is not None:
            found.append((clip.times[key], _Points(*hull, torch.ones_like(hull[0][:, 0]))))
    n_found = sum(len(points) for _, points in found)
    if n_found < min(LEAST_POINTS, n_points):
        return None
    where = f"{len(clip.views[0])} views" + ("" if len(clip.keys) == 1 else f" at {len(clip.keys)} key frames")
    cloud = _cloud([points for _, points in found], [time for time, _ in found], scene)
    return cloud, f"{n_found} points on the visual hull of the masks of {where}"


def sweep_points(
    scene: Scene,
    clip: Clip,
    images: Sequence[Tensor],
    masks: Sequence[Tensor | None],
    n_points: int,
    seed: int,
    device: torch.device,
    budget: Budget,
) -> tuple[PointCloud, str] | None:
    """Points on which several views agree; None when too few do. Nothing is put outside the masks."""
    if min(map(len, clip.views)) < 2:
        return None
    usable = [None if mask is None else mask.to(device) > INSIDE for mask in masks]
    still = filled = None
    moving: list[_Points] = []
    if clip.still:
        background, is_background, foregrounds = separate(images)
        rig = make_rig(scene, clip.views[0], background, device)
        still, filled = _still(rig, _both(is_background.to(device), usable[0]), seed, budget)
        moments = [make_rig(scene, clip.views[key], images[key], device) for key in clip.keys]
        moved = [_both(foregrounds[key].to(device), usable[key]) for key in clip.keys]
        within = _moving_range(moments, moved, budget)
        moving = [_moving(moment, mask, within, budget) for moment, mask in zip(moments, moved, strict=True)]
    elif clip.times == (None,):
        still, filled = _still(make_rig(scene, clip.views[0], images[0], device), usable[0], seed, budget)
    else:
        for key in clip.keys:
            rig = make_rig(scene, clip.views[key], images[key], device)
            moving.append(_agreed(rig, _depth_maps(rig, budget), usable[key]))
    n_still, n_moving = 0 if still is None else len(still), sum(map(len, moving))
    if n_still + n_moving < min(LEAST_POINTS, n_points):
        return None
    most_moving = n_points if still is None else int(LARGEST_MOVING_SHARE * n_points)
    n_moving = min(round(n_points * n_moving / (n_still + n_moving)), most_moving)
    n_candidates = max(sum(map(len, moving)), 1)
    kept = [_merged(points, n_moving * len(points) // n_candidates, seed) for points in moving]
    times: list[float | None] = [clip.times[key] for key in clip.keys] if moving else []
    counts = [f"{sum(map(len, kept))} moving points at {len(times)} key frames"] if times else []
    if still is not None and filled is not None:
        n_left = n_points - sum(map(len, kept))
        n_filled = min(int(FILLED_SHARE * n_left), len(filled))
        still = _merged(still, n_left - n_filled, seed)
        drawn = torch.randperm(len(filled), generator=torch.Generator().manual_seed(seed))[:n_filled].to(device)
        filled = filled[drawn]
        counts = [f"{len(still)} points", *counts, f"{len(filled)} filled in between"]
        kept = [_joined([still, filled]), *kept]
        times = [None, *times]
    return _cloud(kept, times, scene), f"a plane sweep over {len(clip.views[0])} views: {', '.join(counts)}"


def random_cloud(
    scene: Scene, clip: Clip, images: Sequence[Tensor], n_points: int, seed: int
) -> tuple[PointCloud, str]:
    """Points anywhere the cameras look; they hold for the whole clip."""
    rig = make_rig(scene, clip.views[0], images[0], torch.device("cpu"))
    positions, colors = random_points(rig, n_points, seed)
    cloud = _cloud([_Points(positions, colors, torch.ones(n_points))], [None], scene)
    return cloud, f"{n_points} points drawn at random where the cameras look"


def _pyramid(rig: Rig, budget: Budget) -> list[Rig]:
    """The rig's pictures from small to full size, each with four times the pixels of the one before."""
    sizes = [rig.size]
    while sizes[0][0] * sizes[0][1] > 2 * budget.coarse_pixels:
        sizes.insert(0, (-(-sizes[0][0] // 2), -(-sizes[0][1] // 2)))
    return [resized(rig, *size) for size in sizes]


def _depth_maps(rig: Rig, budget: Budget) -> DepthMaps:
    pyramid = _pyramid(rig, budget)
    return depth_maps(pyramid, budget.sweep, depth_range(pyramid[0], budget.sweep))


def resized(rig: Rig, height: int, width: int) -> Rig:
    """The same pictures at another size, by an area filter."""
    if rig.size == (height, width):
        return rig
    images = interpolate(rig.images.permute(0, 3, 1, 2), (height, width), mode="area").permute(0, 2, 3, 1)
    scale = torch.tensor([width / rig.size[1], height / rig.size[0], 1.0], device=rig.K.device)
    return replace(rig, images=images, K=rig.K * scale[:, None])


def _still(rig: Rig, usable: Tensor | None, seed: int, budget: Budget) -> tuple[_Points, _Points]:
    """Points on which views agree, and points between those at the depth of their surroundings."""
    maps = _depth_maps(rig, budget)
    known = _believed(maps, usable)
    inverse = fill(maps.inverse_depth, known)
    missing = ~known & (inverse > 0)
    if usable is not None:
        missing &= usable
    generator = torch.Generator().manual_seed(seed)
    missing &= torch.rand(missing.shape, generator=generator).to(missing.device) < FILLED_PIXELS
    return (
        _unhidden(rig, maps, known, _lifted(rig, maps.inverse_depth, known), SEEN_THROUGH),
        _unhidden(rig, maps, known, _lifted(rig, inverse, missing), 1),
    )


def _agreed(rig: Rig, maps: DepthMaps, usable: Tensor | None) -> _Points:
    """Points on which views agree and that do not hide what others see."""
    known = _believed(maps, usable)
    return _unhidden(rig, maps, known, _lifted(rig, maps.inverse_depth, known), SEEN_THROUGH)


def _believed(maps: DepthMaps, usable: Tensor | None) -> Tensor:
    """(V, H, W) bool: pixels whose depth other views confirm."""
    least = next(least for n_maps, least in LEAST_AGREEING if len(maps.views) >= n_maps)
    return _both((maps.n_agreeing >= least) & (maps.cost < WORST_COST), usable)


def _unhidden(rig: Rig, maps: DepthMaps, known: Tensor, points: _Points, n_views: int) -> _Points:
    """The points that fewer than `n_views` views look past."""
    looked_past = n_seen_through(rig, maps.inverse_depth, known, FREE_STEPS * maps.step, points.positions)
    return points[looked_past < n_views]


def _moving_range(rigs: Sequence[Rig], foregrounds: Sequence[Tensor], budget: Budget) -> Range:
    """The range of depths in which things move, from the first and the middle key frame, wider by a half."""
    lows, highs = [], []
    for key in (0, len(rigs) // 2):
        small = _pyramid(rigs[key], budget)[0]
        low, high = depth_range(small, budget.sweep, _outline(foregrounds[key], small))
        lows.append(low / MOVING_SLACK)
        highs.append(torch.minimum(high * MOVING_SLACK, 1 / near_depths(small)))
    return torch.stack(lows).amin(dim=0), torch.stack(highs).amax(dim=0)


def _outline(foreground: Tensor, rig: Rig) -> Tensor:
    """The foreground (V, H, W) at the size of a rig, as the share of each pixel."""
    return interpolate(foreground.float()[:, None], rig.size, mode="area")[:, 0]


def _moving(rig: Rig, foreground: Tensor, within: Range, budget: Budget) -> _Points:
    """Points of what differs from the background, (V, H, W) bool, and does so in most views that see them."""
    if not bool(foreground.any()):
        return _Points(rig.images.new_zeros(0, 3), rig.images.new_zeros(0, 3), rig.images.new_zeros(0))
    pyramid = _pyramid(rig, budget)
    outlines = [_outline(foreground, small) for small in pyramid]
    views = spread(range(len(rig.images)), budget.n_moving_views)
    maps = depth_maps(pyramid, budget.sweep, within, views, outlines)
    known = _believed(maps, foreground)
    inverse = fill(maps.inverse_depth, known)
    points = _joined(
        [
            _unhidden(rig, maps, known, _lifted(rig, maps.inverse_depth, known), SEEN_THROUGH),
            _unhidden(rig, maps, known, _lifted(rig, inverse, foreground & ~known & (inverse > 0)), 1),
        ]
    )
    grown = max_pool2d(foreground.float()[:, None], 3, stride=1, padding=1)[:, 0]
    n_seen = torch.zeros(len(points), device=foreground.device)
    n_inside = torch.zeros_like(n_seen)
    for view in range(len(rig.images)):
        value, seen = sample(rig, grown[view][..., None], points.positions, view)
        n_seen += seen
        n_inside += seen & (value[..., 0] >= INSIDE)
    return points[n_inside >= OUTLINE_QUORUM * n_seen]


def _lifted(rig: Rig, inverse_depth: Tensor, chosen: Tensor) -> _Points:
    """World points and colours of the chosen pixels (V, H, W)."""
    depth = 1 / inverse_depth.clamp(min=1e-9)
    positions = [rig.unproject(view, depth[view])[chosen[view]] for view in range(len(chosen))]
    return _Points(torch.cat(positions), rig.images[chosen], (depth / rig.K[:, 0, 0, None, None])[chosen])


def _joined(parts: Sequence[_Points]) -> _Points:
    return _Points(
        torch.cat([part.positions for part in parts]),
        torch.cat([part.colors for part in parts]),
        torch.cat([part.sizes for part in parts]),
    )


def _merged(points: _Points, n_points: int, seed: int) -> _Points:
    positions, colors = merge(points.positions, points.colors, points.sizes, n_points, seed)
    return _Points(positions, colors, torch.ones_like(positions[:, 0]))


def _both(a: Tensor, b: Tensor | None) -> Tensor:
    return a if b is None else a & b


def _cloud(parts: Sequence[_Points], times: Sequence[float | None], scene: Scene) -> PointCloud:
    """One cloud of points seen at `times`; None is the whole clip."""
    positions = torch.cat([part.positions for part in parts]).float().cpu()
    colors = (torch.cat([part.colors for part in parts]).clamp(0, 1) * 255).round().byte().cpu()
    if all(time is None for time in times):
        return PointCloud(positions, colors)
    middle = 0.5 * (scene.times[0] + scene.times[-1])
    spacing = scene.duration / max(sum(time is not None for time in times), 1)
    return PointCloud(
        positions,
        colors,
        torch.cat([torch.full((len(p),), middle if t is None else t) for p, t in zip(parts, times, strict=True)]),
        torch.cat(
            [torch.full((len(p),), torch.inf if t is None else spacing) for p, t in zip(parts, times, strict=True)]
        ),
    )
