"""The definition, in plain torch, of what every backend of a field computes.

Differentiable, in float32 or float64, slow on purpose. Positions outside [0, 1] are encoded as the nearest point of the
cube; a NaN position gives NaN features; a ray with a zero or NaN direction has no samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kinosplat.render.field.layout import HASH_PRIMES, GridLayout, Space
from kinosplat.render.field.marching import OccupiedCells, RayParts
from kinosplat.render.field.samples import Composited, Samples
from kinosplat.render.spherical_harmonics import sh_basis

STOP = 1e-4
"""A ray ends with the sample that takes its transmittance below this."""


def encode(positions: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    """(S, L * F) features of (S, 3) positions in [0, 1]^3, level after level, interpolated trilinearly.

    table: (n_entries, F). A level's cell at x is min(floor(x N), N - 1) along each axis.
    """
    inside = positions.clamp(0.0, 1.0)
    features = []
    for level, resolution in enumerate(layout.resolutions):
        scaled = inside * resolution
        cell = scaled.detach().nan_to_num(0.0).long().clamp(0, resolution - 1)
        fraction = scaled - cell
        interpolated = table.new_zeros(len(positions), layout.n_features)
        for corner in range(8):
            bits = cell.new_tensor([corner & 1, corner >> 1 & 1, corner >> 2 & 1])
            weight = torch.where(bits == 1, fraction, 1 - fraction).prod(dim=1, keepdim=True)
            interpolated = interpolated + weight * table[vertex_entries(cell + bits, level, layout)]
        features.append(interpolated)
    return torch.cat(features, dim=1)


def vertex_entries(vertices: Tensor, level: int, layout: GridLayout) -> Tensor:
    """(...,) int64 rows of the table for (..., 3) int64 vertices of a level."""
    x, y, z = vertices.unbind(-1)
    if layout.hashed[level]:
        # 64-bit products keep the low 32 bits, which is all that the mask reads.
        mixed = (x * HASH_PRIMES[0]) ^ (y * HASH_PRIMES[1]) ^ (z * HASH_PRIMES[2])
        return layout.offsets[level] + (mixed & (layout.table_size - 1))
    side = layout.resolutions[level] + 1
    return layout.offsets[level] + x + side * (y + side * z)


def encode_directions(directions: Tensor, n_degrees: int) -> Tensor:
    """(S, n_degrees^2) real spherical harmonics of degree 0 to n_degrees - 1 of (S, 3) unit directions."""
    return sh_basis(directions, n_degrees - 1)


def mlp(inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """(S, n_outputs) of a network without biases: ReLU between its (n_outputs, n_inputs) layers, none at the end."""
    values = inputs
    for i, weight in enumerate(weights):
        values = (torch.relu(values) if i > 0 else values) @ weight.T
    return values


def grid_positions(points: Tensor, space: Space) -> Tensor:
    """(..., 3) positions in [0, 1]^3 (inside the space) of (..., 3) world points."""
    u = (points - points.new_tensor(space.center)) / space.half_extent
    if not space.contract:
        return (u + 1) / 2
    norm = u.abs().amax(dim=-1, keepdim=True)
    outside = norm.clamp_min(1.0)
    return (torch.where(norm <= 1, u, (2 - 1 / outside) * (u / outside)) + 2) / 4


def world_points(positions: Tensor, space: Space) -> Tensor:
    """(..., 3) world points of (..., 3) positions strictly inside [0, 1]^3: the inverse of `grid_positions`."""
    if space.contract:
        c = positions * 4 - 2
        norm = c.abs().amax(dim=-1, keepdim=True).clamp_min(1.0)
        u = torch.where(norm <= 1, c, c / norm / (2 - norm))
    else:
        u = positions * 2 - 1
    return points_from_unit(u, space)


def points_from_unit(u: Tensor, space: Space) -> Tensor:
    """(..., 3) world points of (..., 3) coordinates u."""
    return u * space.half_extent + u.new_tensor(space.center)


def occupancy_cells(points: Tensor, space: Space, resolution: int) -> Tensor:
    """(...,) int64 cells of (..., 3) world points, in the smallest cascade that holds each; -1 outside of all."""
    u = (points - points.new_tensor(space.center)) / space.half_extent
    norm = u.abs().amax(dim=-1)
    cascade = torch.zeros_like(norm, dtype=torch.int64)
    for k in range(1, space.n_cascades):
        cascade += norm > 2.0 ** (k - 1)
    size = torch.exp2(cascade.to(u)).unsqueeze(-1)
    axis = torch.floor((u / size + 1) * (resolution / 2)).nan_to_num(0.0).long().clamp(0, resolution - 1)
    cell = cascade * resolution**3 + axis[..., 0] + resolution * (axis[..., 1] + resolution * axis[..., 2])
    return torch.where(norm <= space.reach, cell, -1)


def pack_bits(values: Tensor) -> Tensor:
    """(N / 8,) uint8 of (N,) bools: value i is bit i % 8 of byte i / 8."""
    powers = 2 ** torch.arange(8, dtype=torch.uint8, device=values.device)
    return (values.view(-1, 8).to(torch.uint8) * powers).sum(dim=1, dtype=torch.uint8)


def unpack_bits(bits: Tensor) -> Tensor:
    """(8 B,) bools of (B,) uint8."""
    shifts = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return ((bits[:, None] >> shifts) & 1).bool().flatten()


@torch.no_grad()
def march(rays: RayParts, cells: OccupiedCells) -> Samples:
    """Samples of R rays in occupied cells, as marching.py defines them: every member is looked at."""
    origins, directions, near, far = rays.origins, rays.directions, rays.near, rays.far
    cone_angle = cells.rule.cone_angle
    dt_min, dt_max = cells.rule.limits(cells.space, cells.resolution)
    occupied = unpack_bits(cells.bits)
    good = torch.isfinite(directions).all(dim=1) & (directions != 0).any(dim=1)
    far = torch.where(good, far, near)

    def moved(t: Tensor, steps: Tensor | float) -> Tensor:
        """Where so many steps lead from `t`, rounded once."""
        dt = (t * cone_angle).clamp(dt_min, dt_max)
        return (t.double() + steps * dt.double()).to(t)

    begin = t = moved(near, rays.jitter.double())
    kept_t, kept_dt, kept = [], [], []
    while bool((t < far).any()):
        dt = (t * cone_angle).clamp(dt_min, dt_max)
        middle = t + dt / 2
        cell = occupancy_cells(origins + middle[:, None] * directions, cells.space, cells.resolution)
        kept.append((middle >= near) & (middle < far) & (cell >= 0) & occupied[cell.clamp_min(0)])
        kept_t.append(t)
        kept_dt.append(dt)
        # Where all steps have one length the members are numbered; sums of many steps would drift.
        t = moved(t, 1.0) if cone_angle > 0.0 else moved(begin, float(len(kept)))
    if not kept:
        return Samples(torch.zeros(len(t) + 1, dtype=torch.int64, device=t.device), t[:0], t[:0])
    mask = torch.stack(kept, dim=1)
    counts = torch.cat([mask.new_zeros(1, dtype=torch.int64), mask.sum(dim=1)])
    return Samples(counts.cumsum(0), torch.stack(kept_t, dim=1)[mask], torch.stack(kept_dt, dim=1)[mask])


def sample_points(origins: Tensor, directions: Tensor, samples: Samples, space: Space) -> tuple[Tensor, Tensor]:
    """Grid positions (S, 3) of the samples' midpoints, and the directions (S, 3) of their rays."""
    along = directions[samples.ray]
    points = origins[samples.ray] + (samples.t + samples.dt / 2)[:, None] * along
    return grid_positions(points, space), along


def composite(density: Tensor, rgb: Tensor, t: Tensor, dt: Tensor, offsets: Tensor, stop: float = STOP) -> Composited:
    """Blend (S,) densities and (S, 3) colours along R rays, front to back (Max 1995; Mildenhall et al. 2020, eq. 3).

    w_i = T_i (1 - exp(-density_i dt_i)); the sample that takes T below `stop` is the last that counts. The distortion
    sum_ij w_i w_j |m_i - m_j| + sum_i w_i^2 dt_i / 3 is summed with running sums, m being the midpoints.
    """
    counts = offsets.diff()
    n_rays, longest = len(counts), int(counts.max()) if len(counts) > 0 else 0
    ray = torch.repeat_interleave(counts)
    place = torch.arange(len(t), device=t.device) - offsets[ray]

    def padded(values: Tensor) -> Tensor:
        return values.new_zeros(n_rays, longest, *values.shape[1:]).index_put((ray, place), values)

    optical = padded(density * dt)
    before = torch.exp(-torch.nn.functional.pad(optical.cumsum(dim=1), (1, 0))[:, :longest])
    counted = padded(torch.ones_like(t)).bool() & (before.detach() >= stop)
    weights = torch.where(counted, before * (1 - torch.exp(-optical)), 0.0)

    middle, length = padded(t + dt / 2), padded(dt)
    weight_before = weights.cumsum(dim=1) - weights
    moment_before = (weights * middle).cumsum(dim=1) - weights * middle
    spread = weights * (middle * weight_before - moment_before)
    return Composited(
        rgb=(weights[..., None] * padded(rgb)).sum(dim=1),
        alpha=weights.sum(dim=1),
        depth=(weights * middle).sum(dim=1),
        distortion=2 * spread.sum(dim=1) + (weights.square() * length).sum(dim=1) / 3,
        n_used=counted.sum(dim=1, dtype=torch.int32),
    )


@torch.no_grad()
def occupancy_update(density: Tensor, indices: Tensor, values: Tensor, decay: float) -> None:
    """Let (n_cells,) densities decay, then raise those at (M,) `indices` to (M,) `values` where these are larger."""
    density.mul_(decay)
    density.scatter_reduce_(0, indices, values.to(density), "amax")


def occupancy_pack(density: Tensor, threshold: float) -> Tensor:
    """(n_cells / 8,) uint8, a bit for each of (n_cells,) densities above `threshold`."""
    return pack_bits(density > threshold)
