"""Rotations as quaternions (wxyz) and as matrices, both ways, differentiable where they are used for rendering.

A quaternion of length zero or with a non-finite entry has no rotation: the matrix made of it is not finite.
"""

from __future__ import annotations

import torch
from torch import Tensor


def matrix_from_quaternion(quats: Tensor) -> Tensor:
    """(..., 3, 3) rotation matrices of (..., 4) quaternions wxyz, which are normalised first."""
    w, x, y, z = (quats / quats.norm(dim=-1, keepdim=True)).unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def quaternion_from_matrix(matrices: Tensor) -> Tensor:
    """(..., 4) unit quaternions wxyz with w >= 0 of (..., 3, 3) rotation matrices.

    Each of the four components could be the divisor; the largest is taken, so that no rotation loses digits
    (Shepperd 1978).
    """
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = (row.unbind(-1) for row in matrices.unbind(-2))
    # Row k holds 4 q_k q, for k over w, x, y, z.
    entries = [
        [1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01],
        [m21 - m12, 1 + m00 - m11 - m22, m01 + m10, m02 + m20],
        [m02 - m20, m01 + m10, 1 - m00 + m11 - m22, m12 + m21],
        [m10 - m01, m02 + m20, m12 + m21, 1 - m00 - m11 + m22],
    ]
    products = torch.stack([torch.stack(row, dim=-1) for row in entries], dim=-2)
    largest = products.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    index = largest[..., None, None].expand(*largest.shape, 1, 4)
    quats = torch.nn.functional.normalize(products.gather(-2, index).squeeze(-2), dim=-1)
    return torch.where(quats[..., :1] < 0, -quats, quats)
