"""Camera paths as JSON, which the viewer writes and `kinosplat render --views FILE` reads.

Coordinates in the file are in the frame and scale of the user's input:

    {
      "format": "kinosplat-camera-path", "version": 1,
      "seconds_to_start": 2.0,              // optional: time for the way from the last key frame back to the first
      "keyframes": [
        {"seconds": 0.0,                    // when the path is here, increasing from key to key
         "fov": 50.0,                       // degrees from the top to the bottom of the picture
         "time": 1.5,                       // optional: moment of the clip in seconds; all key frames have it or none
         "position": [0, 0, 0],             // centre of projection
         "wxyz": [1, 0, 0, 0]},             // rotation from camera (OpenCV axes) to world
        {"seconds": 2.0, "fov": 50.0, "time": 3.0,
         "world_to_camera": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}   // instead of position and wxyz
      ]
    }

Anything else raises InputError with one sentence that names the file and the field. Unknown fields are left alone.
"""

from __future__ import annotations

import json
import math
import os
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.render.paths.keyframes import CameraPath, Keyframe
from kinosplat.render.rotations import quaternion_from_matrix

FORMAT = "kinosplat-camera-path"
VERSION = 1
ROTATION_TOLERANCE = 1e-3
"""Largest entry of R^T R - 1 in a matrix that people typed or other tools rounded."""


class Frame(Protocol):
    """The way from scene coordinates to the input's frame, without a rotation, as `Scene.to_input` is."""

    def apply(self, points: Tensor) -> Tensor:
        """Scene coordinates (..., 3) to the input's frame."""

    def invert(self, points: Tensor) -> Tensor:
        """The input's frame (..., 3) to scene coordinates."""


def save_camera_path(file: str | Path, path: CameraPath, to_input: Frame | None = None) -> None:
    """Write `path`, whose positions are in scene coordinates; the file is replaced whole or not at all."""
    keyframes = []
    for key in path.keyframes:
        position = torch.tensor(key.position, dtype=torch.float64)
        entry: dict[str, Any] = {"seconds": key.seconds, "fov": key.fov}
        if key.time is not None:
            entry["time"] = key.time
        entry["position"] = (position if to_input is None else to_input.apply(position)).tolist()
        entry["wxyz"] = list(key.wxyz)
        keyframes.append(entry)
    content: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    if path.seconds_to_start is not None:
        content["seconds_to_start"] = path.seconds_to_start
    content["keyframes"] = keyframes
    file = Path(file)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, file)


def load_camera_path(file: str | Path, to_input: Frame | None = None) -> CameraPath:
    """Read a path into scene coordinates; raises InputError for a file that is missing or is not as described above."""
    file = Path(file)
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file; give the JSON of a camera path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error}); give the JSON of a camera path.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: line {error.lineno} is not JSON ({error.msg}); save the path again.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f'{file}: "format" must be "{FORMAT}"; save the path with kinosplat\'s viewer.')
    if content.get("version") != VERSION:
        raise InputError(f'{file}: "version" must be {VERSION}, got {content.get("version")!r}; update kinosplat.')
    entries = content.get("keyframes")
    if not isinstance(entries, list) or not entries:
        raise InputError(f'{file}: "keyframes" must be a list of at least one key frame.')
    keyframes = tuple(_keyframe(f"{file}: keyframes[{i}]", entry, to_input) for i, entry in enumerate(entries))
    for i, (before, after) in enumerate(pairwise(keyframes)):
        if after.seconds <= before.seconds:
            raise InputError(
                f"{file}: keyframes[{i + 1}].seconds must be above {before.seconds}, that of the one before."
            )
        if (after.time is None) != (before.time is None):
            raise InputError(f"{file}: keyframes[{i + 1}].time must be given for all key frames or for none.")
    seconds_to_start = content.get("seconds_to_start")
    if seconds_to_start is not None:
        (seconds_to_start,) = _numbers(f"{file}: seconds_to_start", seconds_to_start, 1)
        if seconds_to_start <= 0:
            raise InputError(f"{file}: seconds_to_start must be above 0, got {seconds_to_start}.")
    return CameraPath(keyframes, seconds_to_start)


def _keyframe(name: str, entry: Any, to_input: Frame | None) -> Keyframe:
    if not isinstance(entry, dict):
        raise InputError(f"{name} must be an object with seconds, fov, position and wxyz.")
    (seconds,) = _numbers(f"{name}.seconds", entry.get("seconds"), 1)
    (fov,) = _numbers(f"{name}.fov", entry.get("fov"), 1)
    if not 0 < fov < 180:
        raise InputError(f"{name}.fov must be between 0 and 180 degrees, got {fov}.")
    time = None
    if entry.get("time") is not None:
        (time,) = _numbers(f"{name}.time", entry["time"], 1)
    if "world_to_camera" in entry:
        position, wxyz = _pose(f"{name}.world_to_camera", entry["world_to_camera"])
    else:
        position = torch.tensor(_numbers(f"{name}.position", entry.get("position"), 3), dtype=torch.float64)
        wxyz = _numbers(f"{name}.wxyz", entry.get("wxyz"), 4)
        if not any(wxyz):
            raise InputError(f"{name}.wxyz must not be all zero; 1, 0, 0, 0 is no rotation.")
    if to_input is not None:
        position = to_input.invert(position)
    x, y, z = position.tolist()
    w, i, j, k = wxyz
    return Keyframe((x, y, z), (w, i, j, k), fov, seconds, time)


def _pose(name: str, value: Any) -> tuple[Tensor, list[float]]:
    """Position in the frame of the file and camera-to-world quaternion of a 4x4 matrix."""
    if not isinstance(value, list) or len(value) != 4:
        raise InputError(f"{name} must be four rows of four numbers.")
    rows = [_numbers(f"{name}[{i}]", row, 4) for i, row in enumerate(value)]
    matrix = torch.tensor(rows, dtype=torch.float64)
    rotation = matrix[:3, :3]
    skewed = (rotation.T @ rotation - torch.eye(3)).abs().max() > ROTATION_TOLERANCE
    if skewed or torch.linalg.det(rotation) < 0 or rows[3] != [0, 0, 0, 1]:
        raise InputError(f"{name} must be a rotation and a translation above the row 0, 0, 0, 1.")
    return -rotation.T @ matrix[:3, 3], quaternion_from_matrix(rotation.T).tolist()


def _numbers(name: str, value: Any, count: int) -> list[float]:
    """`count` finite numbers, a single one not in a list."""
    values = [value] if count == 1 else value
    wanted = "a finite number" if count == 1 else f"a list of {count} finite numbers"
    if not isinstance(values, list) or len(values) != count:
        raise InputError(f"{name} must be {wanted}, got {value!r}.")
    for number in values:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise InputError(f"{name} must be {wanted}, got {value!r}.")
    return [float(number) for number in values]
