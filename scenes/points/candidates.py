"""Points on their way from depth maps to a point cloud."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.scenes.points.rig import Rig
from kinosplat.scenes.scene import PointCloud, Scene

PRIMES = (83492791, 73856093 * 2**20 + 7, 19349663 * 2**24 + 43, 50331653 * 2**28 + 9)
"""Large odd factors that spread cells over 64 bits."""
LEAST_SUPPORT = 2
"""Points that must fall into a cell for it to count."""


@dataclass(frozen=True)
class Candidates:
    """Points with what is needed to choose among them, on the device they were found on."""

    positions: Tensor
    """(P, 3) float32, scene coordinates."""
    colors: Tensor
    """(P, 3) float32 in [0, 1]."""
    sizes: Tensor
    """(P,) float32 width of a pixel at the point, in scene units."""

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, chosen: Tensor) -> Candidates:
        return Candidates(self.positions[chosen], self.colors[chosen], self.sizes[chosen])

    def drawn(self, n_points: int, seed: int) -> Candidates:
        """At most `n_points` of them, drawn evenly."""
        if len(self) <= n_points:
            return self
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self[order[:n_points].sort().values.to(self.positions.device)]

    def merged(self, n_points: int, seed: int) -> Candidates:
        """Averages over cells about as large as a pixel (rounded to a power of two), and of these at most `n_points`.

        Cells with one point only are dropped: a surface is found in several views, a mismatch in one. Those with more
        points are drawn more often.
        """
        if len(self) == 0:
            return self
        level = self.sizes.log2().round()
        places = torch.floor((self.positions - self.positions.amin(dim=0)) / level.exp2()[:, None]).long()
        # One number a cell (Teschner et al. 2003), since unique rows are slow; two cells in a billion may share it.
        primes = torch.tensor(PRIMES, device=places.device)
        hashed = (torch.cat([level.long()[:, None], places], dim=1) * primes).sum(dim=1)
        _, group = torch.unique(hashed, return_inverse=True)
        n_groups = int(group.max()) + 1
        count = torch.bincount(group, minlength=n_groups).float()
        kept = (count >= LEAST_SUPPORT).nonzero()[:, 0]
        if len(kept) > n_points:
            # The n largest of log(u) / weight are a draw without replacement (Efraimidis and Spirakis 2006).
            uniform = torch.rand(len(kept), generator=torch.Generator().manual_seed(seed)).to(kept.device)
            kept = kept[(uniform.clamp(min=1e-9).log() / count[kept]).topk(n_points).indices.sort().values]
        values = torch.cat([self.positions, self.colors, self.sizes[:, None]], dim=1)
        sums = torch.zeros(n_groups, 7, device=group.device).index_add_(0, group, values)
        mean = (sums / count[:, None])[kept]
        return Candidates(mean[:, :3], mean[:, 3:6], mean[:, 6])


def joined(parts: Sequence[Candidates]) -> Candidates:
    """All points of all parts."""
    return Candidates(
        torch.cat([part.positions for part in parts]),
        torch.cat([part.colors for part in parts]),
        torch.cat([part.sizes for part in parts]),
    )


def no_candidates(device: torch.device) -> Candidates:
    """No points."""
    return Candidates(torch.zeros(0, 3, device=device), torch.zeros(0, 3, device=device), torch.zeros(0, device=device))


def lifted(rig: Rig, inverse_depth: Tensor, chosen: Tensor) -> Candidates:
    """The chosen pixels (V, H, W) of pictures with 1/depth (V, H, W)."""
    depth = 1 / inverse_depth.clamp(min=1e-9)
    positions = [rig.unproject(view, depth[view])[chosen[view]] for view in range(len(chosen))]
    return Candidates(torch.cat(positions), rig.images[chosen], (depth / rig.K[:, 0, 0, None, None])[chosen])


def as_cloud(parts: Sequence[Candidates], times: Sequence[float | None], scene: Scene) -> PointCloud:
    """One cloud of points seen at `times`, for the time to the next; those without a time hold for the whole clip."""
    positions = torch.cat([part.positions for part in parts]).float().cpu()
    colors = (torch.cat([part.colors for part in parts]).clamp(0, 1) * 255).round().byte().cpu()
    if all(time is None for time in times):
        return PointCloud(positions, colors)
    middle = 0.5 * (scene.times[0] + scene.times[-1])
    spacing = scene.duration / max(len({time for time in times if time is not None}), 1)
    n_each = torch.tensor([len(part) for part in parts])
    at = torch.tensor([middle if time is None else time for time in times])
    lasting = torch.tensor([torch.inf if time is None else spacing for time in times])
    return PointCloud(positions, colors, at.repeat_interleave(n_each), lasting.repeat_interleave(n_each))
