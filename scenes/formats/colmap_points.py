"""points3D.bin and points3D.txt of COLMAP: sparse points with colours.

text:    POINT3D_ID X Y Z R G B ERROR TRACK...
binary:  uint64 count, then uint64 id, float64 x y z, uint8 r g b, float64 error, uint64 n, n x (int32, int32)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kinosplat.errors import InputError
from kinosplat.scenes.capture import RawPoints
from kinosplat.scenes.formats.checks import check_points
from kinosplat.scenes.formats.colmap_files import BinaryFile, text_rows

TRACK_ELEMENT_BYTES = 8


def read_points3D(path: Path) -> RawPoints:
    """Positions and colours; InputError when there are none."""
    rows = _binary_rows(path) if path.suffix == ".bin" else _text_rows(path)
    values = np.array(rows, dtype=np.float64).reshape(-1, 6)
    check_points(values[:, :3], path)
    return RawPoints(values[:, :3], np.clip(values[:, 3:], 0, 255).astype(np.uint8))


def _text_rows(path: Path) -> list[tuple[float, ...]]:
    rows = []
    for line_number, words in text_rows(path):
        try:
            row = tuple(float(word) for word in words[1:7])
        except ValueError as error:
            raise InputError(f"{path} line {line_number} holds something other than numbers; correct it.") from error
        if len(row) < 6:
            raise InputError(f"{path} line {line_number} is not a point (POINT3D_ID X Y Z R G B ...); correct it.")
        rows.append(row)
    return rows


def _binary_rows(path: Path) -> list[tuple[float, ...]]:
    file = BinaryFile(path)
    (count,) = file.unpack("<Q")
    rows: list[tuple[float, ...]] = []
    for _ in range(count):
        _, x, y, z, r, g, b, _, track_length = file.unpack("<Q3d3BdQ")
        file.skip(track_length * TRACK_ELEMENT_BYTES)
        rows.append((x, y, z, r, g, b))
    return rows
