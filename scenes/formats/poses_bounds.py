"""poses_bounds.npy of LLFF: (N, 17), a row a camera in the order of the sorted names.

The first 15 numbers are a 3x5 matrix: camera to world with the axes [down, right, backward] and the position, then
height, width and focal length in pixels; the last two bound the depth of what the camera sees. The principal point is
the middle, pixels are square.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinosplat.errors import InputError
from kinosplat.scenes.formats.checks import array, intrinsics, invert_rigid, read_arrays, rigid

SAME_ASPECT = 0.02
"""Relative difference of aspect ratios that rounding of a downscaled size may cause."""


@dataclass(frozen=True)
class LlffCamera:
    """One row."""

    world_to_camera: NDArray[np.float64]
    """(4, 4) rigid, OpenCV axes."""
    width: float
    """Pixels of the picture the focal length is for."""
    height: float
    """Pixels."""
    focal: float
    """Pixels."""
    where: str
    """File and row for messages."""

    def K_at(self, width: int, height: int, picture: Path) -> NDArray[np.float64]:
        """Intrinsics (3, 3) for the same picture at another resolution; InputError when the aspect ratio is another."""
        if abs(self.width * height - self.height * width) > SAME_ASPECT * self.width * height:
            raise InputError(
                f"{picture} is {width}x{height} pixels but its intrinsics are for {self.width:g}x{self.height:g}; "
                "scale one of the two so that they agree."
            )
        return intrinsics(
            self.focal * width / self.width, self.focal * height / self.height, width / 2, height / 2, self.where
        )


def read_poses_bounds(path: Path) -> tuple[list[LlffCamera], float]:
    """The cameras, and the typical depth of the scene (harmonic mean of the bounds)."""
    table = array(read_arrays(path).get("", ()), (-1, 17), str(path))
    if len(table) == 0:
        raise InputError(f"{path} has no cameras (0 rows); run the reconstruction again.")
    bounds = table[:, 15:]
    if (bounds <= 0).any():
        raise InputError(f"{path} has depth bounds that are not positive; run the reconstruction again.")
    return [_camera(row, f"{path} row {i}") for i, row in enumerate(table)], float(1 / np.mean(1 / bounds))


def _camera(row: NDArray[np.float64], where: str) -> LlffCamera:
    matrix = row[:15].reshape(3, 5)
    down, right, backward, position = matrix[:, 0], matrix[:, 1], matrix[:, 2], matrix[:, 3]
    height, width, focal = matrix[:, 4]
    if min(height, width, focal) <= 0:
        raise InputError(f"{where} has a height, width or focal length that is not positive; correct it.")
    camera_to_world = rigid(np.stack([right, down, -backward, position], axis=1), f"{where} pose")
    return LlffCamera(invert_rigid(camera_to_world), width, height, focal, where)
