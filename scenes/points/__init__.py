"""First points: where the trainer's first Gaussians stand.

In this order: the points that came with the scene; the visual hull where masks show an object's outline; a plane sweep
over views with known poses; points drawn at random where the cameras look. Moving scenes get points at key frames
(`PointCloud.times`); where cameras stand still, what does not move is found once, in the pictures' median, and holds
for the whole clip (`PointCloud.durations`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kinosplat.scenes.frames import FrameLoader
from kinosplat.scenes.points.budget import Budget
from kinosplat.scenes.points.build import Pictures, hull_points, random_cloud, sweep_points
from kinosplat.scenes.points.parallel import views_in_parallel
from kinosplat.scenes.points.pictures import choose_key_frames, load_small
from kinosplat.scenes.scene import PointCloud, Scene

__all__ = ["Budget", "first_points"]

MASK_SAYS_SOMETHING = 0.9
"""Masks that leave less than the rest of the pictures out are about lenses or frames, not about an object."""


def first_points(
    scene: Scene,
    n_points: int,
    seed: int = 0,
    *,
    device: torch.device | str = "cpu",
    cache_bytes: int | None = None,
    budget: Budget | None = None,
    only_agreed: bool = False,
) -> tuple[PointCloud, str]:
    """At most `n_points` points in scene coordinates, on the CPU, and how they were found, in words for the report.

    With `only_agreed` none are guessed: what came with the scene, or what several views agree on, or no points at all.
    The same scene, device and seed give the same points. Pictures that cannot be read raise InputError.
    """
    if n_points < 1:
        raise ValueError(f"n_points must be at least 1, got {n_points}.")
    if scene.points is not None and len(scene.points) > 0:
        return _thinned(scene.points, n_points, seed), f"{len(scene.points)} points that came with the scene"
    device = torch.device(device)
    budget = budget or (Budget.for_cpu() if device.type == "cpu" else Budget.for_gpu())
    clip = choose_key_frames(scene, budget.n_key_frames, budget.n_views)
    camera = scene.train[0].camera
    width, height = _within(camera.width, camera.height, budget.fine_pixels)
    with views_in_parallel():
        with FrameLoader(scene.train, cache_bytes=cache_bytes, device=device) as frames:
            images, masks = load_small(scene, clip, frames, width, height)
        pictures = Pictures(scene, clip, images, masks, device)
        if only_agreed:
            return sweep_points(pictures, n_points, seed, budget, 0.0) or no_points()
        found = hull_points(pictures, n_points, seed, budget) if _outline_something(masks) else None
        return found or sweep_points(pictures, n_points, seed, budget) or random_cloud(pictures, n_points, seed)


def no_points() -> tuple[PointCloud, str]:
    """What there is when views agree on nothing."""
    return PointCloud(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8)), "none that views agree on"


def _outline_something(masks: Sequence[Tensor | None]) -> bool:
    shares = [mask.mean() for mask in masks if mask is not None]
    return bool(shares) and float(torch.stack(shares).mean()) < MASK_SAYS_SOMETHING


def _within(width: int, height: int, n_pixels: int) -> tuple[int, int]:
    """The largest size of the same shape, at most the given one, with at most `n_pixels`."""
    scale = min(1.0, math.sqrt(n_pixels / (width * height)))
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _thinned(points: PointCloud, n_points: int, seed: int) -> PointCloud:
    if len(points) <= n_points:
        return points
    chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:n_points].sort().values
    return points.subset(chosen)
