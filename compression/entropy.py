"""How many bytes integers will take in a .kino file, without writing one: the entropy of their byte planes.

zstd's Huffman codes reach it within 2% (docs/compression.md), beside their tables and the frames around them, which
count in small files; what matters here is that it is fast and smooth enough to search with.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kinosplat.compression.kino.layout import PACKED_BITS

FRAME_BYTES = 16.0
"""Of a plane's length, its zstd frame and the head of its block."""
SYMBOL_BYTES = 0.35
"""Of each different byte in the Huffman table of a plane."""


def plane_bytes(integers: Tensor, bits: int) -> float:
    """Bytes of the planes of (N, C) integers below 2^`bits`, in pairs where two fit into a byte."""
    total = torch.zeros((), dtype=torch.float64, device=integers.device)
    n_planes = 0
    if bits <= PACKED_BITS and integers.ndim == 2 and integers.shape[1] > 1:
        odd = integers[:, 1::2]
        even = integers[:, 0::2].clone()
        even[:, : odd.shape[1]] += odd << PACKED_BITS
        integers, bits = even, 8
    for column in integers.reshape(len(integers), -1).unbind(1):
        for shift in range(0, bits, 8):
            counts = torch.bincount((column >> shift) & 255, minlength=256).double()
            coded = torch.special.entr(counts / len(column)).sum() * len(column) / (8 * math.log(2.0))
            # A plane that its code does not make smaller is stored as it is.
            total += (coded + SYMBOL_BYTES * (counts > 0).sum()).clamp_max(len(column))
            n_planes += 1
    return float(total) + FRAME_BYTES * n_planes


def morton_bytes(n: int, bits: int) -> float:
    """Bytes of `n` positions with `bits` an axis as differences of sorted Morton codes.

    Sorting saves log2(n!) of the 3 n `bits`, n log2(n) - 1.44 n; byte planes give about half a bit of that back.
    """
    n_planes = -(-3 * bits // 8)
    return n * max(3 * bits - math.log2(max(n, 2)) + 1.44 + 0.5, 1.0) / 8 + FRAME_BYTES * n_planes
