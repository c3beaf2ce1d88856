"""Rays through pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.render.camera import Camera


@dataclass(frozen=True)
class Rays:
    """R rays in world coordinates."""

    origins: Tensor
    """(R, 3) world units."""
    directions: Tensor
    """(R, 3) of length 1."""

    def __len__(self) -> int:
        return self.origins.shape[0]

    def part(self, rows: slice) -> Rays:
        """Some of the rays."""
        return Rays(self.origins[rows], self.directions[rows])


def rays_through(pixels: Tensor, inverse_K: Tensor, world_to_camera: Tensor) -> Rays:
    """Rays through (R, 2) pixel coordinates x, y (centres at + 0.5) of cameras (R or 1, 3, 3) and (R or 1, 4, 4)."""
    homogeneous = torch.nn.functional.pad(pixels, (0, 1), value=1.0)
    rotation, translation = world_to_camera[..., :3, :3], world_to_camera[..., :3, 3]
    in_camera = (inverse_K * homogeneous[:, None, :]).sum(-1)
    # The transpose of a rotation times a vector, as a sum over rows: far faster than a batch of tiny matrix products.
    directions = (rotation * in_camera[:, :, None]).sum(-2)
    origins = -(rotation * translation[..., :, None]).sum(-2)
    # Native passes read one row a ray.
    rows = origins.expand_as(directions).contiguous()
    return Rays(rows, torch.nn.functional.normalize(directions, dim=1))


def camera_rays(camera: Camera) -> Rays:
    """H * W rays through the centres of all pixels, row after row."""
    device, dtype = camera.K.device, camera.K.dtype
    y, x = torch.meshgrid(
        torch.arange(camera.height, device=device, dtype=dtype) + 0.5,
        torch.arange(camera.width, device=device, dtype=dtype) + 0.5,
        indexing="ij",
    )
    pixels = torch.stack([x.flatten(), y.flatten()], dim=1)
    return rays_through(pixels, torch.linalg.inv(camera.K)[None], camera.world_to_camera[None])
