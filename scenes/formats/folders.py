"""Finding pictures on disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from kinosplat.errors import InputError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"})


def first_folder(root: Path, names: Sequence[str]) -> Path:
    """The first of the named folders that is there."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise InputError(f"{root} has no folder {' or '.join(f'{name}/' for name in names)}; put the pictures there.")


def pictures_in(folder: Path) -> list[Path]:
    """All pictures directly in a folder, sorted by name as text, which is what the formats' own tools do."""
    pictures = [
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not pictures:
        raise InputError(f"{folder} holds no pictures; put them there as PNG or JPEG files.")
    return sorted(pictures)


def natural_order(name: str) -> list[tuple[bool, int, str]]:
    """A sorting key under which cam2 comes before cam10."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]
