"""Small conversions that several formats share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kinosplat.render.spherical_harmonics import SH_C0

SQRT_HALF = np.sqrt(0.5)
OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
"""(4, 3) places of the three smaller components for each place of the largest."""


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Opacity of logits, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))


def logit(opacities: NDArray[np.floating]) -> NDArray[np.float32]:
    """Logits of opacities, kept within [1e-6, 1 - 1e-6] so that the ends of an 8-bit scale stay finite."""
    clipped = np.clip(opacities.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped)).astype(np.float32)


def color_of(sh_dc: NDArray[np.floating]) -> NDArray[np.float64]:
    """RGB, not clipped, of degree-0 coefficients."""
    return 0.5 + SH_C0 * sh_dc.astype(np.float64)


def dc_of(color: NDArray[np.floating]) -> NDArray[np.float32]:
    """Degree-0 coefficients of RGB."""
    return ((color - 0.5) / SH_C0).astype(np.float32)


def to_uint8(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Nearest bytes of values in [0, 255], clipped."""
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def normalised(quats: NDArray[np.floating]) -> NDArray[np.float64]:
    """Unit quaternions; the identity where the length is 0."""
    q = quats.astype(np.float64)
    length = np.linalg.norm(q, axis=1, keepdims=True)
    return np.where(length > 0, q / np.where(length > 0, length, 1.0), np.eye(1, 4))


def smallest_three(quats: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Place of the largest component (N,), made positive, and the other three (N, 3) in order, each in +-sqrt(1/2)."""
    q = normalised(quats)
    largest = np.abs(q).argmax(axis=1)
    rows = np.arange(len(q))
    q = q * np.where(q[rows, largest] < 0, -1.0, 1.0)[:, None]
    return largest, q[rows[:, None], OTHERS[largest]]


def from_smallest_three(largest: NDArray[np.integer], others: NDArray[np.floating]) -> NDArray[np.float32]:
    """Unit quaternions (N, 4) in the component order that `smallest_three` was given."""
    quats = np.empty((len(largest), 4))
    rows = np.arange(len(largest))
    quats[rows[:, None], OTHERS[largest]] = others
    quats[rows, largest] = np.sqrt(np.maximum(0.0, 1.0 - (others.astype(np.float64) ** 2).sum(axis=1)))
    return quats.astype(np.float32)
