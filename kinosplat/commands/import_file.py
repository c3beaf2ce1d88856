"""`kinosplat import`: what another tool wrote, as a .kino file that this project views, exports and explains.

Every bit is kept; what the file does not say about its scene can be said here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from kinosplat.compression.canonical import canonical_still
from kinosplat.compression.formats import import_gaussians
from kinosplat.compression.kino import Metadata, StartCamera, write_kino
from kinosplat.compression.size import size_words
from kinosplat.errors import InputError
from kinosplat.starting import cameras_around, likely_up


@dataclass(frozen=True)
class ImportCommand:
    """Read .ply (plain, compressed, or with time columns), .spz, .sog, .splat, .4dgs, or a checkpoint (.pth, .ckpt) of
    the two published 4D parametrisations, and write a .kino file.
    """

    what: Annotated[Path, tyro.conf.Positional]
    """The file."""
    out: Path | None = None
    """File to write; by default beside the input."""
    up: tuple[float, float, float] | None = None
    """World axis that points up; by default the one that most likely does, as `kinosplat view` finds it."""
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Colour behind the Gaussians, three numbers in [0, 1]."""
    duration: float | None = None
    """Seconds of a clip; by default until the last time centre."""
    fps: float | None = None
    """Frames a second of a clip."""


def run(arguments: Sequence[str], program: str) -> int:
    """Read, write, and say where."""
    command = tyro.cli(ImportCommand, args=arguments, prog=program)
    path = command.out or command.what.with_suffix(".kino")
    if path.resolve() == command.what.resolve():
        raise InputError(f"{path} would be written over itself; give another --out.")
    gaussians = import_gaussians(command.what)
    if len(gaussians) == 0:
        raise InputError(f"{command.what} holds no Gaussians; export it again.")
    metadata = Metadata(background=command.background, provenance={"imported from": command.what.name})
    first = gaussians
    if gaussians.time_centres is not None:
        duration = max(float(gaussians.time_centres.max()), 0.0) if command.duration is None else command.duration
        metadata = replace(metadata, duration=duration, fps=command.fps)
        gaussians, first = canonical_still(gaussians, duration, largest_fade=0.0), gaussians.at(0.0)
    up = command.up or likely_up(first)
    cameras = cameras_around(first, up, None if gaussians.time_centres is None else 0.0)
    metadata = replace(metadata, up=up, cameras=tuple(StartCamera.of(camera) for camera in cameras[:1]))
    n_bytes = write_kino(path, gaussians, metadata=metadata)
    print(f"{len(gaussians):,} Gaussians, {size_words(n_bytes)} written to {path}")
    return 0
