"""Morton (Z-order) codes: neighbours in space become neighbours in a file.

Coordinates are non-negative integers of at most 21 bits, so that three of them fit into 63 bits. Bit i of x, y and z
goes to bits 3i, 3i + 1 and 3i + 2 of the code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_BITS = 21

# Each step doubles the gaps between groups of bits; the masks are the usual ones for spreading 21 bits to every third
# place.
_SPREAD_STEPS = (
    (32, 0x001F00000000FFFF),
    (16, 0x001F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)


def interleave(cells: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Codes (N,) of integer cells (N, 3), each coordinate in [0, 2^21)."""
    code = np.zeros(len(cells), np.uint64)
    for axis in range(3):
        spread = cells[:, axis].astype(np.uint64)
        for shift, mask in _SPREAD_STEPS:
            spread = (spread | (spread << np.uint64(shift))) & np.uint64(mask)
        code |= spread << np.uint64(axis)
    return code


def deinterleave(code: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Integer cells (N, 3) of codes (N,); the inverse of `interleave`."""
    cells = np.empty((len(code), 3), np.int64)
    masks = [*(mask for _, mask in _SPREAD_STEPS[-2::-1]), 0x1FFFFF]
    for axis in range(3):
        packed = (code >> np.uint64(axis)) & np.uint64(_SPREAD_STEPS[-1][1])
        for (shift, _), mask in zip(reversed(_SPREAD_STEPS), masks, strict=True):
            packed = (packed | (packed >> np.uint64(shift))) & np.uint64(mask)
        cells[:, axis] = packed.astype(np.int64)
    return cells


def morton_order(positions: NDArray[np.floating], bits: int = MAX_BITS) -> NDArray[np.int64]:
    """Stable order (N,) that sorts finite positions (N, 3) along the Z-curve of their bounding box."""
    if len(positions) == 0:
        return np.zeros(0, np.int64)
    low = positions.min(axis=0).astype(np.float64)
    extent = positions.max(axis=0).astype(np.float64) - low
    cells = (positions - low) / np.where(extent > 0, extent, 1.0) * (2**bits - 1)
    return np.argsort(interleave(cells.astype(np.int64)), kind="stable")
