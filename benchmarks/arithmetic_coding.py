"""What an adaptive arithmetic coder would save over zstd on byte planes, attribute by attribute.

    python benchmarks/arithmetic_coding.py FILE.kino

The coder that is counted is of order 0 with Krichevsky-Trofimov estimates, whose code length has a closed form; it
takes integers or their differences, whichever is less. Differences of Morton codes are coded as bit length, five bits
below the leading one, and the rest plain.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray

from kinosplat.compression.kino import KinoReader
from kinosplat.compression.kino.layout import Attribute
from kinosplat.compression.kino.planes import PayloadCursor, unpack_pairs

MODELLED_BITS = 5
"""Of a Morton difference, below its leading one."""


@dataclass(frozen=True)
class Arguments:
    """What to look at."""

    file: Annotated[Path, tyro.conf.Positional]
    """A .kino file of Gaussians."""


def code_bytes(symbols: NDArray[np.integer]) -> float:
    """Bytes that an adaptive coder of order 0 takes for non-negative symbols (n,)."""
    counts = np.bincount(symbols.astype(np.int64)).astype(float)
    total, half = counts.sum(), 0.5 * len(counts)
    nats = lgamma(total + half) - lgamma(half) - sum(lgamma(count + 0.5) - lgamma(0.5) for count in counts)
    return nats / log(2) / 8


def morton_bytes(codes: NDArray[np.uint64]) -> float:
    """Bytes for the differences of sorted codes (n,)."""
    steps = np.diff(codes, prepend=np.uint64(0)).astype(np.int64)
    lengths = np.array([int(step).bit_length() for step in steps])
    total = code_bytes(lengths)
    for length in np.unique(lengths):
        below = max(int(length) - 1, 0)
        modelled = min(below, MODELLED_BITS)
        chosen = steps[lengths == length]
        total += code_bytes((chosen >> (below - modelled)) & ((1 << modelled) - 1))
        total += len(chosen) * (below - modelled) / 8
    return total


def attribute_bytes(attribute: Attribute, cursor: PayloadCursor, n: int) -> float:
    """Bytes for the attribute that stands next in a chunk of `n` Gaussians, its range included."""
    total = 0.0
    if attribute.has_range:
        cursor.floats(2 * attribute.components)
        total += 8 * attribute.components
    if attribute.packed:
        octets = cursor.integers(n, attribute.n_planes, 1, delta=False)
        integers = unpack_pairs(octets, attribute.n_integers)
    else:
        integers = cursor.integers(n, attribute.n_integers, attribute.n_bytes, delta=attribute.delta)
    for column in integers.T:
        if attribute.coding == "morton":
            total += morton_bytes(column)
            continue
        differences = np.diff(column.astype(np.int64), prepend=0)
        total += min(code_bytes(column), code_bytes(differences - differences.min()))
    return total


def main(arguments: Arguments) -> None:
    """Print a table in Markdown."""
    reader = KinoReader(arguments.file)
    found: dict[str, list[float]] = {}
    for record in reader.chunks:
        cursor = PayloadCursor(reader.payload(record))
        for attribute in reader.header.attributes:
            if attribute.moving and record.is_still:
                continue
            before = cursor.n_left
            ideal = attribute_bytes(attribute, cursor, record.n_gaussians)
            sums = found.setdefault(attribute.name, [0.0, 0.0])
            sums[0] += before - cursor.n_left
            sums[1] += ideal
    print("| attribute | zstd | arithmetic | saved |\n|---|---|---|---|")
    for name, (stored, ideal) in found.items():
        print(f"| {name} | {stored:,.0f} B | {ideal:,.0f} B | {1 - ideal / stored:.1%} |")
    saved = sum(stored - ideal for stored, ideal in found.values())
    print(f"| of the file | {reader.prelude.file_bytes:,} B | | {saved / reader.prelude.file_bytes:.1%} |")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
