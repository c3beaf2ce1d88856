"""Sub-vector quantisation: attributes as indices into small tables found by k-means.

k-means starts as k-means++ does (each next centre drawn with a probability proportional to the squared distance to the
nearest centre so far; above `EXACT_START` centres, on a sample in rounds, as k-means|| does), runs Lloyd's iteration,
and gives an empty cluster the point that is worst represented. Distances are computed in blocks, so that memory does
not grow with points times centres. Deterministic for a seed on one device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_NUMBERS = 1 << 24
"""Distances held at once."""
MOST_POINTS, POINTS_A_CLUSTER = 1 << 14, 8
"""Centres are found on a sample of so many points, or so many a cluster; all points are assigned."""
EXACT_START = 32
"""Centres up to which k-means++ draws them one by one."""


def nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Index (N,) of the nearest of `centres` (K, d) for each of `points` (N, d), and the squared distance (N,)."""
    indices, distances = [], []
    half_norms = 0.5 * (centres * centres).sum(dim=1)
    block = max(BLOCK_NUMBERS // max(len(centres), 1), 1)
    for part in points.split(block):
        score = torch.addmm(half_norms, part, centres.T, beta=1.0, alpha=-1.0)
        best = score.min(dim=1)
        indices.append(best.indices)
        distances.append((2 * best.values + (part * part).sum(dim=1)).clamp_min(0))
    return torch.cat(indices), torch.cat(distances)


def kmeans(
    points: Tensor, n_clusters: int, *, iterations: int = 10, weights: Tensor | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Centres (K, d) and index (N,) int64 of each point's centre; K is `n_clusters`, or the number of distinct points
    if smaller.

    points: (N, d) float on any device. weights: (N,) non-negative importance of each point, all 1 by default.
    """
    points = points.detach().float()
    weights = torch.ones(len(points), device=points.device) if weights is None else weights.detach().float()
    every, most = points, max(MOST_POINTS, POINTS_A_CLUSTER * n_clusters)
    generator = torch.Generator(points.device).manual_seed(seed)
    if _n_distinct(points, generator) <= n_clusters:
        distinct = torch.unique(points, dim=0)
        return distinct, nearest(points, distinct)[0]
    if len(points) > most:
        chosen = torch.randint(len(points), (most,), generator=generator, device=points.device)
        points, weights = points[chosen], weights[chosen]
    centres = _start(points, weights, n_clusters, generator)
    for _ in range(iterations):
        indices, distances = nearest(points, centres)
        centres = _means(points, weights, indices, centres, distances)
    return centres, nearest(every, centres)[0]


def _n_distinct(points: Tensor, generator: torch.Generator) -> int:
    """How many different points there are, by a random 64-bit hash of their bits: sorting whole rows takes longer than
    the k-means.
    """
    factors = torch.randint(-(2**62), 2**62, (points.shape[1],), generator=generator, device=points.device)
    return len(torch.unique((points.view(torch.int32).long() * factors).sum(dim=1)))


def _means(points: Tensor, weights: Tensor, indices: Tensor, centres: Tensor, distances: Tensor) -> Tensor:
    totals = _sums(weights, indices, len(centres))
    sums = _sums(points * weights[:, None], indices, len(centres))
    moved = torch.where(totals[:, None] > 0, sums / totals.clamp_min(1e-30)[:, None], centres)
    empty = torch.nonzero(totals == 0)[:, 0]
    if len(empty):
        worst = torch.topk(distances * weights, min(len(empty), len(points))).indices
        moved[empty[: len(worst)]] = points[worst]
    return moved


def _sums(values: Tensor, indices: Tensor, n: int) -> Tensor:
    """(n, ...) sums of the rows of `values` (N, ...) by their index (N,), in an order that does not change."""
    sums = values.new_zeros(n, *values.shape[1:])
    if values.is_cuda:
        # index_add_ adds in the order in which threads arrive there; accumulating index_put_ sorts first.
        return sums.index_put_((indices,), values, accumulate=True)
    return sums.index_add_(0, indices, values)


def _start(points: Tensor, weights: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """First centres (K, d) drawn by squared distance."""
    n_first = min(n_clusters, EXACT_START)
    chosen = [_draw(weights, 1, generator)]
    _, distances = nearest(points, points[chosen[0]])
    while len(chosen) < n_first:
        chosen.append(_draw(distances * weights, 1, generator))
        distances = torch.minimum(distances, nearest(points, points[chosen[-1]])[1])
    picked = torch.cat(chosen)
    while len(picked) < n_clusters:
        more = _draw(distances * weights, min(n_clusters - len(picked), len(picked)), generator)
        picked = torch.cat([picked, more])
        distances = torch.minimum(distances, nearest(points, points[more])[1])
    return points[picked]


def _draw(chances: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` different positions, drawn with the given chances; positions without any chance only when nothing else
    is left.

    The Gumbel trick: the largest of log(chance) + noise are a sample without replacement, for any number of points.
    """
    uniform = torch.rand(len(chances), generator=generator, device=chances.device).clamp_min(1e-20)
    keys = torch.log(chances.clamp_min(1e-30)) - torch.log(-torch.log(uniform))
    return torch.topk(keys, count).indices


@dataclass(frozen=True)
class SubVectors:
    """An attribute (N, C) cut into consecutive sub-vectors, each an index into its own codebook."""

    codebooks: tuple[Tensor, ...]
    """(K, d) each; the d add up to C."""
    indices: Tensor
    """(N, number of codebooks) int64."""

    def values(self) -> Tensor:
        """The attribute (N, C) that the indices stand for; differentiable in the codebooks."""
        # index_select adds gradients where they belong; indexing with brackets sorts them first.
        parts = [book.index_select(0, self.indices[:, i]) for i, book in enumerate(self.codebooks)]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def quantise_sub_vectors(
    values: Tensor,
    widths: tuple[int, ...],
    n_entries: tuple[int, ...],
    *,
    weights: Tensor | None = None,
    iterations: int = 10,
    seed: int = 0,
) -> SubVectors:
    """k-means of each sub-vector of `values` (N, C); `widths` add up to C, `n_entries` are the sizes of the
    codebooks.
    """
    if sum(widths) != values.shape[1] or len(widths) != len(n_entries):
        raise ValueError(f"widths must add up to {values.shape[1]} and match n_entries, got {widths} and {n_entries}.")
    books, indices = [], []
    for i, (part, size) in enumerate(zip(values.split(widths, dim=1), n_entries, strict=True)):
        book, index = kmeans(part, size, iterations=iterations, weights=weights, seed=seed + i)
        books.append(book)
        indices.append(index)
    return SubVectors(tuple(books), torch.stack(indices, dim=1))
