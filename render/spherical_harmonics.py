"""Real spherical harmonics of degree 0 to 3, in the basis order and with the signs of the INRIA 3DGS code.

The basis is that of Sloan, "Efficient Spherical Harmonic Evaluation" (JCGT 2013), with the Condon-Shortley phase.
"""

from __future__ import annotations

import torch
from torch import Tensor

SH_C0 = 0.28209479177387814
SH_C1 = 0.4886025119029199
SH_C2 = (
    1.0925484305920792,
    -1.0925484305920792,
    0.31539156525252005,
    -1.0925484305920792,
    0.5462742152960396,
)
SH_C3 = (
    -0.5900435899266435,
    2.890611442640554,
    -0.4570457994644658,
    0.3731763325901154,
    -0.4570457994644658,
    1.445305721320277,
    -0.5900435899266435,
)


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """(..., (degree + 1)^2) values of the basis at (..., 3) unit directions; degree 0 to 3."""
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        values += [-SH_C1 * y, SH_C1 * z, -SH_C1 * x]
    if degree >= 2:
        values += [
            SH_C2[0] * x * y,
            SH_C2[1] * y * z,
            SH_C2[2] * (2 * z * z - x * x - y * y),
            SH_C2[3] * x * z,
            SH_C2[4] * (x * x - y * y),
        ]
    if degree >= 3:
        values += [
            SH_C3[0] * y * (3 * x * x - y * y),
            SH_C3[1] * x * y * z,
            SH_C3[2] * y * (4 * z * z - x * x - y * y),
            SH_C3[3] * z * (2 * z * z - 3 * x * x - 3 * y * y),
            SH_C3[4] * x * (4 * z * z - x * x - y * y),
            SH_C3[5] * z * (x * x - y * y),
            SH_C3[6] * x * (x * x - 3 * y * y),
        ]
    return torch.stack(values, dim=-1)


def sh_colours(sh_dc: Tensor, sh_rest: Tensor, directions: Tensor, degree: int) -> Tensor:
    """(N, 3) colours 0.5 + basis * coefficients, clamped at 0 from below.

    sh_dc (N, 3); sh_rest (N, K, 3) with K >= (degree + 1)^2 - 1; directions (N, 3) from the camera to the Gaussian, of
    any length.
    """
    n_rest = (degree + 1) ** 2 - 1
    coefficients = torch.cat([sh_dc[:, None], sh_rest[:, :n_rest]], dim=1)
    unit = directions / directions.norm(dim=-1, keepdim=True)
    return torch.relu(0.5 + torch.einsum("nk,nkc->nc", sh_basis(unit, degree), coefficients))
