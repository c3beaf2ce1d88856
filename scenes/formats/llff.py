"""LLFF forward-facing photos.

    poses_bounds.npy            see `poses_bounds`
    images/                     the photos, in the order of their sorted names
    images_4/, images_8/, ...   (optional) the same photos smaller, under any names; taken when just that downscale is
    asked for,
                                and when images/ is missing

Split: none of its own; every 8th view held out is what NeRF used on these scenes. Where a COLMAP model lies beside it,
that one is read instead, since it knows the lens and has points.
"""

from __future__ import annotations

import re
from pathlib import Path

from kinosplat.errors import InputError
from kinosplat.scenes.capture import Capture, RawPicture, Shot
from kinosplat.scenes.formats.folders import pictures_in
from kinosplat.scenes.formats.poses_bounds import read_poses_bounds
from kinosplat.scenes.images import image_size
from kinosplat.scenes.options import LoadOptions


def matches(root: Path) -> bool:
    """Whether poses_bounds.npy is there."""
    return (root / "poses_bounds.npy").is_file()


def read(root: Path, options: LoadOptions) -> Capture:
    """Read a folder in this layout."""
    cameras, depth = read_poses_bounds(root / "poses_bounds.npy")
    folder, downscaled = _folder(root, options)
    pictures = pictures_in(folder)
    if len(pictures) != len(cameras):
        raise InputError(
            f"{folder} holds {len(pictures)} pictures but poses_bounds.npy has {len(cameras)} rows; "
            "remove what does not belong."
        )
    shots = []
    for index, (picture, camera) in enumerate(zip(pictures, cameras, strict=True)):
        width, height = image_size(picture)
        shots.append(
            Shot(
                name=picture.stem,
                camera_index=index,
                world_to_camera=camera.world_to_camera,
                K=camera.K_at(width, height, picture),
                width=width,
                height=height,
                picture=RawPicture(picture),
            )
        )
    return Capture(format="llff", shots=tuple(shots), depth=depth, downscaled=downscaled)


def _folder(root: Path, options: LoadOptions) -> tuple[Path, float]:
    """Where the pictures to use are, and how many times smaller they are than the originals."""
    by_factor = {
        float(match[1]): path
        for path in root.glob("images_*")
        if path.is_dir() and (match := re.fullmatch(r"images_(\d+)", path.name))
    }
    if options.resolution is None and options.downscale in by_factor:
        return by_factor[options.downscale], options.downscale
    if (root / "images").is_dir():
        return root / "images", 1.0
    fitting = [factor for factor in sorted(by_factor) if factor <= options.downscale or options.resolution is not None]
    if not fitting:
        there = ", ".join(path.name for _, path in sorted(by_factor.items())) or "none"
        raise InputError(
            f"{root} has no folder images/ (smaller ones: {there}); put the photos there or ask for a downscale."
        )
    return by_factor[fitting[0]], fitting[0]
