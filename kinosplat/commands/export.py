"""`kinosplat export`: a run, or a file of Gaussians in any known format, in another format and in the input's frame; a
mesh or a video of these and of fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from kinosplat.compression.canonical import canonical_still, clip_seconds
from kinosplat.compression.formats import FORMATS, ExportFormat, import_scene, placed_for, write_placed
from kinosplat.compression.formats.imported import Imported
from kinosplat.compression.kino import write_kino
from kinosplat.compression.mesh.mesh import write_mesh
from kinosplat.compression.size import size_words
from kinosplat.display import rendering
from kinosplat.errors import InputError
from kinosplat.meshing import MeshOptions, mesh_of
from kinosplat.opening import UNKNOWN_FPS, check_time, open_subject
from kinosplat.render.media import VideoWriter, to_uint8
from kinosplat.render.paths import orbit
from kinosplat.trainers.file_metadata import metadata_of
from kinosplat.trainers.methods.gaussians import GaussianMethod
from kinosplat.trainers.run import load_run


@dataclass(frozen=True)
class ExportCommand:
    """Write Gaussians for other tools (PLY, compressed PLY, SPZ, SOG, .splat, GLB, .4dgs, PLY sequence) or as .kino, or
    a mesh or a video of anything.
    """

    what: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, or a file: .kino, .ply, .spz, .sog, .splat, .glb, .4dgs, .pth, .ckpt."""
    format: Literal[ExportFormat, "kino", "mesh", "mp4"] = "ply"
    """What to write: spz is version 3, spz2 and spz4 are 2 and 4, spz-fine is 3 with 8-bit SH; kino keeps every bit;
    mesh is a PLY of coloured triangles; mp4 the clip from its first camera, or an orbit around what stands still."""
    out: Path | None = None
    """File to write (a folder for ply-sequence); by default beside the input, with the format's suffix."""
    time: float | None = None
    """Seconds from the clip's start: the moment that formats without time show."""
    fps: float | None = None
    """Frames a second of a PLY sequence, a .4dgs or a video; by default the clip's own."""
    voxel: float | None = None
    """Edge of a cell of a mesh, units of the input; by default about a pixel at the surface, of a field a 256th of its
    inner cube."""
    level: float | None = None
    """Density at the surface of a field's mesh, 1 / units of the input; by default a tenth of the light is lost in a
    cell."""


ORBIT_FRAMES = 120
"""Frames of the video of what stands still."""


TAKEN_BY = {
    "time": {"mesh", "mp4"} | {name for name, format in FORMATS.items() if format.time != "clip"},
    "fps": {"ply-sequence", "4dgs", "mp4"},
    "voxel": {"mesh"},
    "level": {"mesh"},
}
"""The formats to which an option says something."""


def run(arguments: Sequence[str], program: str) -> int:
    """Read, convert, write, and say where."""
    command = tyro.cli(ExportCommand, args=arguments, prog=program)
    for name, formats in TAKEN_BY.items():
        if getattr(command, name) is not None and command.format not in formats:
            raise InputError(f"--{name} does nothing to {command.format}; leave it out.")
    if command.format == "mesh":
        return _export_mesh(command)
    if command.format == "mp4":
        return _export_video(command)
    source = _read(command.what)
    gaussians = source.gaussians
    duration = clip_seconds(gaussians, source.metadata.duration)
    metadata = replace(source.metadata, duration=duration or None, fps=command.fps or source.metadata.fps)
    suffix = ".kino" if command.format == "kino" else FORMATS[command.format].suffix
    path = _free_path(command, suffix)
    if command.format == "kino":
        write_kino(path, canonical_still(gaussians, duration, largest_fade=0.0), metadata=metadata)
    else:
        gaussians = placed_for(command.format, gaussians, metadata, command.time)
        write_placed(gaussians, path, command.format, metadata)
    files = [path] if path.is_file() else list(path.iterdir())
    total = size_words(sum(file.stat().st_size for file in files))
    written = f"{len(gaussians):,} Gaussians" if path.is_file() else f"{len(files)} frames"
    print(f"{written}, {total} written to {path}")
    return 0


def _export_mesh(command: ExportCommand) -> int:
    path = _free_path(command, ".mesh.ply")
    subject = open_subject(command.what)
    check_time(subject, command.time)
    mesh = mesh_of(subject, MeshOptions(command.time, command.voxel, command.level))
    write_mesh(path, mesh)
    size = size_words(path.stat().st_size)
    print(f"{len(mesh.faces):,} triangles, {len(mesh.vertices):,} vertices, {size} written to {path}")
    return 0


def _read(what: Path) -> Imported:
    """Gaussians in scene coordinates with what is known about them."""
    if not (what / "config.json").exists():
        return import_scene(what)
    loaded = load_run(what, device="cpu")
    if not isinstance(loaded.method, GaussianMethod):
        raise InputError(
            f"{what} was trained with {loaded.method.name}, which has no Gaussians to export; "
            "`kinosplat compress` makes a .kino file of it, --format mesh or mp4 a mesh or a video."
        )
    metadata = metadata_of(loaded.scene(), loaded.method, loaded.background, loaded.step)
    return Imported(loaded.method.gaussians(), metadata)


@torch.no_grad()
def _export_video(command: ExportCommand) -> int:
    subject = open_subject(command.what)
    check_time(subject, command.time)
    cameras, fps = list(subject.cameras), command.fps or subject.fps or UNKNOWN_FPS
    if subject.times and command.time is None:
        n_frames = max(2, round((subject.times[-1] - subject.times[0]) * fps) + 1)
        moments = [subject.times[0] + i / fps for i in range(n_frames)]
        cameras = [cameras[0].at(moment) for moment in moments]
    else:
        moment = (subject.times[0] if command.time is None else command.time) if subject.times else None
        cameras = [camera.at(moment) for camera in orbit(cameras, ORBIT_FRAMES)]
    path = _free_path(command, ".mp4")
    with VideoWriter(path, fps) as video:
        for camera in rendering(cameras):
            output = subject.render(camera.to(subject.device), subject.background, geometry=False)
            video.write(to_uint8(output.rgb[0]))
    print(f"{len(cameras)} frames, {size_words(path.stat().st_size)} written to {path}")
    return 0


def _free_path(command: ExportCommand, suffix: str) -> Path:
    """Where to write; InputError where that is what is read, or where its name promises another format."""
    what = command.what
    beside = what / f"scene{suffix}" if what.is_dir() else what.with_name(what.name.removesuffix(what.suffix) + suffix)
    path = command.out or beside
    ending = Path(f"name{suffix}").suffix
    # The writer of videos knows endings of its own.
    if command.format != "mp4" and ending and path.suffix.lower() != ending:
        raise InputError(f"{path}: the name of a file of --format {command.format} must end in {ending}.")
    if path.resolve() == what.resolve():
        raise InputError(f"{path} would be written over itself; give another --out.")
    return path
