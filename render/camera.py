"""Pinhole cameras.

OpenCV axes (x right, y down, z forward), pixel (i, j) centred at (j + 0.5, i + 0.5), K in pixels of its own image.
A camera with a matrix of the wrong shape is refused when it is made; values are checked where files are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """One view of the world at one moment; tensors may require gradients (pose and intrinsics refinement)."""

    world_to_camera: Tensor
    """(4, 4) float, rigid transform from world to camera coordinates."""
    K: Tensor
    """(3, 3) float, intrinsics in pixels."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""
    time: float | None = None
    """Seconds from the start of the clip, or None in a static scene."""

    def __post_init__(self) -> None:
        if self.world_to_camera.shape != (4, 4):
            raise ValueError(f"world_to_camera must have shape (4, 4), got {tuple(self.world_to_camera.shape)}.")
        if self.K.shape != (3, 3):
            raise ValueError(f"K must have shape (3, 3), got {tuple(self.K.shape)}.")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"width and height must be at least 1, got {self.width}x{self.height}.")

    @property
    def position(self) -> Tensor:
        """(3,) centre of projection in world coordinates."""
        rotation, translation = self.world_to_camera[:3, :3], self.world_to_camera[:3, 3]
        return -rotation.T @ translation

    @property
    def forward(self) -> Tensor:
        """(3,) unit viewing direction in world coordinates."""
        return self.world_to_camera[2, :3]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Camera:
        """The same camera with its matrices on `device` and in `dtype`."""
        return replace(self, world_to_camera=self.world_to_camera.to(device, dtype), K=self.K.to(device, dtype))

    def at(self, time: float | None) -> Camera:
        """The same camera at another moment."""
        return replace(self, time=time)

    def resized(self, width: int, height: int) -> Camera:
        """The same view on a grid of `width` x `height` pixels; the field of view is kept on both axes."""
        scale = torch.tensor([width / self.width, height / self.height, 1.0], dtype=self.K.dtype, device=self.K.device)
        return replace(self, K=self.K * scale[:, None], width=width, height=height)


def cameras_to(cameras: Sequence[Camera], device: torch.device | str) -> list[Camera]:
    """The same cameras with their matrices on `device`, brought there together: one by one each would be waited for."""
    if not cameras:
        return []
    poses = torch.stack([camera.world_to_camera for camera in cameras]).to(device)
    intrinsics = torch.stack([camera.K for camera in cameras]).to(device)
    return [replace(c, world_to_camera=pose, K=K) for c, pose, K in zip(cameras, poses, intrinsics, strict=True)]


def look_at(
    position: Tensor,
    target: Tensor,
    up: Tensor,
    *,
    K: Tensor,
    width: int,
    height: int,
    time: float | None = None,
) -> Camera:
    """A camera at `position` that looks at `target`, with `up` towards the top of the picture; (3,), world units."""
    forward = torch.nn.functional.normalize(target - position, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=0)
    down = torch.linalg.cross(forward, right)
    rotation = torch.stack([right, down, forward])
    world_to_camera = torch.eye(4, dtype=position.dtype, device=position.device)
    world_to_camera[:3, :3] = rotation
    world_to_camera[:3, 3] = -rotation @ position
    return Camera(world_to_camera, K, width, height, time)
