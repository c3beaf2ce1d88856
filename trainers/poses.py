"""A small rigid correction for each camera: world_to_camera is multiplied from the left by exp(xi), xi in se(3).

Moving all cameras alike changes nothing that training could see, but moves the scene away from held-out cameras. So the
mean motion of the training cameras, taken in the world's frame, is removed from every correction. Translations are
counted in scene radii, which makes one learning rate fit rotations and translations.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kinosplat.render.camera import Camera
from kinosplat.trainers.optim import Group, exponential_decay


def skew(vectors: Tensor) -> Tensor:
    """(..., 3, 3) matrices of the cross products with `vectors` (..., 3)."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*vectors.shape, 3)


def se3_exp(xi: Tensor) -> Tensor:
    """(..., 4, 4) rigid motions of twists (..., 6): rotation vector in radians, then the translation part.

    The matrix exponential of [[w]x, v; 0, 0], which is smooth at zero where the closed form divides by the angle.
    """
    top = torch.cat([skew(xi[..., :3]), xi[..., 3:, None]], dim=-1)
    return torch.linalg.matrix_exp(torch.cat([top, torch.zeros_like(top[..., :1, :])], dim=-2))


def adjoint(motions: Tensor) -> Tensor:
    """(..., 6, 6) maps of twists under changes of frame by `motions` M (..., 4, 4): exp(Ad xi) = M exp(xi) M^-1."""
    rotation, translation = motions[..., :3, :3], motions[..., :3, 3]
    upper = torch.cat([rotation, torch.zeros_like(rotation)], dim=-1)
    return torch.cat([upper, torch.cat([skew(translation) @ rotation, rotation], dim=-1)], dim=-2)


class Poses:
    """The corrections of all physical cameras of a scene; a camera no picture was learned from keeps its pose."""

    def __init__(self, training_poses: dict[int, Tensor], n_cameras: int, radius: float, lr: float) -> None:
        """`training_poses` maps a camera's index, of `n_cameras` in all, to its (4, 4) world_to_camera as given."""
        poses = torch.stack(list(training_poses.values()))
        device = poses.device
        self._indices = torch.tensor(list(training_poses), device=device)
        rate = exponential_decay(lr, 0.01 * lr, warm_up=0.02)
        self.group = Group("poses", torch.zeros(n_cameras, 6, device=device), rate, rows="poses", eps=1e-8)
        self._unit = torch.tensor([1.0, 1.0, 1.0, radius, radius, radius], device=device)
        self._to_camera = adjoint(poses)
        self._to_world = torch.linalg.inv(self._to_camera)

    def corrections(self) -> Tensor:
        """(n_cameras, 4, 4) rigid motions to multiply world_to_camera with from the left, with a gradient."""
        twists = self.group.parameter[self._indices] * self._unit
        mean = (self._to_world @ twists[..., None]).mean(dim=0)
        free = twists - (self._to_camera @ mean)[..., 0]
        return se3_exp(torch.zeros_like(self.group.parameter).index_copy(0, self._indices, free))

    def corrected(self, cameras: list[Camera], indices: list[int]) -> list[Camera]:
        """The cameras with the corrections of their physical cameras, with a gradient."""
        motions = self.corrections()
        # Indexed one by one: a list as the index would be copied to the device, which Python would wait for.
        return [
            replace(camera, world_to_camera=motions[i] @ camera.world_to_camera)
            for camera, i in zip(cameras, indices, strict=True)
        ]
