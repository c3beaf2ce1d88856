"""The first Gaussians, made from first points."""

from __future__ import annotations

import torch
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians
from kinosplat.scenes import PointCloud
from kinosplat.trainers.draws import generator
from kinosplat.trainers.methods.config import GaussianConfig, TimeConfig

SH_BASIS_0 = 0.28209479177387814
"""Value of the spherical harmonic of degree 0, 1 / (2 sqrt(pi))."""
N_NEIGHBOURS = 3
"""A first Gaussian is as large as the mean distance to so many neighbours (Kerbl et al. 2023)."""
SMALLEST_SPACING = 1e-4
"""Distances are taken as at least this many scene radii, for points that coincide."""
LARGEST_SPACING = 0.1
"""And at most this many, for points that stand alone."""


def thin(points: PointCloud, n: int, seed: int) -> PointCloud:
    """At most `n` of the points, drawn without replacement."""
    if len(points) <= n:
        return points
    chosen = torch.randperm(len(points), generator=generator(seed, 0, "thin"))[:n].sort().values
    return points.subset(chosen)


def spacing(positions: Tensor, times: Tensor | None) -> Tensor:
    """(P,) mean distance of each point to its nearest neighbours among the points of the same time; inf for lone
    points.
    """
    from scipy.spatial import cKDTree  # half a second that most commands need not wait

    distances = torch.full((positions.shape[0],), float("inf"))
    labels = torch.zeros(len(positions)) if times is None else times
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        k = min(N_NEIGHBOURS + 1, len(members))
        if k < 2:
            continue
        place = positions[members].double().numpy()
        found, _ = cKDTree(place).query(place, k=k, workers=-1)
        distances[members] = torch.from_numpy(found[:, 1:].mean(axis=1)).float()
    return distances


def first_gaussians(points: PointCloud, config: GaussianConfig, radius: float, seed: int) -> Gaussians:
    """Still Gaussians at the points: round, of one opacity, as large as the points are apart. On the CPU, float32.

    No points, or a point that is not finite, is an InputError.
    """
    if len(points) == 0:
        raise InputError("The scene has no first points to start from; give it a points file with at least one point.")
    if not torch.isfinite(points.positions).all():
        raise InputError("First points must be finite; remove NaN and infinite coordinates from the points file.")
    n = len(points)
    apart = spacing(points.positions, points.times).clamp(SMALLEST_SPACING * radius, LARGEST_SPACING * radius)
    n_rest = (config.sh_degree + 1) ** 2 - 1
    quats = torch.zeros(n, 4)
    quats[:, 0] = 1.0
    return Gaussians(
        means=points.positions.float().clone(),
        quats=quats,
        log_scales=torch.log(apart * config.first_scale)[:, None].repeat(1, 3),
        opacity_logits=torch.logit(torch.full((n,), config.first_opacity)),
        sh_dc=(points.colors.float() / 255.0 - 0.5) / SH_BASIS_0,
        sh_rest=torch.zeros(n, n_rest, 3),
    )


def first_moving_gaussians(
    still: Gaussians, points: PointCloud, config: TimeConfig, clip: tuple[float, float]
) -> Gaussians:
    """The same Gaussians with a place in time: those seen at one time live around it, the others through the clip."""
    n, length = len(still), clip[1] - clip[0]
    long = torch.full((n,), config.first_long_duration * length)
    centres, durations = torch.full((n,), 0.5 * (clip[0] + clip[1])), long
    if points.times is not None:
        centres = points.times.float().clone()
        seen_for = points.durations
        if seen_for is None:
            seen_for = torch.full((n,), length / len(points.times.unique()))
        durations = torch.where(torch.isinf(seen_for), long, config.first_duration * seen_for.float())
    return Gaussians(
        **still.parameters(),
        displacements=torch.zeros(n, 3),
        time_centres=centres,
        log_durations=torch.log(durations),
    )
