"""A folder of PLY files, one a frame: what most tools for moving Gaussians take."""

from __future__ import annotations

from pathlib import Path

from kinosplat.compression.formats.frame import still_at
from kinosplat.compression.formats.ply import write_ply
from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians


def write_ply_sequence(folder: Path, gaussians: Gaussians, fps: float, duration: float) -> list[Path]:
    """Write frame_00000.ply and on, at 0, 1 / fps, ... up to and with `duration` seconds; return the files."""
    if fps <= 0 or duration < 0:
        raise InputError(
            f"A sequence needs a positive frame rate and a duration, not {fps:g} and {duration:g}; give --fps."
        )
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i in range(int(duration * fps + 1e-6) + 1):
        files.append(folder / f"frame_{i:05d}.ply")
        write_ply(files[-1], still_at(gaussians, i / fps))
    return files
