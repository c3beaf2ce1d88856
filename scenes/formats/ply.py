"""First points from a PLY file: positions, and colours when there are some.

Reads ascii and both binary orders; x, y, z and red, green, blue of the element `vertex` (uchar colours, or float ones
in [0, 1]); other scalar properties and later elements are skipped. Points without colour are gray. No faces, no
Gaussians' attributes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinosplat.errors import InputError
from kinosplat.scenes.capture import RawPoints
from kinosplat.scenes.formats.checks import check_points

OLD_TYPES = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "float": "f4",
    "double": "f8",
}
NEW_TYPES = {
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "float32": "f4",
    "float64": "f8",
}
TYPES = OLD_TYPES | NEW_TYPES
"""Numpy's name of each scalar type; PLY has two names for each."""
BYTE_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}
MAX_HEADER_BYTES = 65536


def read_points(path: Path) -> RawPoints:
    """The points of a PLY file; InputError when it is missing, no PLY, truncated, or has none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read; put the points there, or remove the reference to them.") from error
    end = content.find(b"end_header", 0, MAX_HEADER_BYTES)
    newline = content.find(b"\n", end)
    if not content.startswith(b"ply") or end < 0 or newline < 0:
        raise InputError(f"{path} is not a PLY file; export the points again as PLY.")
    order, n_points, dtype = _header(content[:end].decode("latin-1").splitlines(), path)
    if n_points == 0:
        check_points(np.zeros((0, 3)), path)
    vertices = _vertices(content[newline + 1 :], order, n_points, dtype, path)
    positions = np.stack([vertices[axis].astype(np.float64) for axis in ("x", "y", "z")], axis=1)
    check_points(positions, path)
    return RawPoints(positions, _colors(vertices))


def _header(lines: list[str], path: Path) -> tuple[str, int, np.dtype[np.void]]:
    order, element, n_points = "", "", 0
    properties: list[tuple[str, str]] = []
    for words in (line.split() for line in lines):
        match words:
            case ["format", name, _] if name in BYTE_ORDERS:
                order = BYTE_ORDERS[name]
                is_ascii = name == "ascii"
            case ["element", name, count]:
                if not properties and element and element != "vertex":
                    raise InputError(f"{path} has the element {element} before vertex; export the points alone.")
                element = name
                if name == "vertex":
                    n_points = int(count) if count.isdecimal() else 0
            case ["property", kind, name] if element == "vertex" and kind in TYPES:
                properties.append((name, TYPES[kind]))
            case ["property", *_] if element == "vertex":
                raise InputError(
                    f"{path} has a property of a vertex that is no number ({' '.join(words)}); export it again."
                )
    if not order or not {"x", "y", "z"} <= {name for name, _ in properties}:
        raise InputError(f"{path} has no vertices with x, y and z; export the points again as PLY.")
    dtype = np.dtype([(name, kind if is_ascii else order + kind) for name, kind in properties])
    return ("ascii" if is_ascii else order), n_points, dtype


def _vertices(body: bytes, order: str, n_points: int, dtype: np.dtype[np.void], path: Path) -> NDArray[np.void]:
    if order != "ascii":
        if len(body) < n_points * dtype.itemsize:
            raise InputError(f"{path} ends before its {n_points} points; copy it again.")
        return np.frombuffer(body, dtype, n_points)
    lines = body.split(b"\n", n_points)[:n_points]
    try:
        n_properties = len(dtype.names or ())
        rows = [tuple(float(word) for word in line.split()[:n_properties]) for line in lines]
        if len(rows) < n_points or any(len(row) < n_properties for row in rows):
            raise ValueError("too few numbers")
        return np.array(rows, dtype)
    except OverflowError as error:
        raise InputError(f"{path} holds numbers that its header does not allow; export it again.") from error
    except ValueError as error:
        raise InputError(f"{path} ends before its {n_points} points; copy it again.") from error


def _colors(vertices: NDArray[np.void]) -> NDArray[np.uint8]:
    names = vertices.dtype.names or ()
    for channels in (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")):
        if set(channels) <= set(names):
            colors = np.stack([vertices[channel] for channel in channels], axis=1)
            if colors.dtype.kind == "f":
                colors = colors * (255 if colors.max() <= 1 else 1)
            return np.clip(np.rint(colors), 0, 255).astype(np.uint8)
    return np.full((len(vertices), 3), 128, np.uint8)
