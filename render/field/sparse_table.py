"""A hash grid's table of which only some entries are kept, in the form that encoding reads (cuda/math/sparse_table.h).

For each block of 256 entries the index is a bitmap or a list of coordinates, whichever is smaller, or nothing where all
or none are kept (RT-NeRF, Li et al. 2022, chooses between the two codings by sparsity). Entries not kept read as zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.errors import InputError

BLOCK = 256
"""Entries that share a header; places within a block are bytes."""
BITMAP_WORDS = BLOCK // 32
"""Words of a bitmap; coordinates are used where they take fewer."""


@dataclass(frozen=True)
class SparseTable:
    """The kept entries of a table and which they are."""

    values: Tensor
    """(n_kept, F) kept entries in order."""
    headers: Tensor
    """(n_blocks + 1, 2) int32: the first kept entry of each block and the first word of its index."""
    words: Tensor
    """(W,) int32 indices of the blocks, one behind the other."""
    n_entries: int
    """Entries of the whole table."""

    @property
    def n_kept(self) -> int:
        """Entries kept."""
        return self.values.shape[0]

    @property
    def index_bytes(self) -> int:
        """Bytes that say which entries are kept."""
        return 4 * (self.headers.numel() + self.words.numel())

    @property
    def n_bytes(self) -> int:
        """Bytes of everything."""
        return self.values.numel() * self.values.element_size() + self.index_bytes

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> SparseTable:
        """The same on `device`, its values in `dtype`."""
        return SparseTable(
            self.values.to(device, dtype), self.headers.to(device), self.words.to(device), self.n_entries
        )


def sparse_table(table: Tensor, keep: Tensor) -> SparseTable:
    """Keep the entries of `table` (n_entries, F) that `keep` (n_entries,) bool names."""
    if keep.shape != table.shape[:1] or keep.dtype != torch.bool:
        raise InputError(f"keep must be {len(table)} bools, got {tuple(keep.shape)} of {keep.dtype}.")
    n_blocks = -(-len(table) // BLOCK)
    bits = torch.nn.functional.pad(keep, (0, n_blocks * BLOCK - len(table))).view(n_blocks, BLOCK)
    counts = bits.sum(dim=1)
    n_words = ((counts + 3) // 4).clamp_max(BITMAP_WORDS).masked_fill(counts == BLOCK, 0)
    headers = torch.zeros(n_blocks + 1, 2, dtype=torch.int64, device=table.device)
    headers[1:, 0], headers[1:, 1] = counts.cumsum(0), n_words.cumsum(0)

    index = torch.zeros(4 * int(headers[-1, 1]), dtype=torch.uint8, device=table.device)
    first_byte = 4 * headers[:-1, 1]
    has_bitmap = n_words == BITMAP_WORDS
    powers = 2 ** torch.arange(8, dtype=torch.uint8, device=table.device)
    bitmaps = (bits[has_bitmap].view(-1, BLOCK // 8, 8).to(torch.uint8) * powers).sum(dim=2, dtype=torch.uint8)
    index[first_byte[has_bitmap, None] + torch.arange(BLOCK // 8, device=table.device)] = bitmaps

    listed = (n_words > 0) & ~has_bitmap
    places = bits[listed].nonzero()[:, 1]
    count = counts[listed]
    rank = torch.arange(4 * (BITMAP_WORDS - 1), device=table.device)
    # The last place is repeated to the end of its word.
    source = (count.cumsum(0) - count)[:, None] + torch.minimum(rank, count[:, None] - 1)
    inside = rank < 4 * n_words[listed, None]
    index[(first_byte[listed, None] + rank)[inside]] = places[source[inside]].to(torch.uint8)
    return SparseTable(table[keep].contiguous(), headers.to(torch.int32), index.view(torch.int32), len(table))


def kept_entries(sparse: SparseTable) -> Tensor:
    """(n_entries,) bool: which entries are kept, unpacked."""
    headers = sparse.headers.long()
    counts, first_byte = headers.diff(dim=0)[:, 0], 4 * headers[:-1, 1]
    words = headers.diff(dim=0)[:, 1]
    bits = (counts == BLOCK)[:, None].repeat(1, BLOCK)
    index = sparse.words.view(torch.uint8)
    has_bitmap = words == BITMAP_WORDS
    shifts = torch.arange(8, dtype=torch.uint8, device=index.device)
    bitmaps = index[first_byte[has_bitmap, None] + torch.arange(BLOCK // 8, device=index.device)]
    bits[has_bitmap] = (bitmaps[..., None] >> shifts & 1).bool().view(-1, BLOCK)
    listed = ((words > 0) & ~has_bitmap).nonzero()[:, 0]
    rank = torch.arange(4 * (BITMAP_WORDS - 1), device=index.device)
    inside = rank < counts[listed, None]
    places = index[(first_byte[listed, None] + rank)[inside]].long()
    bits[listed[:, None].expand_as(inside)[inside], places] = True
    return bits.flatten()[: sparse.n_entries]
