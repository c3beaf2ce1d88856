"""Scene coordinates: where the origin is, how long a unit is, which way is up.

Without a normalisation of the data set's own, the origin is the point that the cameras look at (closest to all optical
axes in the least squares sense) and their mean distance from it is 1. Cameras that look nearly the same way have no
such point; then it lies before their mean position, as far as what they see typically is. Rotations are never touched.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kinosplat.scenes.capture import Capture
from kinosplat.scenes.scene import Similarity

PARALLEL = 0.02
"""Axes count as parallel when their mean squared sine to a common direction is below this (an 8 degree cone)."""


def normalisation(capture: Capture) -> Similarity:
    """From scene coordinates to the input's frame."""
    if capture.normalisation is not None:
        return capture.normalisation
    positions, forwards = camera_rays(capture)
    centre = focus_point(positions, forwards)
    if centre is None:
        mean, forward = positions.mean(axis=0), forwards.mean(axis=0)
        centre = mean + forward / max(float(np.linalg.norm(forward)), 1e-12) * _typical_depth(capture)
    distance = float(np.linalg.norm(positions - centre, axis=1).mean())
    return Similarity(distance if distance > 0 else 1.0, (float(centre[0]), float(centre[1]), float(centre[2])))


def camera_rays(capture: Capture) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions (C, 3) and unit viewing directions (C, 3) of the distinct poses, in the input's frame."""
    poses = np.unique(np.stack([shot.world_to_camera for shot in capture.shots]), axis=0)
    positions = -np.einsum("cji,cj->ci", poses[:, :3, :3], poses[:, :3, 3])
    return positions, poses[:, 2, :3]


def focus_point(positions: NDArray[np.float64], forwards: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The point (3,) closest to all optical axes, or None when they are nearly parallel or it lies behind a camera in
    two.
    """
    across = np.eye(3) - forwards[:, :, None] * forwards[:, None, :]
    normal_matrix = across.mean(axis=0)
    if len(positions) < 2 or np.linalg.eigvalsh(normal_matrix)[0] < PARALLEL:
        return None
    centre = np.linalg.solve(normal_matrix, np.einsum("cij,cj->i", across, positions) / len(positions))
    in_front = np.einsum("ci,ci->c", centre - positions, forwards) > 0
    return centre if in_front.mean() > 0.5 else None


def up_axis(capture: Capture) -> tuple[float, float, float] | None:
    """The data set's own, else the mean of the cameras' up directions; None when those cancel out."""
    if capture.up is not None:
        return capture.up
    mean = -np.stack([shot.world_to_camera[1, :3] for shot in capture.shots]).mean(axis=0)
    length = float(np.linalg.norm(mean))
    return None if length < 0.05 else tuple((mean / length).tolist())


def _typical_depth(capture: Capture) -> float:
    """The median distance of the points from the cameras, else what the format says, else 4 times the spread of the
    cameras.
    """
    positions, forwards = camera_rays(capture)
    if capture.points is not None:
        points = capture.points.positions[:: max(1, len(capture.points.positions) // 1000)]
        depths = np.einsum("pci,ci->pc", points[:, None] - positions[None], forwards)
        if (depths > 0).any():
            return float(np.median(depths[depths > 0]))
    if capture.depth is not None:
        return capture.depth
    spread = float(np.linalg.norm(positions - positions.mean(axis=0), axis=1).max())
    return 4 * spread if spread > 0 else 1.0
