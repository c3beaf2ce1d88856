"""How the numbers of an attribute become integers and back; docs/format.md gives each formula.

Decoding is done in float64 and rounded once to float32, so that every reader on every machine gets the same bits. A
coding's `encode` returns the integers and, where the coding has one, the range of the chunk. Values that are not
finite are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_never

from kinosplat.compression.kino.layout import Attribute
from kinosplat.compression.kino.planes import PayloadCursor, unpack_pairs
from kinosplat.compression.morton import deinterleave, interleave

ROTATION_LIMIT = math.sqrt(2.0) - 1.0  # tan(45 deg / 2): the largest x/w, y/w, z/w after `canonical_axes`


@dataclass(frozen=True)
class FloatCoding:
    """Values as they are; 16 bits round to the nearest half."""

    bits: Literal[16, 32] = 32


@dataclass(frozen=True)
class QuantisedCoding:
    """value = minimum + step * integer, for each component."""

    bits: int
    """Bits of the integer, 1 to 24."""
    minimum: tuple[float, ...] = ()
    """Fixed lower ends, one a component; empty = each chunk takes its own range."""
    step: tuple[float, ...] = ()
    """Fixed steps; given together with `minimum`."""


@dataclass(frozen=True)
class MortonCoding:
    """Positions on a grid over the chunk's box, kept as the differences of sorted Morton codes."""

    bits: int
    """Bits an axis, 1 to 21."""
    minimum: tuple[float, ...] = ()
    """Fixed lower ends, one an axis; empty = each chunk takes its own box."""
    step: tuple[float, ...] = ()
    """Fixed steps; given together with `minimum`."""


@dataclass(frozen=True)
class RotationCoding:
    """Quaternions wxyz as x/w, y/w, z/w in +-(sqrt(2) - 1); needs `kinosplat.compression.canonical.canonical_axes`
    before.
    """

    bits: int
    """Bits of each of the three, 2 to 16."""


@dataclass(frozen=True)
class CodebookCoding:
    """Sub-vectors of the attribute as indices into shared tables."""

    codebooks: tuple[NDArray[np.float32], ...]
    """(K, d) rows for consecutive components."""
    indices: NDArray[np.integer]
    """(N, number of codebooks), in the order of the Gaussians given to the writer."""
    table_bits: Literal[8, 16, 32] = 16
    """How table entries are stored: 8 bits with a range a column, float16, float32."""


Coding = FloatCoding | QuantisedCoding | MortonCoding | RotationCoding | CodebookCoding


def attribute_of(name: str, components: int, coding: Coding, *, moving: bool = False, delta: bool = False) -> Attribute:
    """The line of the attribute table for a coding."""
    if isinstance(coding, FloatCoding):
        return Attribute(name, components, "float16" if coding.bits == 16 else "float32", coding.bits, delta, moving)
    if isinstance(coding, QuantisedCoding):
        return Attribute(name, components, "quantised", coding.bits, delta, moving)
    if isinstance(coding, MortonCoding):
        return Attribute(name, components, "morton", coding.bits, True, moving)
    if isinstance(coding, RotationCoding):
        return Attribute(name, components, "rotation", coding.bits, delta, moving)
    if isinstance(coding, CodebookCoding):
        bits = max(max(len(book) - 1 for book in coding.codebooks).bit_length(), 1)
        names = tuple(f"{name}.{i}" for i in range(len(coding.codebooks)))
        return Attribute(name, components, "codebook", bits, delta, moving, names)
    assert_never(coding)


def encode(
    values: NDArray[np.float32], coding: Coding, rows: NDArray[np.int64], name: str
) -> tuple[NDArray[np.uint64], bytes]:
    """Integers (n, C) of the Gaussians `rows` (n,) of attribute `values` (N, C), and the range bytes that stand before
    them.
    """
    chosen = np.asarray(values[rows], np.float32)
    if not isinstance(coding, CodebookCoding) and not np.isfinite(chosen).all():
        raise ValueError(f"{name} holds values that are not finite; remove those Gaussians before writing.")
    if isinstance(coding, FloatCoding):
        if coding.bits == 32:
            return chosen.view(np.uint32).astype(np.uint64), b""
        halves = chosen.astype(np.float16)
        if not np.isfinite(halves).all():
            raise ValueError(f"{name} holds values above 65504; store it with more than 16 float bits.")
        return halves.view(np.uint16).astype(np.uint64), b""
    if isinstance(coding, QuantisedCoding):
        minimum, step = range_of(coding, chosen)
        return quantise(chosen, minimum, step, coding.bits), _range_bytes(minimum, step)
    if isinstance(coding, MortonCoding):
        minimum, step = range_of(coding, chosen)
        return interleave(quantise(chosen, minimum, step, coding.bits))[:, None], _range_bytes(minimum, step)
    if isinstance(coding, RotationCoding):
        return encode_rotation(chosen, coding.bits), b""
    if isinstance(coding, CodebookCoding):
        return coding.indices[rows].astype(np.uint64), b""
    assert_never(coding)


def decode(
    attribute: Attribute, cursor: PayloadCursor, n: int, tables: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Values (n, components) of the attribute that stands next in a chunk; ValueError when they make no sense."""
    minimum = step = np.zeros(0)
    if attribute.has_range:
        minimum, step = cursor.floats(attribute.components), cursor.floats(attribute.components)
    if attribute.packed:
        octets = cursor.integers(n, attribute.n_planes, 1, delta=False)
        integers = unpack_pairs(octets, attribute.n_integers)
    else:
        integers = cursor.integers(n, attribute.n_integers, attribute.n_bytes, delta=attribute.delta)
    if attribute.coding == "float32":
        return np.ascontiguousarray(integers.astype(np.uint32)).view(np.float32)
    if attribute.coding == "float16":
        return np.ascontiguousarray(integers.astype(np.uint16)).view(np.float16).astype(np.float32)
    if attribute.coding == "quantised":
        return dequantise(integers, minimum, step)
    if attribute.coding == "morton":
        return dequantise(deinterleave(integers[:, 0]), minimum, step)
    if attribute.coding == "rotation":
        return decode_rotation(integers, attribute.bits)
    if attribute.coding == "codebook":
        values = np.empty((n, attribute.components), np.float32)
        start = 0
        for column, table_name in enumerate(attribute.codebooks):
            table = tables[table_name]
            if n and integers[:, column].max() >= len(table):
                raise ValueError(f"`{attribute.name}` has an index beyond its codebook")
            values[:, start : start + table.shape[1]] = table[integers[:, column].astype(np.int64)]
            start += table.shape[1]
        return values
    assert_never(attribute.coding)


def value_range(values: NDArray[np.float32], bits: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Minimum and step (C,) that spread `values` (n, C) over the integers of `bits`; both are float32 numbers."""
    if len(values) == 0:
        return np.zeros(values.shape[1]), np.zeros(values.shape[1])
    low, high = values.min(axis=0).astype(np.float64), values.max(axis=0).astype(np.float64)
    step = ((high - low) / (2**bits - 1)).astype(np.float32).astype(np.float64)
    return low, step


def range_of(
    coding: QuantisedCoding | MortonCoding, values: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Minimum and step (C,) that the coding gives, or else those of `values` (n, C)."""
    if not coding.minimum:
        return value_range(values, coding.bits)
    minimum = np.asarray(coding.minimum, np.float32).astype(np.float64)
    return minimum, np.asarray(coding.step, np.float32).astype(np.float64)


def quantise(
    values: NDArray[np.floating], minimum: NDArray[np.float64], step: NDArray[np.float64], bits: int
) -> NDArray[np.uint64]:
    """Nearest integers (n, C) in [0, 2^bits)."""
    scaled = (values.astype(np.float64) - minimum) / np.where(step > 0, step, 1.0)
    return np.clip(np.rint(scaled), 0, 2**bits - 1).astype(np.uint64)


def dequantise(
    integers: NDArray[np.integer], minimum: NDArray[np.float64], step: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Minimum + step * integer in float64, rounded to float32."""
    values = integers.astype(np.float64)
    values *= step  # in place: a file may declare gigabytes
    values += minimum
    return values.astype(np.float32)


def encode_rotation(quats: NDArray[np.float32], bits: int) -> NDArray[np.uint64]:
    """Integers (n, 3) of quaternions (n, 4) whose |w| is at least (1 + sqrt(2)) times less a rounding error every
    other part.
    """
    q = quats.astype(np.float64)
    ratios = q[:, 1:] / np.where(q[:, :1] == 0, 1e-12, q[:, :1])
    if len(ratios) and np.abs(ratios).max() > 1.05 * ROTATION_LIMIT:
        raise ValueError("quats are not in canonical form; call canonical_axes before writing them as rotations.")
    middle = 2 ** (bits - 1) - 1
    return np.clip(np.rint(ratios / ROTATION_LIMIT * middle) + middle, 0, 2 * middle).astype(np.uint64)


def decode_rotation(integers: NDArray[np.integer], bits: int) -> NDArray[np.float32]:
    """Unit quaternions wxyz (n, 4) of integers (n, 3)."""
    middle = 2 ** (bits - 1) - 1
    ratios = (integers.astype(np.float64) - middle) / middle * ROTATION_LIMIT
    quats = np.concatenate([np.ones((len(ratios), 1)), ratios], axis=1)
    return (quats / np.sqrt((quats * quats).sum(axis=1, keepdims=True))).astype(np.float32)


def _range_bytes(minimum: NDArray[np.float64], step: NDArray[np.float64]) -> bytes:
    return minimum.astype("<f4").tobytes() + step.astype("<f4").tobytes()
