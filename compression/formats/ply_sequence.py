"""A folder of PLY files, one a frame: what most tools for moving Gaussians take."""

from __future__ import annotations

import re
from pathlib import Path

from kinosplat.compression.canonical import clip_seconds
from kinosplat.compression.formats.frame import still_at
from kinosplat.compression.formats.ply import write_ply
from kinosplat.compression.kino.metadata import Metadata
from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians


def write_ply_sequence(folder: Path, gaussians: Gaussians, metadata: Metadata) -> None:
    """Write frame_00000.ply and on, at 0, 1 / fps, ... up to and with the duration that `metadata` says."""
    fps, duration = metadata.fps, clip_seconds(gaussians, metadata.duration)
    if fps is None or fps <= 0 or duration < 0:
        raise InputError("A sequence of PLY files needs a frame rate above 0; give --fps.")
    folder.mkdir(parents=True)
    for i in range(int(duration * fps + 1e-6) + 1):
        write_ply(folder / f"frame_{i:05d}.ply", still_at(gaussians, i / fps))


def check_folder(folder: Path) -> None:
    """InputError where writing a sequence would replace anything but an earlier sequence."""
    if not folder.exists():
        return
    if not folder.is_dir() or any(not re.fullmatch(r"frame_\d{5,}\.ply", file.name) for file in folder.iterdir()):
        raise InputError(f"{folder} holds something other than frames; give another --out.")
