"""View-dependent colour by palette: SH vectors of degree 1 and up as indices into one table, found by k-means weighted
by importance.

Also offers the table in pieces (one a degree), which costs more index bits and fewer table bytes. `appearance_options`
returns several sizes, from which `bits` picks what loses least for its bytes.
"""

from __future__ import annotations

from torch import Tensor

from kinosplat.compression.entropy import plane_bytes
from kinosplat.compression.svq import SubVectors, quantise_sub_vectors
from kinosplat.render.gaussians import Gaussians

PALETTE_SIZES = (1, 16, 64, 256, 1024, 4096)
PIECE_SIZES = (64, 256, 1024)
LEAST_MEMBERS = 8
"""Gaussians there must be for each entry, or the table outweighs what it saves."""
RANGE_BYTES = 20
"""Of the minimum and the step of a column of a table, as the header spells them."""
WIDTHS = {3: (9,), 8: (9, 15), 15: (9, 15, 21)}
"""Numbers of each degree for 3, 8 and 15 coefficients."""


def appearance_options(gaussians: Gaussians, importance: Tensor, seed: int) -> list[SubVectors]:
    """Palettes of increasing size for `sh_rest` flattened to (N, 3 K)."""
    n, n_coefficients = gaussians.sh_rest.shape[:2]
    values = gaussians.sh_rest.detach().reshape(n, -1)
    weights = importance / importance.mean().clamp_min(1e-30) + 0.01
    widths = WIDTHS[n_coefficients]
    options = []
    for size in PALETTE_SIZES:
        if size == 1 or size * LEAST_MEMBERS <= n:
            options.append(quantise_sub_vectors(values, (sum(widths),), (size,), weights=weights, seed=seed))
    for size in PIECE_SIZES:
        if len(widths) > 1 and size * LEAST_MEMBERS <= n:
            sizes = (size,) * len(widths)
            options.append(quantise_sub_vectors(values, widths, sizes, weights=weights, seed=seed))
    return options


def palette_bytes(palette: SubVectors, table_bits: int) -> float:
    """Bytes of indices and tables in a file, tables at nine tenths of their raw size as zstd leaves them, with the
    ranges of their columns.
    """
    tables = sum(book.numel() for book in palette.codebooks) * table_bits / 8
    ranges = sum(book.shape[1] for book in palette.codebooks) * RANGE_BYTES
    indices = sum(
        plane_bytes(palette.indices[:, i], max((len(book) - 1).bit_length(), 1))
        for i, book in enumerate(palette.codebooks)
    )
    return 0.9 * tables + ranges + indices
