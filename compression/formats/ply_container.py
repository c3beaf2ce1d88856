"""The PLY container: named elements of named scalar columns; ascii and both binary orders are read, little-endian is
written.

List properties are refused, but for triangles where they are asked for. Sizes are checked against the file before
anything is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinosplat.errors import InputError

TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
WRITTEN_NAMES = {"u1": "uchar", "u4": "uint", "f4": "float", "f8": "double"}
ORDERS = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}
COUNT, LIST = " count", " list"
"""Behind the name of a list property: how many numbers follow, and the numbers. No name of a column has spaces."""
MAX_HEADER_BYTES = 1 << 16


def read_elements(path: Path, *, triangles: bool = False) -> dict[str, NDArray[Any]]:
    """Structured arrays by element name, in the order of the file; InputError when it is no PLY, or cut off.

    With `triangles`, a list property of a binary file is read as a column of three; other lengths are an InputError.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    end = data.find(b"end_header", 0, MAX_HEADER_BYTES)
    newline = data.find(b"\n", end)
    if not data.startswith(b"ply") or end < 0 or newline < 0:
        raise InputError(f"{path} is not a PLY file; check the path.")
    order, declared = _parse_header(data[:end].decode("latin-1"), path, triangles)
    if order == "ascii":
        return _read_ascii(data[newline + 1 :], declared, path)
    elements, offset = {}, newline + 1
    for name, (count, columns) in declared.items():
        dtype = np.dtype([_field(column, ORDERS[order] + kind) for column, kind in columns])
        if count * dtype.itemsize > len(data) - offset:
            raise InputError(f"{path} is cut off: {count} of `{name}` do not fit into it; copy it again.")
        elements[name] = np.frombuffer(data, dtype, count, offset)
        offset += count * dtype.itemsize
        for column in (column for column, _ in columns if column.endswith(COUNT)):
            if not (elements[name][column] == 3).all():
                raise InputError(f"{path} has faces that are no triangles; export it again with triangles.")
    return elements


def _field(name: str, kind: str) -> tuple[str, str] | tuple[str, str, tuple[int]]:
    """A column of numpy's; what follows a count is a list of three."""
    return (name.removesuffix(LIST), kind, (3,)) if name.endswith(LIST) else (name, kind)


def write_elements(path: Path, elements: Mapping[str, NDArray[Any]], comments: tuple[str, ...] = ()) -> None:
    """Write structured arrays as binary little-endian elements."""
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {comment}" for comment in comments)]
    for name, table in elements.items():
        lines.append(f"element {name} {len(table)}")
        assert table.dtype.names is not None
        lines += [f"property {WRITTEN_NAMES[table.dtype[column].str[1:]]} {column}" for column in table.dtype.names]
    with path.open("wb") as file:
        file.write(("\n".join([*lines, "end_header"]) + "\n").encode())
        for table in elements.values():
            file.write(table.tobytes())


def _parse_header(text: str, path: Path, triangles: bool) -> tuple[str, dict[str, tuple[int, list[tuple[str, str]]]]]:
    order = ""
    declared: dict[str, tuple[int, list[tuple[str, str]]]] = {}
    columns: list[tuple[str, str]] = []
    for words in (line.split() for line in text.splitlines()):
        match words:
            case ["format", name, _] if name in ORDERS:
                order = name
            case ["element", name, count] if count.isdecimal() and len(count) < 12 and name not in declared:
                columns = []
                declared[name] = (int(count), columns)
            case ["property", kind, name] if kind in TYPES and declared and name not in dict(columns):
                columns.append((name, TYPES[kind]))
            case ["property", "list", count, kind, name] if triangles and count in TYPES and kind in TYPES and declared:
                if order == "ascii":
                    raise InputError(f"{path} holds its faces as text; export it again as binary PLY.")
                columns += [(name + COUNT, TYPES[count]), (name + LIST, TYPES[kind])]
            case ["property" | "element" | "format", *_]:
                raise InputError(
                    f"{path} has the header line `{' '.join(words)}`, which Gaussians do not need; export it again."
                )
    if not order:
        raise InputError(f"{path} does not say its format in its header; export it again.")
    return order, declared


def _read_ascii(
    body: bytes, declared: dict[str, tuple[int, list[tuple[str, str]]]], path: Path
) -> dict[str, NDArray[Any]]:
    words = body.split()
    elements, offset = {}, 0
    for name, (count, columns) in declared.items():
        n_words = count * len(columns)
        if n_words > len(words) - offset:
            raise InputError(f"{path} is cut off: {count} of `{name}` do not fit into it; copy it again.")
        try:
            values = np.array(words[offset : offset + n_words], np.float64).reshape(count, len(columns))
        except ValueError as error:
            raise InputError(f"{path} has text where numbers of `{name}` should be; export it again.") from error
        table = np.zeros(count, np.dtype(columns))
        for i, (column, _) in enumerate(columns):
            table[column] = values[:, i]
        elements[name] = table
        offset += n_words
    return elements
