"""First points of a scene by each of the methods, from small pictures of its key frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.scenes.points.budget import Budget
from kinosplat.scenes.points.candidates import Candidates, as_cloud, joined
from kinosplat.scenes.points.pictures import Clip, make_rig, separate
from kinosplat.scenes.points.random_frusta import random_points
from kinosplat.scenes.points.rig import Rig
from kinosplat.scenes.points.surfaces import outlined_range, outlined_surface, whole_surface
from kinosplat.scenes.points.visual_hull import INSIDE, visual_hull
from kinosplat.scenes.scene import PointCloud, Scene

LEAST_POINTS = 200
"""Fewer agreed points than this say that the pictures do not match, and the sweep counts as failed."""
FILLED_SHARE = 0.1
"""Share of the points that stand where no views agree, at the depth of the surroundings."""
HULL_SHARE = 0.3
"""Share of the points on the visual hull that stand where no views agree."""
LARGEST_MOVING_SHARE = 0.5
"""Moving things get at most this share of the points when there are still ones."""
QUORUMS = (0.95, 0.8)
"""Share of the views seeing a place that must have it inside their mask: few exceptions, or some if nothing is left
else.
"""

Found = tuple[PointCloud, str]
"""Points, and in words how they were found."""


@dataclass(frozen=True)
class Pictures:
    """Small pictures of a scene's training views, by time."""

    scene: Scene
    clip: Clip
    images: Sequence[Tensor]
    """For each time of the clip (V, H, W, 3) uint8."""
    masks: Sequence[Tensor | None]
    """For each time of the clip (V, H, W) float32 in [0, 1], or None."""
    device: torch.device
    """Where to compute."""

    def rig(self, moment: int) -> Rig:
        """Pictures and cameras of one time."""
        return make_rig(self.scene, self.clip.views[moment], self.images[moment], self.device)

    def inside(self, moment: int) -> Tensor | None:
        """(V, H, W) bool, pixels inside the masks of one time."""
        mask = self.masks[moment]
        return None if mask is None else mask.to(self.device) > INSIDE

    @property
    def where(self) -> str:
        """How many views at how many times, in words."""
        views = f"{max(map(len, self.clip.views))} views"
        return views if len(self.clip.keys) == 1 else f"{views} at {len(self.clip.keys)} key frames"


def hull_points(pictures: Pictures, n_points: int, seed: int, budget: Budget) -> Found | None:
    """The visual hull of the masks, carved by what a plane sweep finds inside it; None when no place is inside all
    masks.
    """
    rigs, outlines, hulls, times = [], [], [], []
    for key in pictures.clip.keys:
        rig, mask = pictures.rig(key), pictures.masks[key]
        assert mask is not None
        tried = (visual_hull(rig, mask.to(rig.images.device), n_points, budget.n_cells, quorum) for quorum in QUORUMS)
        hull = next((found for found in tried if found is not None), None)
        if hull is not None:
            rigs.append(rig)
            outlines.append(mask.to(rig.images.device) > INSIDE)
            hulls.append(Candidates(*hull, torch.ones_like(hull[0][:, 0])))
            times.append(pictures.clip.times[key])
    if sum(map(len, hulls)) < min(LEAST_POINTS, n_points):
        return None
    within = outlined_range(rigs, outlines, budget)
    parts, n_views = [], budget.n_views if len(rigs) == 1 else budget.n_moving_views
    for rig, outline, candidates in zip(rigs, outlines, hulls, strict=True):
        surface, left = outlined_surface(rig, outline, within, n_views, budget, candidates)
        n_each = n_points // len(rigs)
        left = left.drawn(int(HULL_SHARE * n_each) if len(surface) else n_each, seed)
        parts += [surface.merged(n_each - len(left), seed), left]
    n_hull = sum(map(len, parts[1::2]))
    cloud = as_cloud(parts, [time for time in times for _ in range(2)], pictures.scene)
    return cloud, (
        f"the visual hull of the masks of {pictures.where}: {n_hull} points, "
        f"and {len(cloud) - n_hull} from a plane sweep inside it"
    )


def sweep_points(
    pictures: Pictures, n_points: int, seed: int, budget: Budget, filled_share: float = FILLED_SHARE
) -> Found | None:
    """Points on which several views agree; None when too few do. Nothing is put outside the masks.

    At most `filled_share` of the points stand where no views agree, at the depth of the surroundings.
    """
    clip = pictures.clip
    if min(map(len, clip.views)) < 2:
        return None
    still = filled = None
    moving: list[Candidates] = []
    if clip.still:
        background, is_background, foregrounds = separate(pictures.images, pictures.device)
        rig = make_rig(pictures.scene, clip.views[0], background, pictures.device)
        still, filled = whole_surface(rig, _both(is_background, pictures.inside(0)), seed, budget)
        rigs = [pictures.rig(key) for key in clip.keys]
        moved = [_both(foregrounds[key], pictures.inside(key)) for key in clip.keys]
        within = outlined_range(rigs, moved, budget)
        n_views = budget.n_moving_views
        moving = [
            outlined_surface(rig, mask, within, n_views, budget)[0] for rig, mask in zip(rigs, moved, strict=True)
        ]
    elif clip.times == (None,):
        still, filled = whole_surface(pictures.rig(0), pictures.inside(0), seed, budget)
    else:
        moving = [whole_surface(pictures.rig(key), pictures.inside(key), seed, budget)[0] for key in clip.keys]
    n_still, n_candidates = 0 if still is None else len(still), sum(map(len, moving))
    if n_still + n_candidates < min(LEAST_POINTS, n_points):
        return None
    most_moving = n_points if still is None else int(LARGEST_MOVING_SHARE * n_points)
    n_moving = min(round(n_points * n_candidates / (n_still + n_candidates)), most_moving)
    parts = [points.merged(n_moving * len(points) // max(n_candidates, 1), seed) for points in moving]
    times: list[float | None] = [clip.times[key] for key in clip.keys] if moving else []
    counts = [f"{sum(map(len, parts))} moving points at {len(times)} key frames"] if times else []
    if still is not None and filled is not None:
        n_left = n_points - sum(map(len, parts))
        filled = filled.drawn(int(filled_share * n_left), seed)
        still = still.merged(n_left - len(filled), seed)
        counts = [f"{len(still)} points", *counts, f"{len(filled)} filled in between"]
        parts, times = [joined([still, filled]), *parts], [None, *times]
    cloud = as_cloud(parts, times, pictures.scene)
    return cloud, f"a plane sweep over {max(map(len, clip.views))} views: {', '.join(counts)}"


def random_cloud(pictures: Pictures, n_points: int, seed: int) -> Found:
    """Points anywhere the cameras look; they hold for the whole clip."""
    positions, colors = random_points(pictures.rig(0), n_points, seed)
    cloud = as_cloud([Candidates(positions, colors, torch.ones_like(positions[:, 0]))], [None], pictures.scene)
    return cloud, f"{n_points} points drawn at random where the cameras look"


def _both(a: Tensor, b: Tensor | None) -> Tensor:
    return a if b is None else a & b
