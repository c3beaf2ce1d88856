"""k-means finds clusters that are there, is repeatable, and never leaves a centre without points."""

from __future__ import annotations

import pytest
import torch

from kinosplat.compression import svq
from kinosplat.compression.svq import kmeans, nearest, quantise_sub_vectors


def blobs(n_blobs: int, n_each: int, spread: float = 0.01) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres (B, 4), and points (B * n, 4) around them."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(n_blobs, 4, generator=generator)
    points = centres.repeat_interleave(n_each, dim=0)
    return centres, points + spread * torch.randn(points.shape, generator=generator)


def test_well_separated_clusters_are_found() -> None:
    centres, points = blobs(20, 50)
    found, indices = kmeans(points, 20, seed=1)
    assert nearest(centres, found)[1].max() < 1e-3  # one run of k-means++ finds all 20: measured 2e-5
    assert (indices.reshape(20, 50) == indices.reshape(20, 50)[:, :1]).all()


def test_the_same_seed_gives_the_same_codebook() -> None:
    _, points = blobs(30, 40, spread=1.0)
    first, second, other = (kmeans(points, 64, seed=seed)[0] for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_every_centre_has_points_and_the_error_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    _, points = blobs(10, 100, spread=1.0)
    errors = []
    for iterations in (0, 1, 10):
        centres, indices = kmeans(points, 300, iterations=iterations, seed=0)
        errors.append(((points - centres[indices]) ** 2).sum().item())
        assert len(indices.unique()) == 300
    assert errors[0] > errors[1] > errors[2]
    monkeypatch.setattr(svq, "BLOCK_NUMBERS", 1000)
    blocked, _ = kmeans(points, 300, iterations=10, seed=0)
    assert torch.allclose(blocked, centres, atol=1e-4)  # blocks only change the order of sums: measured 0


def test_few_distinct_points_are_kept_as_they_are() -> None:
    points = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    centres, indices = kmeans(points, 8)
    assert torch.equal(centres[indices], points)
    assert len(centres) == 2


def test_weights_draw_centres_to_what_matters() -> None:
    points = torch.cat([torch.zeros(100, 1), torch.linspace(1, 2, 100)[:, None]])
    weights = torch.cat([torch.full((100,), 1e-6), torch.ones(100)])
    light, _ = kmeans(points, 4, weights=weights, iterations=20)
    assert (light > 0.5).sum() >= 3


def test_sub_vectors_add_up_to_the_attribute() -> None:
    _, points = blobs(20, 20)
    result = quantise_sub_vectors(points, (1, 3), (16, 40))
    assert [tuple(book.shape) for book in result.codebooks] == [(16, 1), (40, 3)]
    assert result.values().shape == points.shape
    assert (result.values() - points).abs().mean() < 0.1  # 16 levels for the first number: measured 0.03
    with pytest.raises(ValueError, match="widths must add up to 4"):
        quantise_sub_vectors(points, (1, 2), (16, 40))


def test_codebooks_can_be_tuned_through_their_indices() -> None:
    _, points = blobs(5, 20)
    result = quantise_sub_vectors(points, (2, 2), (4, 4))
    books = tuple(book.clone().requires_grad_() for book in result.codebooks)
    svq.SubVectors(books, result.indices).values().sum().backward()
    assert books[0].grad is not None
    assert torch.equal(books[0].grad[:, 0], torch.bincount(result.indices[:, 0], minlength=4).float())
