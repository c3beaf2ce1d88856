"""`kinosplat export`: a run, or a file of Gaussians in any known format, in another format and in the input's frame.

It also imports: with `--format kino` whatever another tool wrote becomes a .kino file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.progress import track

from kinosplat.compression.canonical import canonical_still
from kinosplat.compression.formats import SUFFIXES, ExportFormat, export_gaussians, import_gaussians
from kinosplat.compression.kino import Metadata, read_kino, write_kino
from kinosplat.compression.mesh.mesh import write_mesh
from kinosplat.compression.size import size_words
from kinosplat.errors import InputError
from kinosplat.meshing import MeshOptions, mesh_of
from kinosplat.opening import UNKNOWN_FPS, open_subject
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.media import VideoWriter, to_uint8
from kinosplat.render.paths import orbit
from kinosplat.trainers.compress import start_cameras
from kinosplat.trainers.methods.gaussians import GaussianMethod
from kinosplat.trainers.run import load_run


@dataclass(frozen=True)
class ExportCommand:
    """Write Gaussians for other tools (PLY, compressed PLY, SPZ, SOG, .splat, GLB, .4dgs, PLY sequence) or as .kino, or
    a mesh or a video of anything.
    """

    what: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, or a file: .kino, .ply, .spz, .sog, .splat, .4dgs, .pth, .ckpt."""
    format: ExportFormat | Literal["kino", "mesh", "mp4"] = "ply"
    """What to write: spz is version 3, spz2 and spz4 are 2 and 4, spz-fine is 3 with 8-bit SH; kino keeps every bit;
    mesh is a PLY of coloured triangles; mp4 the clip from its first camera, or an orbit around what stands still."""
    out: Path | None = None
    """File to write (a folder for ply-sequence); by default beside the input, with the format's suffix."""
    time: float | None = None
    """Seconds from the clip's start: the moment that formats without time show."""
    fps: float | None = None
    """Frames a second of a PLY sequence or a video; by default the clip's own."""
    voxel: float | None = None
    """Edge of a cell of a mesh, units of the input; by default about a pixel at the surface."""
    level: float | None = None
    """Density at the surface of a field's mesh, 1 / units of the input; by default a tenth of the light is lost in a
    cell."""


ORBIT_FRAMES = 120
"""Frames of the video of what stands still."""


@dataclass(frozen=True)
class _Source:
    gaussians: Gaussians
    metadata: Metadata


def run(arguments: Sequence[str], program: str) -> int:
    """Read, convert, write, and say where."""
    command = tyro.cli(ExportCommand, args=arguments, prog=program)
    if command.format == "mesh":
        return _export_mesh(command)
    if command.format == "mp4":
        return _export_video(command)
    source = _read(command.what)
    meta = source.metadata
    path = command.out or _beside(command.what, ".kino" if command.format == "kino" else SUFFIXES[command.format])
    if path.resolve() == command.what.resolve():
        raise InputError(f"{path} would be written over itself; give another --out.")
    if command.format == "kino":
        duration = meta.duration or _duration(source.gaussians)
        gaussians = canonical_still(source.gaussians, duration, largest_fade=0.0)
        write_kino(path, gaussians, metadata=Metadata(**(vars(meta) | {"duration": duration or None})))
    else:
        export_gaussians(
            source.gaussians,
            path,
            command.format,
            to_input=meta.to_input,
            time=command.time,
            duration=meta.duration or _duration(source.gaussians),
            fps=command.fps or meta.fps,
        )
    files = [path] if path.is_file() else sorted(path.iterdir())
    total = sum(file.stat().st_size for file in files)
    print(f"{len(source.gaussians):,} Gaussians, {size_words(total)} written to {path}")
    return 0


def _export_mesh(command: ExportCommand) -> int:
    path = command.out or _beside(command.what, ".mesh.ply")
    if path.resolve() == command.what.resolve():
        raise InputError(f"{path} would be written over itself; give another --out.")
    mesh = mesh_of(open_subject(command.what), MeshOptions(command.time, command.voxel, command.level))
    write_mesh(path, mesh)
    size = size_words(path.stat().st_size)
    print(f"{len(mesh.faces):,} triangles, {len(mesh.vertices):,} vertices, {size} written to {path}")
    return 0


def _read(what: Path) -> _Source:
    """Gaussians in scene coordinates with what is known about them."""
    if (what / "config.json").exists():
        loaded = load_run(what, device="cpu")
        if not isinstance(loaded.method, GaussianMethod):
            raise InputError(f"{what} was trained with {loaded.method.name}, which has no Gaussians to export.")
        scene = loaded.scene()
        duration = scene.duration if scene.is_moving else None
        settings = loaded.method.settings
        metadata = Metadata(
            up=scene.up,
            fps=scene.fps,
            duration=duration,
            near=settings.near,
            antialiased=settings.antialiased,
            cameras=start_cameras(scene),
            to_input=scene.to_input,
        )
        return _Source(loaded.method.gaussians(), metadata)
    if what.suffix.lower() == ".kino":
        file = read_kino(what)
        return _Source(file.gaussians, file.metadata)
    return _Source(import_gaussians(what), Metadata())


@torch.no_grad()
def _export_video(command: ExportCommand) -> int:
    subject = open_subject(command.what)
    cameras, fps = list(subject.cameras), command.fps or subject.fps or UNKNOWN_FPS
    if subject.times and command.time is None:
        n_frames = max(2, round((subject.times[-1] - subject.times[0]) * fps) + 1)
        moments = [subject.times[0] + i / fps for i in range(n_frames)]
        cameras = [cameras[0].at(moment) for moment in moments]
    else:
        moment = (subject.times[0] if command.time is None else command.time) if subject.times else None
        cameras = [camera.at(moment) for camera in orbit(cameras, ORBIT_FRAMES)]
    path = command.out or _beside(command.what, ".mp4")
    with VideoWriter(path, fps) as video:
        for camera in track(cameras, "rendering", transient=True):
            output = subject.render(camera.to(subject.device), subject.background, geometry=False)
            video.write(to_uint8(output.rgb[0]))
    print(f"{len(cameras)} frames, {size_words(path.stat().st_size)} written to {path}")
    return 0


def _duration(gaussians: Gaussians) -> float:
    """Last time centre; what is known of the length of a clip that only its Gaussians tell of."""
    return 0.0 if gaussians.time_centres is None else max(float(gaussians.time_centres.max()), 0.0)


def _beside(what: Path, suffix: str) -> Path:
    if what.is_dir():
        return what / f"scene{suffix}"
    return what.with_name(what.name.removesuffix(what.suffix) + suffix)
