"""images.bin and images.txt of COLMAP: the pose of every registered picture.

    text:    IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of 2D points (may be empty)
    binary:  uint64 count, then uint32 id, float64 qw qx qy qz tx ty tz, uint32 camera, name\\0, uint64 n, n x (2
    float64, int64)

The 2D points are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinosplat.errors import InputError
from kinosplat.scenes.formats.checks import array
from kinosplat.scenes.formats.colmap_files import BinaryFile, read_text

POINT2D_BYTES = 24


@dataclass(frozen=True)
class Pose:
    """One entry of the file."""

    name: str
    """Path of the picture inside the images folder, with forward slashes."""
    camera_id: int
    """Which camera of cameras.bin took it."""
    world_to_camera: NDArray[np.float64]
    """(4, 4) rigid."""


def read_poses(path: Path) -> list[Pose]:
    """All registered pictures, in the order of the file."""
    return _read_binary(path) if path.suffix == ".bin" else _read_text(path)


def _read_text(path: Path) -> list[Pose]:
    lines = [(i, line) for i, line in enumerate(read_text(path).splitlines(), 1) if not line.startswith("#")]
    poses = []
    position = 0
    while position < len(lines):
        line_number, line = lines[position]
        if not line.strip():
            position += 1
            continue
        where = f"{path} line {line_number}"
        # A name may contain spaces; nothing before it does.
        words = line.split(maxsplit=9)
        if len(words) < 10:
            raise InputError(f"{where} is not an image (IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME); correct it.")
        try:
            values, camera_id = [float(word) for word in words[1:8]], int(words[8])
        except ValueError as error:
            raise InputError(f"{where} holds something other than numbers; correct it.") from error
        poses.append(_pose(words[9].strip(), camera_id, values, where))
        position += 2
    return poses


def _read_binary(path: Path) -> list[Pose]:
    file = BinaryFile(path)
    poses = []
    (count,) = file.unpack("<Q")
    for _ in range(count):
        _, *values, camera_id = file.unpack("<I7dI")
        name = file.string()
        (n_points,) = file.unpack("<Q")
        file.skip(n_points * POINT2D_BYTES)
        poses.append(_pose(name, camera_id, list(values), f"{path} image {name}"))
    return poses


def _pose(name: str, camera_id: int, values: list[float], where: str) -> Pose:
    checked = array(values, (7,), f"{where} pose")
    length = np.linalg.norm(checked[:4])
    if length < 1e-6:
        raise InputError(f"{where} has the rotation 0 0 0 0; remove that image or register it again.")
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = rotation_of(checked[:4] / length)
    world_to_camera[:3, 3] = checked[4:]
    return Pose(name.replace("\\", "/"), camera_id, world_to_camera)


def rotation_of(quat: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation matrix (3, 3) of a unit quaternion wxyz."""
    w, x, y, z = quat
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
