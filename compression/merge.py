"""Replaces clusters of near-identical neighbours by one Gaussian each.

Space and time are cut into cells; in each cell the most important Gaussian gathers all whose similarity
-|dx|^2 - 4 |d dc|^2, on positions and colours normalised to the cell size and to the spread of colours, is above a
threshold; what is left over gathers again, for a few rounds. A cluster becomes the weighted mean of its members with
weights that are learned (OMG4, 2025). Sampling to the same number measured better (docs/compression.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kinosplat.render.gaussians import Gaussians

ROUNDS = 3
COLOR_WEIGHT = 4.0


@dataclass(frozen=True)
class Clusters:
    """Which Gaussians become one."""

    cluster: Tensor
    """(N,) int64 cluster of each Gaussian, 0 to M - 1."""
    n_clusters: int
    """M."""


def cluster_cells(
    gaussians: Gaussians, importance: Tensor, *, cell_size: float, cell_duration: float, threshold: float
) -> Clusters:
    """Clusters within cells of `cell_size` world units and `cell_duration` seconds (0: time makes no cells).

    threshold: similarity, at most 0, that a member needs to the most important one; -1 accepts a distance of one cell.
    """
    n = len(gaussians)
    origin = gaussians.means.amin(dim=0)
    cells = ((gaussians.means - origin) / cell_size).floor().long()
    columns = [cells]
    if gaussians.time_centres is not None and gaussians.log_durations is not None and cell_duration > 0:
        still = torch.isposinf(gaussians.log_durations)
        columns.append(torch.where(still, -1, (gaussians.time_centres / cell_duration).floor().long())[:, None])
        # Gaussians of very different lifetimes are never alike: one factor of two is one cell.
        octave = torch.where(still, 0.0, gaussians.log_durations / 0.6931).floor().long()
        columns.append(torch.where(still, 10**6, octave)[:, None])
    cell = torch.unique(torch.cat(columns, dim=1), dim=0, return_inverse=True)[1]
    spread = gaussians.sh_dc.std(dim=0).clamp_min(1e-6)
    cluster = torch.full((n,), -1, dtype=torch.int64, device=gaussians.device)
    n_clusters = 0
    left = torch.arange(n, device=gaussians.device)
    for _ in range(ROUNDS):
        if len(left) == 0:
            break
        _, local = torch.unique(cell[left], return_inverse=True)
        leader = left[_argmax_by_group(importance[left], local)]
        toward = leader[local]
        distance = ((gaussians.means[left] - gaussians.means[toward]) / cell_size).square().sum(dim=1)
        color = ((gaussians.sh_dc[left] - gaussians.sh_dc[toward]) / spread).square().sum(dim=1)
        joins = (-distance - COLOR_WEIGHT * color >= threshold) | (left == toward)
        cluster[left[joins]] = n_clusters + local[joins]
        n_clusters += len(leader)
        left = left[~joins]
    cluster[left] = n_clusters + torch.arange(len(left), device=left.device)
    return Clusters(cluster, n_clusters + len(left))


def _argmax_by_group(values: Tensor, group: Tensor) -> Tensor:
    """Position (G,) of the largest of `values` (n,) in each group (n,) numbered 0 to G - 1."""
    order = torch.argsort(values, descending=True, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    grouped = group[order]
    first = torch.ones_like(grouped, dtype=torch.bool)
    first[1:] = grouped[1:] != grouped[:-1]
    return order[first]


class MergingGaussians:
    """A `Tunable` whose leaves are the mixing weights; `gaussians` has one Gaussian a cluster."""

    def __init__(self, gaussians: Gaussians, clusters: Clusters, importance: Tensor, rate: float = 0.02) -> None:
        self._gaussians = _aligned(gaussians.detach(), clusters, importance)
        self._clusters = clusters
        self._weights = torch.log(importance.clamp_min(1e-12)).clamp(-10, 10).clone().requires_grad_()
        self._rate = rate

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Logarithms of the mixing weights (N,)."""
        return {"mixing": self._weights}

    @property
    def rates(self) -> dict[str, float]:
        """One rate."""
        return {"mixing": self._rate}

    def gaussians(self) -> Gaussians:
        """The merged set (M)."""
        cluster, m = self._clusters.cluster, self._clusters.n_clusters
        largest = torch.full((m,), -torch.inf, device=cluster.device)
        largest = largest.scatter_reduce(0, cluster, self._weights.detach(), "amax")
        powers = torch.exp(self._weights - largest[cluster])
        shares = powers / torch.zeros(m, device=cluster.device).index_add(0, cluster, powers)[cluster]
        merged = {name: self._mix(tensor, shares) for name, tensor in self._gaussians.parameters().items()}
        merged["quats"] = torch.nn.functional.normalize(merged["quats"], dim=1)
        return Gaussians(**merged)

    def _mix(self, tensor: Tensor, shares: Tensor) -> Tensor:
        cluster, m = self._clusters.cluster, self._clusters.n_clusters
        # Infinite log-durations are alike within a cluster (their cells say so); 0 * inf must not become NaN.
        finite = torch.nan_to_num(tensor, posinf=1e4)
        weighted = finite * shares.reshape(-1, *[1] * (tensor.ndim - 1))
        mixed = torch.zeros(m, *tensor.shape[1:], device=tensor.device).index_add(0, cluster, weighted)
        return torch.where(mixed > 9e3, torch.inf, mixed) if torch.isposinf(tensor).any() else mixed


def _aligned(gaussians: Gaussians, clusters: Clusters, importance: Tensor) -> Gaussians:
    """Quaternions with the sign that agrees with their cluster's most important member."""
    leader = _argmax_by_group(importance, clusters.cluster)[clusters.cluster]
    agree = (gaussians.quats * gaussians.quats[leader]).sum(dim=1, keepdim=True)
    return replace(gaussians, quats=torch.where(agree < 0, -gaussians.quats, gaussians.quats))
