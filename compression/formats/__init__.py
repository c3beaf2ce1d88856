"""Formats that other tools open: one file each, and here the door to all of them.

`export_gaussians` brings the set back to the input's frame, takes a moment of it where the format has no time, and
writes; `import_gaussians` reads. Files appear whole or not at all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

from typing_extensions import assert_never

from kinosplat.compression.formats.checkpoints_4d import read_4d_checkpoint
from kinosplat.compression.formats.compressed_ply import read_compressed_ply, write_compressed_ply
from kinosplat.compression.formats.four_dgs import read_four_dgs, write_four_dgs
from kinosplat.compression.formats.frame import in_input_frame, still_at
from kinosplat.compression.formats.gltf import write_gltf
from kinosplat.compression.formats.ply import read_ply, write_ply
from kinosplat.compression.formats.ply_container import read_elements
from kinosplat.compression.formats.ply_sequence import write_ply_sequence
from kinosplat.compression.formats.sog import read_sog, write_sog
from kinosplat.compression.formats.splat import read_splat, write_splat
from kinosplat.compression.formats.spz import read_spz, write_spz
from kinosplat.compression.kino import read_kino
from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians
from kinosplat.scenes.scene import Similarity

ExportFormat = Literal[
    "ply", "compressed-ply", "spz", "spz2", "spz4", "spz-fine", "sog", "splat", "glb", "4dgs", "ply-sequence"
]
SUFFIXES: dict[ExportFormat, str] = {
    "ply": ".ply",
    "compressed-ply": ".compressed.ply",
    "spz": ".spz",
    "spz2": ".spz",
    "spz4": ".spz",
    "spz-fine": ".spz",
    "sog": ".sog",
    "splat": ".splat",
    "glb": ".glb",
    "4dgs": ".4dgs",
    "ply-sequence": "",
}
KEEPS_TIME: tuple[ExportFormat, ...] = ("ply", "4dgs", "ply-sequence")


def export_gaussians(
    gaussians: Gaussians,
    path: str | Path,
    format: ExportFormat,
    *,
    to_input: Similarity | None = None,
    time: float | None = None,
    duration: float = 0.0,
    fps: float | None = None,
    up: tuple[float, float, float] | None = None,
) -> Path:
    """Write `gaussians` (scene coordinates) in the input's frame and return the path.

    time: seconds; the moment that formats without time show, and with `ply` a still file instead of one with time
    columns. duration: seconds of the clip, for `4dgs` and `ply-sequence`; fps: frames a second of a sequence. up:
    scene's up axis. `spz` is version 3 with the reference's SH precision, `spz2` and `spz4` are versions 2 and 4,
    `spz-fine` is version 3 with 8-bit SH.
    """
    if format not in get_args(ExportFormat):
        raise InputError(f"The format {format} is unknown; choose one of {', '.join(get_args(ExportFormat))}.")
    path = Path(path)
    placed = in_input_frame(gaussians, to_input or Similarity())
    if format not in KEEPS_TIME or (format == "ply" and time is not None):
        placed = still_at(placed, time)
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "ply-sequence":
        if fps is None:
            raise InputError("A sequence of PLY files needs a frame rate; give --fps.")
        write_ply_sequence(path, placed, fps, duration)
        return path
    beside = path.with_name(path.name + ".partial")
    try:
        _write(beside, placed, format, duration, up)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def _write(
    path: Path, gaussians: Gaussians, format: ExportFormat, duration: float, up: tuple[float, float, float] | None
) -> None:
    if format == "ply":
        write_ply(path, gaussians)
    elif format == "compressed-ply":
        write_compressed_ply(path, gaussians)
    elif format == "spz":
        write_spz(path, gaussians)
    elif format == "spz2":
        write_spz(path, gaussians, version=2)
    elif format == "spz4":
        write_spz(path, gaussians, version=4)
    elif format == "spz-fine":
        write_spz(path, gaussians, sh_bits=(8, 8))
    elif format == "sog":
        write_sog(path, gaussians)
    elif format == "splat":
        write_splat(path, gaussians)
    elif format == "glb":
        write_gltf(path, gaussians, up)
    elif format == "4dgs":
        write_four_dgs(path, gaussians, duration)
    elif format == "ply-sequence":
        raise ValueError("a sequence is a folder of files, not one.")
    else:
        assert_never(format)


def import_gaussians(path: str | Path) -> Gaussians:
    """Read .ply (plain, with time columns, or compressed), .spz, .sog or its folder, .splat, .4dgs, or .kino, told by
    the name.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    suffix = path.suffix.lower()
    if path.is_dir() or path.name == "meta.json" or suffix == ".sog":
        return read_sog(path)
    if suffix == ".ply":
        return read_compressed_ply(path) if "chunk" in read_elements(path) else read_ply(path)
    if suffix == ".spz":
        return read_spz(path)
    if suffix == ".splat":
        return read_splat(path)
    if suffix == ".4dgs":
        return read_four_dgs(path)
    if suffix == ".kino":
        return read_kino(path).gaussians
    if suffix in (".pth", ".ckpt"):
        return read_4d_checkpoint(path)
    raise InputError(
        f"{path} has a suffix that is unknown; give .ply, .spz, .sog, .splat, .4dgs, .kino, .pth or .ckpt."
    )
