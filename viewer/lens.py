"""Between viser's camera (vertical field of view, whole canvas) and ours (K in pixels)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from kinosplat.render.camera import Camera
from kinosplat.render.paths import Keyframe
from kinosplat.render.rotations import quaternion_from_matrix


def vertical_fov(camera: Camera) -> float:
    """Radians from the top to the bottom of the picture."""
    return 2 * math.atan(0.5 * camera.height / float(camera.K[1, 1]))


def fitting_fov(camera: Camera, width: int, height: int) -> float:
    """Radians from top to bottom of a page of `width` x `height` on which the whole picture of `camera` is seen."""
    wider = (camera.width / camera.height) / (width / height)
    return 2 * math.atan(max(1.0, wider) * math.tan(0.5 * vertical_fov(camera)))


def camera_of(
    wxyz: Sequence[float], position: Sequence[float], fov: float, width: int, height: int, time: float | None
) -> Camera:
    """The camera of a page; wxyz from camera (OpenCV axes) to world, fov in radians from top to bottom."""
    w, x, y, z = (float(value) for value in wxyz)
    place = (float(position[0]), float(position[1]), float(position[2]))
    return Keyframe(place, (w, x, y, z), math.degrees(fov), 0.0, time).camera(width, height)


def pose_of(camera: Camera) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Rotation from camera to world as a quaternion wxyz, and the position."""
    matrix = camera.world_to_camera.detach().double().cpu()
    return tuple(quaternion_from_matrix(matrix[:3, :3].T).tolist()), tuple((-matrix[:3, :3].T @ matrix[:3, 3]).tolist())


def radius_of(cameras: Sequence[Camera]) -> float:
    """Median distance of the cameras from their middle, world units: what objects drawn for cameras are sized by."""
    places = torch.stack([camera.position.detach().cpu() for camera in cameras])
    return max(float((places - places.mean(dim=0)).norm(dim=1).median()), 0.1)


def orbit_to_show(
    cameras: Sequence[Camera], n_frames: int, times: Sequence[float], width: int, height: int
) -> list[Camera]:
    """The fixed orbit of a benchmark, at a size whose shape may differ: the vertical field of view is kept."""
    from kinosplat.render.paths import orbit

    around = orbit(cameras, n_frames, times=(times[0], times[-1]) if len(times) > 1 else None)
    K = torch.tensor([[1.0, 0, 0.5 * width], [0, 1, 0.5 * height], [0, 0, 1]])
    shown = []
    for camera in around:
        focal = float(camera.K[1, 1]) * height / camera.height
        shown.append(
            Camera(
                camera.world_to_camera,
                K * torch.tensor([[focal, 1, 1], [1, focal, 1], [1, 1, 1]]),
                width,
                height,
                camera.time,
            )
        )
    return shown
