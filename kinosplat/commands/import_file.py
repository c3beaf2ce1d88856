"""`kinosplat import`: what another tool wrote, as a .kino file that this project views, exports and explains.

Every bit is kept; what the file does not say about its scene can be said here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from kinosplat.compression.canonical import canonical_still, clip_seconds
from kinosplat.compression.formats import import_scene
from kinosplat.compression.formats.checkpoints_4d import ClipTime
from kinosplat.compression.kino import StartCamera, write_kino
from kinosplat.compression.size import size_words
from kinosplat.errors import InputError
from kinosplat.starting import cameras_around, likely_up
from kinosplat.trainers.file_metadata import program_version


@dataclass(frozen=True)
class ImportCommand:
    """Read .ply (plain, compressed, or with time columns), .spz, .sog, .splat, .glb, .4dgs, or a checkpoint (.pth,
    .ckpt) of the two published 4D parametrisations, and write a .kino file.
    """

    what: Annotated[Path, tyro.conf.Positional]
    """The file."""
    out: Path | None = None
    """File to write; by default beside the input."""
    up: tuple[float, float, float] | None = None
    """World axis that points up; by default the one that most likely does, as `kinosplat view` finds it."""
    background: tuple[float, float, float] | None = None
    """Colour behind the Gaussians, three numbers in [0, 1]; by default black, or what the file says."""
    duration: float | None = None
    """Seconds of a clip; by default what the file says, or until the last time centre."""
    fps: float | None = None
    """Frames a second of a clip; by default what the file says."""
    seconds: float | None = None
    """Of a checkpoint: how long one unit of its time lasts; by default 1."""
    start: float | None = None
    """Of a checkpoint: the clip's first moment in that unit; by default 0, or the earliest time centre where more than
    a quarter of them are negative."""


def run(arguments: Sequence[str], program: str) -> int:
    """Read, write, and say where."""
    command = tyro.cli(ImportCommand, args=arguments, prog=program)
    path = command.out or command.what.with_suffix(".kino")
    if path.resolve() == command.what.resolve():
        raise InputError(f"{path} would be written over itself; give another --out.")
    imported = import_scene(command.what, _clip_time(command))
    gaussians, known = imported.gaussians, imported.metadata
    if len(gaussians) == 0:
        raise InputError(f"{command.what} holds no Gaussians; export it again.")
    metadata = replace(
        known,
        background=command.background or known.background or (0.0, 0.0, 0.0),
        provenance={**known.provenance, "imported from": command.what.name, "program": program_version()},
        duration=None,
        fps=None,
    )
    first = gaussians
    if gaussians.is_moving:
        duration = clip_seconds(gaussians, known.duration if command.duration is None else command.duration)
        metadata = replace(metadata, duration=duration, fps=command.fps or known.fps)
        gaussians, first = canonical_still(gaussians, duration, largest_fade=0.0), gaussians.at(0.0)
    elif command.duration is not None or command.fps is not None:
        raise InputError(f"{command.what} stands still; leave out --duration and --fps.")
    up = command.up or known.up or likely_up(first)
    cameras = cameras_around(first, up, 0.0 if gaussians.is_moving else None)
    start = known.cameras or tuple(StartCamera.of(camera) for camera in cameras[:1])
    metadata = replace(metadata, up=up, cameras=start)
    n_bytes = write_kino(path, gaussians, metadata=metadata)
    print(f"{len(gaussians):,} Gaussians, {size_words(n_bytes)} written to {path}")
    return 0


def _clip_time(command: ImportCommand) -> ClipTime | None:
    if command.seconds is None and command.start is None:
        return None
    if command.seconds is not None and not command.seconds > 0:
        raise InputError(f"--seconds must be above 0, got {command.seconds:g}.")
    return ClipTime(command.seconds or 1.0, command.start)
