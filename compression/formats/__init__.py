"""Formats that other tools open: one file each, and here the door to all of them.

`export_gaussians` brings the set back to the input's frame, takes a moment of it where the format has no time, and
writes; `import_scene` reads, with what the file says about its scene. Files appear whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from kinosplat.compression.canonical import without_idle_time
from kinosplat.compression.formats.checkpoints_4d import ClipTime, read_4d_checkpoint
from kinosplat.compression.formats.compressed_ply import read_compressed_ply, write_compressed_ply
from kinosplat.compression.formats.four_dgs import read_four_dgs, write_four_dgs
from kinosplat.compression.formats.frame import in_input_frame, still_at
from kinosplat.compression.formats.gltf import write_gltf
from kinosplat.compression.formats.gltf_reader import read_gltf
from kinosplat.compression.formats.imported import Imported
from kinosplat.compression.formats.ply import read_ply, write_ply
from kinosplat.compression.formats.ply_container import read_elements
from kinosplat.compression.formats.ply_sequence import check_folder, write_ply_sequence
from kinosplat.compression.formats.sog import read_sog, write_sog
from kinosplat.compression.formats.splat import read_splat, write_splat
from kinosplat.compression.formats.spz import read_spz, write_spz
from kinosplat.compression.kino import Metadata, read_kino
from kinosplat.compression.whole import appearing
from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians

ExportFormat = Literal[
    "ply", "compressed-ply", "spz", "spz2", "spz4", "spz-fine", "sog", "splat", "glb", "4dgs", "ply-sequence"
]


@dataclass(frozen=True)
class Format:
    """How a format is written."""

    suffix: str
    """Of its files; empty for a folder."""
    write: Callable[[Path, Gaussians, Metadata], None]
    """Takes a set in the input's frame, and facts of which a format keeps what it can."""
    time: Literal["moment", "either", "clip"] = "moment"
    """Whether it holds one moment, a whole clip, or either."""


FORMATS: dict[ExportFormat, Format] = {
    "ply": Format(".ply", lambda path, gaussians, _: write_ply(path, gaussians), "either"),
    "compressed-ply": Format(".compressed.ply", lambda path, gaussians, _: write_compressed_ply(path, gaussians)),
    "spz": Format(".spz", write_spz),
    "spz2": Format(".spz", partial(write_spz, version=2)),
    "spz4": Format(".spz", partial(write_spz, version=4)),
    "spz-fine": Format(".spz", partial(write_spz, sh_bits=(8, 8))),
    "sog": Format(".sog", lambda path, gaussians, _: write_sog(path, gaussians)),
    "splat": Format(".splat", lambda path, gaussians, _: write_splat(path, gaussians)),
    "glb": Format(".glb", lambda path, gaussians, metadata: write_gltf(path, gaussians, metadata.up)),
    "4dgs": Format(".4dgs", write_four_dgs, "clip"),
    "ply-sequence": Format("", write_ply_sequence, "clip"),
}
assert set(FORMATS) == set(get_args(ExportFormat))


def export_gaussians(
    gaussians: Gaussians,
    path: str | Path,
    format: ExportFormat,
    *,
    metadata: Metadata | None = None,
    time: float | None = None,
) -> Path:
    """Write `gaussians` (scene coordinates) in the input's frame and return the path; arguments as of `placed_for` and
    `write_placed`.
    """
    metadata = metadata or Metadata()
    return write_placed(placed_for(format, gaussians, metadata, time), path, format, metadata)


def placed_for(format: ExportFormat, gaussians: Gaussians, metadata: Metadata, time: float | None) -> Gaussians:
    """What a file of the format will hold of `gaussians` (scene coordinates), in the input's frame.

    time: seconds; the moment that formats without time show, and with `ply` a still file instead of one with time
    columns.
    """
    if format not in FORMATS:
        raise InputError(f"The format {format} is unknown; choose one of {', '.join(FORMATS)}.")
    placed = in_input_frame(gaussians, metadata.to_input)
    holds = FORMATS[format].time
    return still_at(placed, time) if holds == "moment" or (holds == "either" and time is not None) else placed


def write_placed(placed: Gaussians, path: str | Path, format: ExportFormat, metadata: Metadata) -> Path:
    """Write what `placed_for` returned. Of `metadata` counts what the format keeps: duration and frame rate of a clip,
    up, anti-aliasing.
    """
    path = Path(path)
    if format == "ply-sequence":
        check_folder(path)
    with appearing(path) as beside:
        FORMATS[format].write(beside, placed, metadata)
    return path


def import_gaussians(path: str | Path) -> Gaussians:
    """The Gaussians alone of what `import_scene` reads."""
    return import_scene(path).gaussians


def import_scene(path: str | Path, time: ClipTime | None = None) -> Imported:
    """Read .ply (plain, with time columns, or compressed), .spz, .sog or its folder, .splat, .glb, .4dgs, .kino, or a
    checkpoint (.pth, .ckpt), told by the name. `time` says how a checkpoint counts it.

    Raises InputError where a file is damaged, of another kind, or holds a field instead of Gaussians.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    suffix = ".sog" if path.is_dir() or path.name == "meta.json" else path.suffix.lower()
    if suffix in CHECKPOINTS:
        return Imported(read_4d_checkpoint(path, time or ClipTime()))
    if time is not None:
        raise InputError(f"{path} counts its time in seconds; leave out --seconds and --start.")
    if suffix not in READERS:
        raise InputError(f"{path} has a suffix that is unknown; give {', '.join(READERS)}, {' or '.join(CHECKPOINTS)}.")
    imported = READERS[suffix](path)
    return replace(imported, gaussians=without_idle_time(imported.gaussians))


def _read_any_ply(path: Path) -> Imported:
    return Imported(read_compressed_ply(path) if "chunk" in read_elements(path) else read_ply(path))


def _read_kino(path: Path) -> Imported:
    file = read_kino(path)
    if file.kind != "gaussians":
        raise InputError(
            f"{path} holds a model of the kind {file.kind}, which has no Gaussians; "
            "a mesh or a video can be made of it (`kinosplat export --format mesh` or `mp4`)."
        )
    return Imported(file.gaussians, file.metadata)


READERS: dict[str, Callable[[Path], Imported]] = {
    ".ply": _read_any_ply,
    ".spz": read_spz,
    ".sog": lambda path: Imported(read_sog(path)),
    ".splat": lambda path: Imported(read_splat(path)),
    ".glb": read_gltf,
    ".4dgs": read_four_dgs,
    ".kino": _read_kino,
}
CHECKPOINTS = (".pth", ".ckpt")
