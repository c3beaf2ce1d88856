"""One form for Gaussians that look the same, so that equal things get equal codes.

An ellipsoid does not change when its axes are renamed or reversed: 24 rotations with permuted scales, times two signs,
describe one covariance. `canonical_axes` takes the one whose rotation is nearest to the identity, which confines x/w,
y/w, z/w to +-(sqrt(2) - 1), the Rodrigues zone of the cube, and saves 4.6 bits a rotation at the same precision.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import permutations, product

import torch
from torch import Tensor

from kinosplat.render.gaussians import Gaussians


@cache
def _cube_rotations() -> tuple[Tensor, Tensor]:
    """Quaternions wxyz (24, 4) of the cube's rotations, and which old axis (24, 3) each new axis is."""
    quats, axes = [], []
    for permutation in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = torch.zeros(3, 3, dtype=torch.float64)
            for new, (old, sign) in enumerate(zip(permutation, signs, strict=True)):
                matrix[old, new] = sign
            if torch.linalg.det(matrix) > 0:
                quats.append(_quat_from_matrix(matrix))
                axes.append(torch.tensor(permutation))
    return torch.stack(quats), torch.stack(axes)


def _quat_from_matrix(matrix: Tensor) -> Tensor:
    """Unit quaternion wxyz (4,) of one rotation matrix (3, 3), by the eigenvector of Bar-Itzhack's 4 x 4 matrix."""
    m = matrix
    k = torch.tensor(
        [
            [m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[0, 2] + m[2, 0]],
            [m[0, 2] - m[2, 0], m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2]],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1]],
        ],
        dtype=m.dtype,
    )
    return torch.linalg.eigh(k).eigenvectors[:, -1]


def multiply_quats(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product wxyz of (..., 4) and (..., 4): the rotation b, then a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def canonical_axes(gaussians: Gaussians) -> Gaussians:
    """The same ellipsoids with the rotation nearest to the identity, w >= 0, unit length; scales permuted to match."""
    cube_quats, cube_axes = _cube_rotations()
    quats = torch.nn.functional.normalize(gaussians.quats.detach().double(), dim=1)
    cube_quats = cube_quats.to(quats.device)
    conjugate = cube_quats * torch.tensor([1.0, -1.0, -1.0, -1.0], dtype=torch.float64, device=quats.device)
    nearest = (quats @ conjugate.T).abs().argmax(dim=1)  # |w| of quats * cube is this inner product
    turned = multiply_quats(quats, cube_quats[nearest])
    turned = turned * torch.where(turned[:, :1] < 0, -1.0, 1.0)
    axes = cube_axes.to(quats.device)[nearest]
    return replace(
        gaussians,
        quats=turned.to(gaussians.quats.dtype),
        log_scales=torch.gather(gaussians.log_scales, 1, axes),
    )


def canonical_still(gaussians: Gaussians, duration: float, *, largest_fade: float = 0.03) -> Gaussians:
    """Moving Gaussians that hardly change over a clip of `duration` seconds become still, where they are at its middle.

    Hardly means: the fade in time takes at most `largest_fade` of the opacity anywhere in the clip, and half of the
    clip moves the mean by less than a tenth of the smallest standard deviation. Still ones get displacement 0, time
    centre 0, log-duration +inf.
    """
    if gaussians.displacements is None or gaussians.log_durations is None or gaussians.time_centres is None:
        return gaussians
    centres = gaussians.time_centres
    phase = torch.maximum(centres.abs(), (duration - centres).abs()) * torch.exp(-gaussians.log_durations)
    moved = gaussians.velocities.norm(dim=1) * 0.5 * duration
    hardly = (0.5 * phase**2 < largest_fade) & (moved < 0.1 * gaussians.log_scales.exp().amin(dim=1))
    still = hardly | torch.isposinf(gaussians.log_durations)
    at_middle = gaussians.means + gaussians.velocities * (0.5 * duration - centres)[:, None]
    return replace(
        gaussians,
        means=torch.where(still[:, None], at_middle, gaussians.means),
        displacements=torch.where(still[:, None], 0.0, gaussians.displacements),
        time_centres=torch.where(still, 0.0, centres),
        log_durations=torch.where(still, torch.inf, gaussians.log_durations),
    )


def without_idle_time(gaussians: Gaussians) -> Gaussians:
    """The set without parameters of time where none of its Gaussians fades or moves."""
    if gaussians.log_durations is None or gaussians.displacements is None:
        return gaussians
    if bool(torch.isfinite(gaussians.log_durations).any()) or bool((gaussians.displacements != 0).any()):
        return gaussians
    return replace(gaussians, displacements=None, time_centres=None, log_durations=None)


def clip_seconds(gaussians: Gaussians, stated: float | None = None) -> float:
    """Seconds of the clip of moving Gaussians: `stated`, or else until the last time centre of those that fade; 0 for
    still ones.
    """
    if gaussians.time_centres is None or gaussians.log_durations is None:
        return 0.0
    if stated is not None:
        return stated
    centres = gaussians.time_centres[torch.isfinite(gaussians.log_durations)]
    return max(float(centres.max()), 0.0) if len(centres) else 0.0
