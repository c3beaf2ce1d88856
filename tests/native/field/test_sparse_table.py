"""A sparse table reads like the whole one with zeros in it, whatever its blocks look like."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kinosplat.render.field import native
from kinosplat.render.field.layout import GridLayout
from kinosplat.render.field.sparse_table import sparse_index, sparse_table, stored_index
from native.field.test_encoding import LAYOUTS, positions_with_corners, table_of


def mixed_mask(n: int) -> Tensor:
    """Blocks that are empty, full, just below and above where a bitmap is smaller, and all between."""
    generator = torch.Generator().manual_seed(4)
    n_blocks = -(-n // 256)
    counts = torch.randint(0, 257, (n_blocks,), generator=generator)
    usual = torch.tensor([0, 256, 28, 29, 1, 255, 4, 5])
    counts[: len(usual)] = usual[:n_blocks]
    ranks = torch.rand(n_blocks, 256, generator=generator).argsort(dim=1).argsort(dim=1)
    return (ranks < counts[:, None]).flatten()[:n]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n_features", [1, 2, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_reads_like_the_table_with_zeros(layout: GridLayout, n_features: int, dtype: torch.dtype) -> None:
    layout = GridLayout(**{**vars(layout), "n_features": n_features})
    table, positions = table_of(layout, dtype), positions_with_corners(dtype)
    keep = mixed_mask(layout.n_entries)
    sparse = sparse_table(table, keep)
    zeroed = table * keep[:, None]
    expected = native.encode_forward(positions, zeroed, layout)
    # Measured: equal but for one feature a level, whose sum the compiler orders otherwise: float32 2e-7, float64 4e-16.
    torch.testing.assert_close(
        native.encode_sparse(positions, sparse, layout),
        expected,
        rtol=0,
        atol=1e-14 if dtype == torch.float64 else 2e-6,
    )
    assert torch.equal(sparse.index.kept(), keep)
    assert torch.equal(sparse.whole(), zeroed)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.31, 0.56, 1.0])
def test_the_index_is_the_smaller_of_the_two(share: float) -> None:
    n = 1 << 14
    keep = torch.rand(n, generator=torch.Generator().manual_seed(0)) < share
    sparse = sparse_table(torch.randn(n, 2), keep)
    assert sparse.n_kept == int(keep.sum())
    assert sparse.n_bytes == 8 * sparse.n_kept + sparse.index.n_bytes
    counts = keep.view(-1, 256).sum(dim=1)
    smaller = torch.minimum((counts + 3) // 4 * 4, torch.tensor(32)).masked_fill(counts == 256, 0)
    assert sparse.index.n_bytes == int(smaller.sum()) + 8 * (n // 256 + 1)
    assert sparse.index.n_bytes <= n // 8 + 8 * (n // 256 + 1)


def test_headers_that_lead_nowhere_are_refused() -> None:
    layout = LAYOUTS[0]
    sparse = sparse_table(table_of(layout, torch.float32), mixed_mask(layout.n_entries))
    sparse.index.headers[3, 1] = 1 << 30
    with pytest.raises(ValueError, match="headers must lead to rows and words that are there"):
        native.encode_sparse(torch.rand(2, 3), sparse, layout)
    with pytest.raises(ValueError, match=r"table must have \d+ entries, got \d+"):
        native.encode_sparse(torch.rand(2, 3), sparse, LAYOUTS[1])
    with pytest.raises(ValueError, match="keep must be 10 bools"):
        sparse_table(torch.rand(10, 2), torch.ones(9, dtype=torch.bool))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.12, 0.9, 1.0])
@pytest.mark.parametrize("n", [1000, 1024])
def test_an_index_comes_back_from_its_counts_and_places(share: float, n: int) -> None:
    keep = torch.rand(n, generator=torch.Generator().manual_seed(1)) < share
    index = sparse_index(keep)
    found = stored_index(index.counts, index.places, n)
    assert torch.equal(found.headers, index.headers)
    assert torch.equal(found.words, index.words)
    assert torch.equal(found.kept(), keep)
    entries = torch.tensor([0, 1, 255, 256, 700, n])
    assert found.n_before(entries).tolist() == [int(keep[:entry].sum()) for entry in entries]


def test_an_index_that_makes_no_sense_is_refused() -> None:
    n = 1000
    index = sparse_index(torch.rand(n, generator=torch.Generator().manual_seed(1)) < 0.05)
    counts, places = index.counts, index.places
    with pytest.raises(ValueError, match="wrong length"):
        stored_index(counts, places[:-1], n)
    with pytest.raises(ValueError, match="more entries than there are"):
        stored_index(counts + 300, places, n)
    for wrong in ((counts, places, 2000), (counts.double(), places, n), (counts, places.int(), n)):
        with pytest.raises(ValueError, match="wrong shape or type"):
            stored_index(*wrong)
    twice = places.clone()
    twice[1] = twice[0]
    with pytest.raises(ValueError, match="another number of entries"):
        stored_index(counts, twice, n)
    swapped = places.clone()
    swapped[:2] = places[:2].flip(0)
    past_the_end = places.clone()
    past_the_end[-4:] = 255
    for damaged in (swapped, past_the_end):
        with pytest.raises(ValueError, match=r"out of order or past the end|another number of entries"):
            stored_index(counts, damaged, n)
