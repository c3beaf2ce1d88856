"""How many bytes integers will take in a .kino file, without writing one: the entropy of their byte planes.

zstd's Huffman tables reach it within 2% (docs/compression.md); what matters here is that it is fast and smooth enough
to search with.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def plane_bytes(integers: Tensor, bits: int) -> float:
    """Bytes of the planes of (N, C) integers below 2^`bits`."""
    total_bits = 0.0
    for column in integers.reshape(len(integers), -1).unbind(1):
        for shift in range(0, bits, 8):
            counts = torch.bincount((column >> shift) & 255, minlength=256).double()
            shares = counts[counts > 0] / counts.sum()
            total_bits += float(-(shares * shares.log2()).sum()) * len(column)
    return total_bits / 8


def morton_bytes(n: int, bits: int) -> float:
    """Bytes of `n` positions with `bits` an axis as differences of sorted Morton codes.

    Sorting saves log2(n!) of the 3 n `bits`, n log2(n) - 1.44 n; byte planes give about half a bit of that back.
    """
    return n * max(3 * bits - math.log2(max(n, 2)) + 1.44 + 0.5, 1.0) / 8
