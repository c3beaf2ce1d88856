"""Pictures that data sets bring in smaller sizes: images_2/, images_4/, images_8/ beside images/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kinosplat.scenes.capture import RawPicture, Shot
from kinosplat.scenes.formats.folders import IMAGE_SUFFIXES
from kinosplat.scenes.images import image_size
from kinosplat.scenes.options import LoadOptions

FACTORS = (2.0, 4.0, 8.0)


def with_scaled_pictures(
    shots: Sequence[Shot], root: Path, images: Path, options: LoadOptions
) -> tuple[list[Shot], float]:
    """Shots with the pictures of images_N and K to match, and N; the same shots and 1 when they cannot be used.

    They are used when exactly that downscale is asked for, every picture of `images` is there under its name (with any
    suffix), and there are no masks, which exist in the full size only.
    """
    factor = options.downscale
    folder = root / f"images_{factor:g}"
    if options.resolution is not None or factor not in FACTORS or not folder.is_dir():
        return list(shots), 1.0
    pictures = [_twin(shot.picture.path, images, folder) for shot in shots]
    if any(shot.mask is not None for shot in shots) or None in pictures:
        return list(shots), 1.0
    scaled = []
    for shot, path in zip(shots, pictures, strict=True):
        assert path is not None
        width, height = image_size(path)
        K = np.diag([width / shot.width, height / shot.height, 1.0]) @ shot.K
        scaled.append(replace(shot, picture=RawPicture(path), width=width, height=height, K=K))
    return scaled, factor


def _twin(picture: Path, images: Path, folder: Path) -> Path | None:
    """The picture of the same name in the other folder."""
    twin = folder / (picture.relative_to(images) if picture.is_relative_to(images) else picture.name)
    suffixes = (twin.suffix, *sorted(IMAGE_SUFFIXES))
    return next((twin.with_suffix(suffix) for suffix in suffixes if twin.with_suffix(suffix).is_file()), None)
