"""A hash grid's table of which only some entries are kept, in the form that encoding reads and that files hold.

For each block of 256 entries the index is a bitmap or a list of coordinates, whichever is smaller, or nothing where all
or none are kept (RT-NeRF, Li et al. 2022, chooses between the two codings by sparsity). Entries not kept read as zeros.
cuda/math/sparse_table.h finds entries in it; docs/format.md says how it is stored. An index out of a file is looked
through before it is believed: ValueError where its parts do not fit together.
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
BITMAP_BYTES = 4 * BITMAP_WORDS
MOST_LISTED = 4 * (BITMAP_WORDS - 1)
"""Entries of a block that are listed at most."""


@dataclass(frozen=True)
class SparseIndex:
    """Which entries of a table are kept."""

    headers: Tensor
    """(n_blocks + 1, 2) int32: the first kept entry of each block and the first word of its index."""
    words: Tensor
    """(W,) int32 indices of the blocks, one behind the other."""
    n_entries: int
    """Entries of the whole table."""

    def to(self, device: torch.device) -> SparseIndex:
        """The same on `device`."""
        return SparseIndex(self.headers.to(device), self.words.to(device), self.n_entries)

    @property
    def n_bytes(self) -> int:
        """Bytes that say which entries are kept."""
        return 4 * (self.headers.numel() + self.words.numel())

    @property
    def counts(self) -> Tensor:
        """(n_blocks,) int64 entries kept of each block."""
        return self.headers.long().diff(dim=0)[:, 0]

    @property
    def places(self) -> Tensor:
        """(4 W,) uint8, the words as bytes; with `counts` all there is to store."""
        return self.words.view(torch.uint8)

    def kept(self) -> Tensor:
        """(n_entries,) bool: which entries are kept, unpacked."""
        blocks = torch.arange(len(self.headers) - 1, device=self.headers.device)
        return self._unpacked(blocks).flatten()[: self.n_entries]

    def n_before(self, entries: Tensor) -> Tensor:
        """(M,) int64: how many entries are kept before each of (M,) int64 ones, from 0 to n_entries."""
        blocks, place = entries // BLOCK, entries % BLOCK
        before = torch.arange(BLOCK, device=entries.device) < place[:, None]
        unpacked = self._unpacked(blocks.clamp_max(len(self.headers) - 2))
        return self.headers[blocks, 0].long() + (unpacked & before).sum(dim=1)

    def _unpacked(self, blocks: Tensor) -> Tensor:
        """(M, 256) bool of (M,) blocks."""
        counts, first_byte, n_words = self._described(blocks)
        bits = (counts == BLOCK)[:, None].repeat(1, BLOCK)
        has_bitmap = n_words == BITMAP_WORDS
        shifts = torch.arange(8, dtype=torch.uint8, device=blocks.device)
        bits[has_bitmap] = (self._bitmaps(first_byte[has_bitmap])[..., None] >> shifts & 1).bool().view(-1, BLOCK)
        listed = ((n_words > 0) & ~has_bitmap).nonzero()[:, 0]
        places, inside = self._lists(first_byte[listed], counts[listed])
        bits[listed[:, None].expand_as(inside)[inside], places[inside].long()] = True
        return bits

    def _described(self, blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Entries kept, first byte and words of the index (M,) of blocks."""
        headers, ends = self.headers[blocks].long(), self.headers[blocks + 1].long()
        return ends[:, 0] - headers[:, 0], 4 * headers[:, 1], ends[:, 1] - headers[:, 1]

    def _bitmaps(self, first_byte: Tensor) -> Tensor:
        """(M, 32) uint8."""
        return self.places[first_byte[:, None] + torch.arange(BITMAP_BYTES, device=first_byte.device)]

    def _lists(self, first_byte: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """(M, 28) uint8 places, and which of them are meant; the others repeat the last one."""
        rank = torch.arange(MOST_LISTED, device=counts.device)
        places = self.places[first_byte[:, None] + torch.minimum(rank, counts[:, None] - 1)]
        return places, rank < counts[:, None]


@dataclass(frozen=True)
class SparseTable:
    """The kept entries of a table and which they are."""

    values: Tensor
    """(n_kept, F) kept entries in order."""
    index: SparseIndex
    """Which they are."""

    @property
    def n_kept(self) -> int:
        """Entries kept."""
        return self.values.shape[0]

    @property
    def n_bytes(self) -> int:
        """Bytes of everything."""
        return self.values.numel() * self.values.element_size() + self.index.n_bytes

    def whole(self) -> Tensor:
        """(n_entries, F) the table with zeros in it."""
        table = self.values.new_zeros(self.index.n_entries, self.values.shape[1])
        table[self.index.kept()] = self.values
        return table


def sparse_table(table: Tensor, keep: Tensor) -> SparseTable:
    """Keep the entries of `table` (n_entries, F) that `keep` (n_entries,) bool names."""
    if keep.shape != table.shape[:1] or keep.dtype != torch.bool:
        raise InputError(f"keep must be {len(table)} bools, got {tuple(keep.shape)} of {keep.dtype}.")
    return SparseTable(table[keep].contiguous(), sparse_index(keep))


def sparse_index(keep: Tensor) -> SparseIndex:
    """The index of the entries that `keep` (n_entries,) bool names."""
    n_blocks = -(-len(keep) // BLOCK)
    bits = torch.nn.functional.pad(keep, (0, n_blocks * BLOCK - len(keep))).view(n_blocks, BLOCK)
    counts = bits.sum(dim=1)
    headers = _headers(counts)
    first_byte, n_words = 4 * headers[:-1, 1], headers.diff(dim=0)[:, 1]
    places = torch.zeros(4 * int(headers[-1, 1]), dtype=torch.uint8, device=keep.device)
    has_bitmap = n_words == BITMAP_WORDS
    powers = 2 ** torch.arange(8, dtype=torch.uint8, device=keep.device)
    bitmaps = (bits[has_bitmap].view(-1, BITMAP_BYTES, 8).to(torch.uint8) * powers).sum(dim=2, dtype=torch.uint8)
    places[first_byte[has_bitmap, None] + torch.arange(BITMAP_BYTES, device=keep.device)] = bitmaps

    listed = (n_words > 0) & ~has_bitmap
    of_block = bits[listed].nonzero()[:, 1]
    count = counts[listed]
    rank = torch.arange(MOST_LISTED, device=keep.device)
    # The last place is repeated to the end of its word.
    source = (count.cumsum(0) - count)[:, None] + torch.minimum(rank, count[:, None] - 1)
    inside = rank < 4 * n_words[listed, None]
    places[(first_byte[listed, None] + rank)[inside]] = of_block[source[inside]].to(torch.uint8)
    return SparseIndex(headers.to(torch.int32), places.view(torch.int32), len(keep))


def stored_index(counts: Tensor, places: Tensor, n_entries: int) -> SparseIndex:
    """The index of which a file holds the counts (n_blocks,) and places (4 W,) uint8."""
    n_blocks = -(-n_entries // BLOCK)
    if counts.shape != (n_blocks,) or counts.is_floating_point() or places.dim() != 1 or places.dtype != torch.uint8:
        raise ValueError("counts or places of entries have the wrong shape or type")
    sizes = (n_entries - BLOCK * torch.arange(n_blocks, device=counts.device)).clamp_max(BLOCK)
    counts = counts.long()
    if ((counts < 0) | (counts > sizes)).any():
        raise ValueError("a block has more entries than there are")
    headers = _headers(counts)
    if len(places) != 4 * int(headers[-1, 1]):
        raise ValueError("places of entries have the wrong length")
    # A copy in fresh memory: aligned, and with a stride that can be viewed even where there is nothing.
    words = places.new_empty(len(places)).copy_(places).view(torch.int32)
    index = SparseIndex(headers.to(torch.int32), words, n_entries)
    if not torch.equal(index._unpacked(torch.arange(n_blocks, device=counts.device)).sum(dim=1), counts):
        raise ValueError("a block has another number of entries than it says")
    if not torch.equal(sparse_index(index.kept()).words, index.words):
        raise ValueError("places of entries are out of order or past the end")
    return index


def _headers(counts: Tensor) -> Tensor:
    """(n_blocks + 1, 2) int64 headers of blocks that keep (n_blocks,) entries."""
    n_words = ((counts + 3) // 4).clamp_max(BITMAP_WORDS).masked_fill(counts == BLOCK, 0)
    headers = torch.zeros(len(counts) + 1, 2, dtype=torch.int64, device=counts.device)
    headers[1:, 0], headers[1:, 1] = counts.cumsum(0), n_words.cumsum(0)
    return headers
