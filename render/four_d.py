"""Exact conversions between the cut form of moving Gaussians and other ways to write a 4D Gaussian.

The cut form is what `Gaussians` stores: a 3D shape, a displacement and a duration. A 4D Gaussian over (x, y, z, t) has
the covariance [[A, c], [c^T, s]]; docs/mathematics.md has the way there and back. Everything is computed in float64 and
returned in the dtype of the input. A covariance without extent in time is refused: it is never seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.render.gaussians import Gaussians
from kinosplat.render.rotations import matrix_from_quaternion, quaternion_from_matrix

SMALLEST_VARIANCE = 1e-14
"""Variances lost to rounding are raised to this fraction of the sum of those along x, y and z before the cut."""


@dataclass(frozen=True)
class Cut:
    """Shape, motion and lifetime of N 4D Gaussians; the fields are those of `Gaussians`."""

    quats: Tensor
    """(N, 4) wxyz, unit length."""
    log_scales: Tensor
    """(N, 3) log world units."""
    displacements: Tensor
    """(N, 3) world units moved during one duration, c / sqrt(s)."""
    log_durations: Tensor
    """(N,) log seconds, the standard deviation in time."""


def covariance_4d_from_cut(quats: Tensor, log_scales: Tensor, displacements: Tensor, log_durations: Tensor) -> Tensor:
    """(N, 4, 4) covariances over (x, y, z, t), from the fields of `Gaussians` of the same names.

    Raises ValueError for a duration that is not finite, which has no covariance.
    """
    if not torch.isfinite(log_durations).all():
        raise ValueError("log_durations must be finite to have a 4D covariance; give still Gaussians a long duration.")
    factor = matrix_from_quaternion(quats.double()) * log_scales.double().exp()[:, None, :]
    displacements, durations = displacements.double(), log_durations.double().exp()
    covariances = torch.zeros(len(quats), 4, 4, dtype=torch.float64, device=quats.device)
    covariances[:, :3, :3] = factor @ factor.mT + displacements[:, :, None] * displacements[:, None, :]
    covariances[:, :3, 3] = covariances[:, 3, :3] = displacements * durations[:, None]
    covariances[:, 3, 3] = durations.square()
    return covariances.to(quats.dtype)


def cut_from_covariance_4d(covariances: Tensor) -> Cut:
    """Cut (N, 4, 4) covariances over (x, y, z, t) at any time: the conditional distribution of the position.

    Raises ValueError if a variance in time is not positive.
    """
    covariances_4d = covariances.double()
    variances = covariances_4d[:, 3, 3]
    if not (variances > 0).all():
        raise ValueError("covariances must have a positive variance in time, entry [3, 3]; drop the Gaussians without.")
    displacements = covariances_4d[:, :3, 3] / variances.sqrt()[:, None]
    shapes = covariances_4d[:, :3, :3] - displacements[:, :, None] * displacements[:, None, :]
    squares, axes = torch.linalg.eigh(shapes)
    extent = covariances_4d[:, :3, :3].diagonal(dim1=1, dim2=2).sum(dim=1, keepdim=True)
    squares = torch.maximum(squares, SMALLEST_VARIANCE * extent)
    # An eigenvector may point either way; turning one of a left-handed three makes them a rotation.
    axes = torch.cat([axes[:, :, :2], axes[:, :, 2:] * torch.linalg.det(axes)[:, None, None].sign()], dim=2)
    dtype = covariances.dtype
    return Cut(
        quats=quaternion_from_matrix(axes).to(dtype),
        log_scales=(0.5 * squares.log()).to(dtype),
        displacements=displacements.to(dtype),
        log_durations=(0.5 * variances.log()).to(dtype),
    )


def rotation_4d_from_two_quaternions(left: Tensor, right: Tensor) -> Tensor:
    """(N, 4, 4) rotations J M_l M_r J of two (N, 4) quaternions, `rotation` and `rotation_r` of Yang et al."""
    a, b, c, d = (left / left.norm(dim=-1, keepdim=True)).unbind(-1)
    p, q, r, s = (right / right.norm(dim=-1, keepdim=True)).unbind(-1)
    left_entries = [a, -b, -c, -d, b, a, -d, c, c, d, a, -b, d, -c, b, a]
    right_entries = [p, q, r, s, -q, p, -s, r, -r, s, p, -q, -s, -r, q, p]
    left_matrix = torch.stack(left_entries, dim=-1).unflatten(-1, (4, 4))
    right_matrix = torch.stack(right_entries, dim=-1).unflatten(-1, (4, 4))
    # The product acts on (t, z, y, x).
    return (left_matrix @ right_matrix).flip(-2, -1)


def pure_rotor(rotors: Tensor) -> Tensor:
    """The unit rotors (N, 8) nearest to any eight numbers (s, xy, xz, yz, xw, yw, zw, xyzw).

    A 4D rotor is a pair of quaternions of equal length: the sum and the difference of the eight numbers and their dual.
    Giving both the same length is the projection that the published code applies, without its division by the
    difference. Eight numbers that equal their dual up to sign leave one quaternion unknown; their rotor is not finite.
    """
    s, xy, xz, yz, xw, yw, zw, xyzw = rotors.unbind(-1)
    dual = torch.stack([xyzw, -zw, yw, -xw, -yz, xz, -xy, s], dim=-1)
    parts = [rotors + dual, rotors - dual]
    return sum(part / part.norm(dim=-1, keepdim=True) for part in parts) / 2**0.5


def rotation_4d_from_rotor(rotors: Tensor) -> Tensor:
    """(N, 4, 4) matrices of (N, 8) unit rotors (s, xy, xz, yz, xw, yw, zw, xyzw) in the orientation of Duan et al."""
    s, xy, xz, yz, xw, yw, zw, xyzw = rotors.unbind(-1)
    signs = [(-1, -1, -1, 1, 1, 1), (-1, 1, 1, -1, -1, 1), (1, -1, 1, -1, 1, -1), (1, 1, -1, 1, -1, -1)]
    planes = (xy, xz, xw, yz, yw, zw)
    diagonal = [
        s * s - xyzw * xyzw + sum(sign * plane * plane for sign, plane in zip(row, planes, strict=True))
        for row in signs
    ]
    # Each entry off the diagonal is an even part, shared with its mirror image, and an odd part that changes sign.
    mixed = {
        (0, 1): (-xz * yz - xw * yw, xy * s + zw * xyzw),
        (0, 2): (xy * yz - xw * zw, xz * s - yw * xyzw),
        (0, 3): (xy * yw + xz * zw, xw * s + yz * xyzw),
        (1, 2): (-xy * xz - yw * zw, yz * s + xw * xyzw),
        (1, 3): (-xy * xw + yz * zw, yw * s - xz * xyzw),
        (2, 3): (-xz * xw - yz * yw, zw * s + xy * xyzw),
    }
    rows = []
    for i in range(4):
        for j in range(4):
            if i == j:
                rows.append(diagonal[i])
            else:
                even, odd = mixed[min(i, j), max(i, j)]
                rows.append(2 * (even + odd if i < j else even - odd))
    return torch.stack(rows, dim=-1).unflatten(-1, (4, 4))


def from_two_quaternions(
    *,
    means: Tensor,
    time_centres: Tensor,
    log_scales: Tensor,
    left: Tensor,
    right: Tensor,
    opacity_logits: Tensor,
    sh_dc: Tensor,
    sh_rest: Tensor,
) -> Gaussians:
    """4D Gaussians of Yang et al. (ICLR 2024, `rot_4d` on) as moving Gaussians, exactly.

    means (N, 3); time_centres (N,) seconds; log_scales (N, 4) along x, y, z and t; left, right (N, 4) quaternions; the
    rest as in `Gaussians`. Their renderer hides a Gaussian where its factor of time is below 0.05; here it fades out.
    """
    rotations = rotation_4d_from_two_quaternions(left.double(), right.double())
    return _from_rotations(rotations, means, time_centres, log_scales, opacity_logits, sh_dc, sh_rest)


def from_rotors(
    *,
    means: Tensor,
    time_centres: Tensor,
    log_scales: Tensor,
    rotors: Tensor,
    opacity_logits: Tensor,
    sh_dc: Tensor,
    sh_rest: Tensor,
) -> Gaussians:
    """4D Gaussians of Duan et al. (SIGGRAPH 2024) as moving Gaussians, exactly.

    means (N, 3); time_centres (N,) seconds; log_scales (N, 4) along x, y, z and t; rotors (N, 8) as (s, xy, xz, yz,
    xw, yw, zw, xyzw), made pure first; the rest as in `Gaussians`.
    """
    rotations = rotation_4d_from_rotor(pure_rotor(rotors.double()))
    return _from_rotations(rotations, means, time_centres, log_scales, opacity_logits, sh_dc, sh_rest)


def _from_rotations(
    rotations: Tensor,
    means: Tensor,
    time_centres: Tensor,
    log_scales: Tensor,
    opacity_logits: Tensor,
    sh_dc: Tensor,
    sh_rest: Tensor,
) -> Gaussians:
    factor = rotations * log_scales.double().exp()[:, None, :]
    cut = cut_from_covariance_4d(factor @ factor.mT)
    return Gaussians(
        means=means,
        quats=cut.quats.to(means.dtype),
        log_scales=cut.log_scales.to(means.dtype),
        opacity_logits=opacity_logits,
        sh_dc=sh_dc,
        sh_rest=sh_rest,
        displacements=cut.displacements.to(means.dtype),
        time_centres=time_centres,
        log_durations=cut.log_durations.to(means.dtype),
    )
