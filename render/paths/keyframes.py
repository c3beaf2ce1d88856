"""Key frames of a camera and the smooth way between them.

A path is played by its own clock ("seconds"), and every place on it may also have a moment of the clip that it looks at
("time"). Paths that cannot be played (no key frame, seconds that do not increase) are refused with a ValueError when
they are made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from kinosplat.render.camera import Camera
from kinosplat.render.rotations import matrix_from_quaternion, quaternion_from_matrix

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Keyframe:
    """One place the camera passes."""

    position: tuple[float, float, float]
    """Centre of projection, scene coordinates."""
    wxyz: tuple[float, float, float, float]
    """Rotation from camera (OpenCV axes) to world, of any length but zero."""
    fov: float
    """Vertical field of view, degrees."""
    seconds: float
    """When the path is here."""
    time: float | None = None
    """Moment of the clip in seconds, or None in a static scene."""

    @staticmethod
    def from_camera(camera: Camera, seconds: float) -> Keyframe:
        """The place, direction, vertical field of view and time of `camera`."""
        x, y, z = camera.position.tolist()
        w, i, j, k = quaternion_from_matrix(camera.world_to_camera[:3, :3].T.double()).tolist()
        fov = math.degrees(2 * math.atan(0.5 * camera.height / camera.K[1, 1].item()))
        return Keyframe((x, y, z), (w, i, j, k), fov, seconds, camera.time)

    def camera(self, width: int, height: int) -> Camera:
        """A float32 camera here with square pixels and the principal point in the middle."""
        rotation = matrix_from_quaternion(torch.tensor(self.wxyz, dtype=torch.float64)).T
        world_to_camera = torch.eye(4, dtype=torch.float64)
        world_to_camera[:3, :3] = rotation
        world_to_camera[:3, 3] = -rotation @ torch.tensor(self.position, dtype=torch.float64)
        focal = 0.5 * height / math.tan(math.radians(0.5 * self.fov))
        K = torch.tensor([[focal, 0, 0.5 * width], [0, focal, 0.5 * height], [0, 0, 1]])
        return Camera(world_to_camera.float(), K, width, height, self.time)


@dataclass(frozen=True)
class CameraPath:
    """Key frames with increasing `seconds`, all with a time or all without; raises ValueError otherwise."""

    keyframes: tuple[Keyframe, ...]
    seconds_to_start: float | None = None
    """Seconds the way from the last key frame back to the first takes; None for a path that ends at the last one."""

    def __post_init__(self) -> None:
        if not self.keyframes:
            raise ValueError("keyframes must hold at least one key frame.")
        seconds = [key.seconds for key in self.keyframes]
        if any(after <= before for before, after in pairwise(seconds)):
            raise ValueError("keyframes must have increasing seconds.")
        if len({key.time is None for key in self.keyframes}) != 1:
            raise ValueError("keyframes must all have a time, or all have none.")
        if self.seconds_to_start is not None and self.seconds_to_start <= 0:
            raise ValueError("seconds_to_start must be above 0.")

    @property
    def duration(self) -> float:
        """Seconds from the first key frame to the last, or around to the first one again."""
        return self.keyframes[-1].seconds - self.keyframes[0].seconds + (self.seconds_to_start or 0.0)

    def cameras(self, width: int, height: int, fps: float) -> list[Camera]:
        """The frames of a video of the path; of a loop, the one that would repeat the first is left out."""
        n_steps = self.duration * fps
        n_frames = max(1, round(n_steps)) if self.seconds_to_start else int(n_steps + 1e-6) + 1
        start = self.keyframes[0].seconds
        return [key.camera(width, height) for key in self.at([start + i / fps for i in range(n_frames)])]

    def at(self, seconds: Sequence[float]) -> list[Keyframe]:
        """Where the camera is at each of `seconds`; a loop goes on for ever, another path rests at its ends.

        Positions follow the Catmull-Rom spline for knots at any distance, rotations the cumulative Bezier curve of Kim,
        Kim and Shin (SIGGRAPH 1995) with tangents of the same rule; both pass the keys without a jump in velocity.
        Field of view and time are interpolated monotonically (PCHIP): between two keys the clip never turns around.
        """
        keys = self.keyframes
        first, end = keys[0].seconds, keys[0].seconds + self.duration
        if len(keys) == 1:
            return [replace(keys[0], seconds=second) for second in seconds]
        if self.seconds_to_start is None:
            clock = np.clip(seconds, first, end)
        else:
            clock = first + (np.asarray(seconds) - first) % self.duration
            # The neighbours across the seam, so that the tangents there are those of a path without one.
            keys = (
                replace(keys[-1], seconds=keys[-1].seconds - self.duration),
                *keys,
                *(replace(key, seconds=key.seconds + self.duration) for key in keys[:2]),
            )
        knots = np.array([key.seconds for key in keys])
        segment = np.clip(np.searchsorted(knots, clock, side="right") - 1, 0, len(knots) - 2)
        u = (clock - knots[segment]) / np.diff(knots)[segment]

        from scipy.interpolate import PchipInterpolator  # half a second that most commands need not wait

        places = _interpolate_places(np.array([key.position for key in keys], dtype=np.float64), knots, segment, u)
        quats = _interpolate_rotations(np.array([key.wxyz for key in keys], dtype=np.float64), knots, segment, u)
        fovs = PchipInterpolator(knots, [key.fov for key in keys])(clock)
        times = [key.time for key in keys if key.time is not None]
        moments = PchipInterpolator(knots, times)(clock).tolist() if times else [None] * len(clock)
        return [
            Keyframe(tuple(place), tuple(quat), fov, second, moment)
            for place, quat, fov, second, moment in zip(
                places.tolist(), quats.tolist(), fovs.tolist(), seconds, moments, strict=True
            )
        ]


def _tangents(knots: FloatArray, steps: FloatArray) -> FloatArray:
    """Velocities (n, 3) at n knots from the (n - 1, 3) steps between them: that of the parabola through three knots."""
    spans = np.diff(knots)[:, None]
    speeds = steps / spans
    inner = (spans[1:] * speeds[:-1] + spans[:-1] * speeds[1:]) / (spans[1:] + spans[:-1])
    return np.concatenate([speeds[:1], inner, speeds[-1:]])


def _bezier_weights(u: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weights (F, 1) of the three sides of the control polygon of a cubic Bezier curve, at u in [0, 1]."""
    u = u[:, None]
    return 1 - (1 - u) ** 3, 3 * u**2 - 2 * u**3, u**3


def _interpolate_places(places: FloatArray, knots: FloatArray, segment: NDArray[np.intp], u: FloatArray) -> FloatArray:
    steps = np.diff(places, axis=0)
    thirds = np.diff(knots)[segment, None] / 3
    tangents = _tangents(knots, steps)
    leave, arrive = tangents[segment] * thirds, tangents[segment + 1] * thirds
    weights = _bezier_weights(u)
    between = steps[segment] - leave - arrive
    return places[segment] + weights[0] * leave + weights[1] * between + weights[2] * arrive


def _interpolate_rotations(
    quats: FloatArray, knots: FloatArray, segment: NDArray[np.intp], u: FloatArray
) -> FloatArray:
    from scipy.spatial.transform import Rotation  # half a second that most commands need not wait

    rotations = Rotation.from_matrix(matrix_from_quaternion(torch.from_numpy(quats)).numpy())
    turns = (rotations[:-1].inv() * rotations[1:]).as_rotvec()
    thirds = np.diff(knots)[segment, None] / 3
    spins = _tangents(knots, turns)
    leave, arrive = spins[segment] * thirds, spins[segment + 1] * thirds
    weights = _bezier_weights(u)
    between = Rotation.from_rotvec(-leave) * Rotation.from_rotvec(turns[segment]) * Rotation.from_rotvec(-arrive)
    curve = (
        rotations[segment]
        * Rotation.from_rotvec(weights[0] * leave)
        * Rotation.from_rotvec(weights[1] * between.as_rotvec())
        * Rotation.from_rotvec(weights[2] * arrive)
    )
    return quaternion_from_matrix(torch.from_numpy(curve.as_matrix())).numpy()
