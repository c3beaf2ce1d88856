"""The rig: 20 cameras to train on and 4 to test on, all looking at the table from above.

OpenCV axes (x right, y down, z forward), world in metres with z up, pixel centres at (j + 0.5, i + 0.5).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

WIDTH, HEIGHT = 256, 192
FOCAL = 290.0
"""Pixels; 47.6 degrees across."""
SEED = 7


@dataclass(frozen=True)
class RigCamera:
    """One camera of the rig."""

    name: str
    world_to_camera: np.ndarray
    """(4, 4) float64."""
    K: np.ndarray
    """(3, 3) float64, in pixels."""
    width: int
    height: int
    split: Literal["train", "test"]


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """World-to-camera matrix (4, 4) of a level camera at `position` that looks at `target`, both (3,)."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    rows = np.stack([right, np.cross(forward, right), forward])
    matrix = np.eye(4)
    matrix[:3, :3] = rows
    matrix[:3, 3] = -rows @ position
    return matrix


def on_sphere(azimuth: float, elevation: float, radius: float) -> np.ndarray:
    """Point (3,) at `radius` metres from the origin; angles in degrees."""
    a, e = np.radians(azimuth), np.radians(elevation)
    return radius * np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])


def intrinsics(focal: float, width: int, height: int) -> np.ndarray:
    return np.array([[focal, 0.0, width / 2.0], [0.0, focal, height / 2.0], [0.0, 0.0, 1.0]])


def make_rig(scale: float = 1.0) -> list[RigCamera]:
    """The 24 cameras; `scale` changes the resolution, for trials.

    Training: rings of 11, 7 and 2 cameras at about 33, 50 and 70 degrees, moved a little as hands would.
    Testing: between neighbours of the two lower rings, at heights between theirs.
    """
    generator = np.random.default_rng(SEED)
    rings = [(11, 33.0, 0.0), (7, 50.0, 14.0), (2, 70.0, 60.0)]
    angles: list[tuple[float, float, Literal["train", "test"]]]
    angles = [(first + 360.0 * i / n, height, "train") for n, height, first in rings for i in range(n)]
    angles += [(17.0, 38.0, "test"), (112.0, 44.0, "test"), (200.0, 36.0, "test"), (295.0, 48.0, "test")]
    target = np.array([0.0, 0.0, 0.08])
    width, height = round(WIDTH * scale), round(HEIGHT * scale)
    cameras = []
    for index, (azimuth, elevation, split) in enumerate(angles):
        azimuth += generator.uniform(-4.0, 4.0)
        elevation += generator.uniform(-2.0, 2.0)
        position = target + on_sphere(azimuth, elevation, generator.uniform(1.95, 2.15))
        aim = target + generator.uniform(-0.02, 0.02, 3)
        K = intrinsics(FOCAL * scale, width, height)
        cameras.append(RigCamera(f"cam{index:02d}", look_at(position, aim), K, width, height, split))
    return cameras
