"""The pictures that first points are made from: small copies of the training views, sorted by moment and by what moves.

For cameras that stand still, the median over the key frames shows the scene without what moves; what differs from it is
the foreground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from kinosplat.scenes.frames import FrameLoader
from kinosplat.scenes.points.rig import Rig
from kinosplat.scenes.scene import Scene, View

MOVED = 0.04
"""Difference from the background, in [0, 1] of the strongest channel, beyond the noise, that makes a pixel foreground.
"""
BACKGROUND_FRAMES = 24
"""Times from which the background is taken: enough for what moves to be elsewhere at more than half of them."""
NOISE_FACTOR = 4.0
"""How many times the temporal noise (median absolute deviation) a pixel has to differ by, on top."""


@dataclass(frozen=True)
class Clip:
    """Views by moment: `views[i]` are the indices of the training views at `times[i]`, one a camera."""

    times: tuple[float | None, ...]
    """Seconds; a single None for pictures that are taken as being of one moment."""
    views: tuple[tuple[int, ...], ...]
    """Indices into the training views; of the same cameras in the same order at each time if `still`."""
    still: bool
    """Whether the same cameras stand in the same places at all times, and there is more than one time."""
    keys: tuple[int, ...]
    """Which of the times are key frames; the others only help to tell what moves."""


def choose_key_frames(scene: Scene, n_key: int, n_views: int, least_cameras: int = 3) -> Clip:
    """Key times spread evenly over the clip; where too few cameras look at a time, everything counts as one moment."""
    by_time: dict[float | None, list[int]] = {}
    for i, view in enumerate(scene.train):
        by_time.setdefault(view.camera.time, []).append(i)
    full = [time for time, members in by_time.items() if len(members) >= least_cameras]
    if not scene.is_moving or not full:
        everything = range(len(scene.train))
        return Clip((None,), (tuple(spread(everything, n_views)),), still=False, keys=(0,))
    times = spread(sorted(time for time in full if time is not None), max(n_key, BACKGROUND_FRAMES))
    cameras = [{scene.train[i].camera_index: i for i in by_time[time]} for time in times]
    common = sorted(set.intersection(*(set(members) for members in cameras)))
    first = cameras[0]
    still = len(times) > 1 and len(common) >= least_cameras
    for members in cameras[1:] if still else []:
        still &= all(_same_place(scene.train[first[c]], scene.train[members[c]]) for c in common)
    if still:
        chosen = spread(common, n_views)
        views = tuple(tuple(members[c] for c in chosen) for members in cameras)
        return Clip(tuple(times), views, still=True, keys=tuple(spread(range(len(times)), n_key)))
    keys = spread(range(len(times)), n_key)
    views = tuple(tuple(spread(sorted(cameras[key].values()), n_views)) for key in keys)
    return Clip(tuple(times[key] for key in keys), views, still=False, keys=tuple(range(len(keys))))


def spread(items: Sequence, n: int) -> list:
    """At most `n` of the items, evenly spread, the first and the last among them."""
    if len(items) <= n:
        return list(items)
    return [items[round(i * (len(items) - 1) / max(n - 1, 1))] for i in range(n)]


def load_small(
    scene: Scene, clip: Clip, frames: FrameLoader, width: int, height: int
) -> tuple[list[Tensor], list[Tensor | None]]:
    """For each time the pictures (V, H, W, 3) uint8 and foregrounds (V, H, W) of masks and alpha, if any, by an area
    filter; on the loader's device.

    Pictures with alpha are put on black.
    """
    order = sorted(
        ((scene.train[index].camera_index, moment, place, index))
        for moment, members in enumerate(clip.views)
        for place, index in enumerate(members)
    )
    # By camera and then by time, so that each video is decoded once, forwards.
    queue = [index for *_, index in order]
    device = frames.device
    images = [torch.empty(len(members), height, width, 3, dtype=torch.uint8, device=device) for members in clip.views]
    masks: list[Tensor | None] = [None] * len(clip.views)
    for done, (_, moment, place, index) in enumerate(order):
        frames.prefetch(queue[done : done + 16])
        frame = frames.get(index)
        picture = frame.image if frame.alpha is None else frame.image * frame.alpha[..., None]
        small = _shrink(picture.permute(2, 0, 1), width, height).permute(1, 2, 0)
        images[moment][place] = (small * 255).round().byte()
        if frame.foreground is not None:
            for i, members in enumerate(clip.views if masks[moment] is None else ()):
                masks[i] = torch.ones(len(members), height, width, device=device)
            mask = masks[moment]
            assert mask is not None
            mask[place] = _shrink(frame.foreground[None], width, height)[0]
    return images, masks


def make_rig(scene: Scene, members: Sequence[int], images: Tensor, device: torch.device) -> Rig:
    """The rig of training views `members` with `images` (V, H, W, 3) uint8."""
    height, width = images.shape[1:3]
    cameras = [scene.train[i].camera.resized(width, height) for i in members]
    return Rig(
        images.to(device).float() / 255,
        torch.stack([camera.world_to_camera for camera in cameras]).float().to(device),
        torch.stack([camera.K for camera in cameras]).float().to(device),
    )


def separate(images: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor, list[Tensor]]:
    """What stands still and what moves, from pictures (V, H, W, 3) uint8 of the same cameras at several times.

    Returns the background (V, H, W, 3) uint8, where it is one (V, H, W) bool, and the foreground of each time (V, H, W)
    bool.
    """
    backgrounds, moved = [], []
    for view in range(len(images[0])):
        pictures = torch.stack([moment[view].to(device) for moment in images])
        background = pictures.median(dim=0).values
        difference = (pictures.float() - background.float()).abs().amax(dim=-1) / 255
        backgrounds.append(background)
        moved.append(difference > MOVED + NOISE_FACTOR * difference.median(dim=0).values.median())
    by_view = torch.stack(moved, dim=1)
    # Isolated pixels are noise, gaps of a pixel are not.
    foregrounds = [avg_pool2d(mask.float(), 3, stride=1, padding=1) > 0.4 for mask in by_view]
    return torch.stack(backgrounds), by_view.float().mean(dim=0) < 0.5, foregrounds


def _same_place(a: View, b: View) -> bool:
    return bool(torch.allclose(a.camera.world_to_camera, b.camera.world_to_camera, atol=1e-5))


def _shrink(planes: Tensor, width: int, height: int) -> Tensor:
    if planes.shape[1:] == (height, width):
        return planes
    return interpolate(planes[None], (height, width), mode="area")[0]
