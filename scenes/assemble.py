"""From what a reader found on disk to the scene the trainer takes: part of the clip, split, size, normalisation,
delivery.

Checked here, because it is cheap: every chosen file exists, and its header has the size that the intrinsics are for (of
every still picture, and of the first frame of each camera of a clip). Everything else shows when a picture is loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kinosplat.errors import InputError
from kinosplat.render.camera import Camera
from kinosplat.scenes.capture import Capture, RawPicture, RawPoints, Shot
from kinosplat.scenes.images import ImageFile, LensGaps, image_size
from kinosplat.scenes.lenses import Delivery, Undistortion
from kinosplat.scenes.normalise import normalisation, up_axis
from kinosplat.scenes.options import LoadOptions
from kinosplat.scenes.scene import ImageSource, PointCloud, Scene, Similarity, View
from kinosplat.scenes.splits import split_shots
from kinosplat.scenes.video import VideoFrame


def assemble_scene(capture: Capture, root: Path, options: LoadOptions) -> Scene:
    """The scene of a capture as the options ask for it."""
    if not capture.shots:
        raise InputError(f"{root} has no cameras; check that it is complete.")
    _check_names(capture.shots, root)
    capture = _part_of_clip(capture, root, options)
    _check_files(capture.shots)
    to_input = normalisation(capture)
    train, test, split = split_shots(capture, options)
    if not train:
        raise InputError(f"{root} has no training views left; choose another split, or a smaller test_every.")
    views = _Views(capture, to_input, options)
    times = sorted({shot.time for shot in capture.shots if shot.time is not None})
    return Scene(
        name=root.resolve().name,
        root=root,
        format=capture.format,
        train=tuple(views.view(shot) for shot in train),
        test=tuple(views.view(shot) for shot in test),
        split=split,
        times=tuple(times),
        fps=capture.fps if times else None,
        points=_points(capture.points, to_input),
        to_input=to_input,
        up=up_axis(capture),
        background=capture.background,
        near=None if capture.near is None else capture.near / to_input.scale,
        colors_differ=capture.colors_differ,
        masks_cut_out=capture.masks_cut_out,
        resolution_note=views.resolution_note(),
    )


def _part_of_clip(capture: Capture, root: Path, options: LoadOptions) -> Capture:
    """The capture with the chosen frames, whose time begins at 0; without times when a single moment is left."""
    n_frames = 1 + max((shot.frame for shot in capture.shots if shot.frame is not None), default=-1)
    if n_frames == 0:
        if options.frame is not None or options.frames is not None:
            raise InputError(f"{root} is static, so frame and frames do not apply; leave them out.")
        return capture
    first, last = options.frames or (0, n_frames)
    if options.frame is not None:
        first, last = options.frame, options.frame + 1
    if last > n_frames:
        asked = f"frame {options.frame}" if options.frame is not None else f"frames {first} {last}"
        raise InputError(
            f"{root} has {n_frames} frames, numbered from 0, so {asked} goes beyond its end; ask for less."
        )
    shots = [shot for shot in capture.shots if shot.frame is None or first <= shot.frame < last]
    times = sorted({shot.time for shot in shots if shot.time is not None})
    is_static = len(times) < 2 or options.frame is not None
    start = times[0] if times else 0.0
    shots = [replace(shot, time=None if is_static or shot.time is None else shot.time - start) for shot in shots]
    points = capture.points
    if points is not None and points.times is not None:
        chosen = (points.times >= start - 1e-6) & (points.times <= times[-1] + 1e-6)
        kept_times = None if is_static else points.times[chosen] - start
        points = RawPoints(points.positions[chosen], points.colors[chosen], kept_times) if chosen.any() else None
    return replace(capture, shots=tuple(shots), points=points)


def _check_names(shots: Sequence[Shot], root: Path) -> None:
    """No picture occurs twice, which would let a held-out one into training; names can be those of files."""
    name, count = Counter(shot.name for shot in shots).most_common(1)[0]
    if count > 1:
        raise InputError(f"{root} has two pictures named {name!r}; keep one of them.")
    for shot in shots:
        if ".." in shot.name or shot.name.startswith("/"):
            raise InputError(f"{root} has a picture named {shot.name!r}, which cannot name a rendering; rename it.")


def _check_files(shots: Sequence[Shot]) -> None:
    """Every picture exists; still ones, and each camera's first of a clip, have the right size."""
    measured: set[object] = set()
    for shot in shots:
        for picture in (shot.picture, shot.mask):
            if picture is None:
                continue
            if not picture.path.is_file():
                what = "picture" if shot.frame is None else f"frame {shot.frame} of camera {shot.camera_index}"
                raise InputError(f"{picture.path} does not exist; put the {what} there or correct the path.")
            key = picture.path if shot.frame is None else (shot.camera_index, picture is shot.mask)
            if picture.frame is None and key not in measured:
                measured.add(key)
                width, height = image_size(picture.path)
                if (width, height) != (shot.width, shot.height):
                    raise InputError(
                        f"{picture.path} is {width}x{height} pixels but its intrinsics are for "
                        f"{shot.width}x{shot.height}; scale one of the two so that they agree."
                    )


class _Views:
    """Makes views; cameras of one calibration share one Delivery."""

    def __init__(self, capture: Capture, to_input: Similarity, options: LoadOptions) -> None:
        self._capture = capture
        self._to_input = to_input
        self._options = options
        self._leaves_gaps: dict[Delivery, bool] = {}

    def view(self, shot: Shot) -> View:
        """The view of a shot, in scene coordinates and at the delivered size."""
        delivery = self._delivery(shot)
        mask: ImageSource | None = None
        if shot.mask is not None and self._options.masks == "auto":
            mask_delivery = delivery.as_mask(inverted=shot.mask.marks_outside)
            mask = _source(shot.mask, mask_delivery, may_be_empty=shot.time is not None)
        elif self._leaves_gaps[delivery]:
            mask = LensGaps(delivery)
        return View(
            name=shot.name,
            camera=self._camera(shot).resized(delivery.width, delivery.height),
            camera_index=shot.camera_index,
            image=_source(shot.picture, delivery),
            mask=mask,
        )

    def resolution_note(self) -> str:
        """How pictures are scaled, in words for the report."""
        sizes = {((d.raw_width, d.raw_height), (d.width, d.height)) for d in self._leaves_gaps}
        on_disk = (
            f", from pictures scaled 1/{self._capture.downscaled:g} on disk" if self._capture.downscaled != 1 else ""
        )
        if all(raw == delivered for raw, delivered in sizes):
            words = "as on disk" if on_disk else "full resolution"
        else:
            words = "area filter"
        if len(sizes) > 1:
            return f"{words}, {len(sizes)} sizes, 1/{self._options.downscale:g}{on_disk}"
        raw, delivered = sizes.pop()
        scaled = "" if raw == delivered else f" -> {delivered[0]}x{delivered[1]}"
        return f"{words}, {raw[0]}x{raw[1]}{scaled}{on_disk}"

    def _camera(self, shot: Shot) -> Camera:
        scale, offset = self._to_input.scale, np.array(self._to_input.offset)
        world_to_camera = np.eye(4)
        world_to_camera[:3, :3] = shot.world_to_camera[:3, :3]
        world_to_camera[:3, 3] = (shot.world_to_camera[:3, :3] @ offset + shot.world_to_camera[:3, 3]) / scale
        return Camera(
            world_to_camera=torch.from_numpy(world_to_camera).float(),
            K=torch.from_numpy(shot.K).float(),
            width=shot.width,
            height=shot.height,
            time=shot.time,
        )

    def _delivery(self, shot: Shot) -> Delivery:
        width, height = self._delivered_size(shot)
        undistortion = None
        if not shot.lens.is_identity:
            K = shot.K
            undistortion = Undistortion(
                shot.lens,
                (float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]), float(K[0, 1])),
                shot.width,
                shot.height,
            )
        delivery = Delivery(shot.width, shot.height, width, height, undistortion)
        if delivery not in self._leaves_gaps:
            self._leaves_gaps[delivery] = delivery.leaves_gaps
        return delivery

    def _delivered_size(self, shot: Shot) -> tuple[int, int]:
        if self._options.resolution is not None:
            width, height = self._options.resolution
            if width > shot.width or height > shot.height:
                raise InputError(
                    f"resolution {width} {height} is larger than {shot.picture.path} with {shot.width}x{shot.height} "
                    "pixels; choose a smaller one, pictures are never enlarged."
                )
            return width, height
        remaining = self._options.downscale / self._capture.downscaled
        return max(1, round(shot.width / remaining)), max(1, round(shot.height / remaining))


def _source(picture: RawPicture, delivery: Delivery, may_be_empty: bool = False) -> ImageSource:
    if picture.frame is None:
        return ImageFile(picture.path, delivery, may_be_empty)
    return VideoFrame(picture.path, picture.frame, delivery)


def _points(points: RawPoints | None, to_input: Similarity) -> PointCloud | None:
    if points is None:
        return None
    positions = (points.positions - np.array(to_input.offset)) / to_input.scale
    times = None if points.times is None else torch.from_numpy(points.times).float()
    return PointCloud(torch.from_numpy(positions).float(), torch.from_numpy(points.colors), times)
