"""The rays of one step, with what should be seen along them.

Alpha is settled here: a pixel with alpha is composited over a colour of its own, drawn at random, so that a field
cannot paint the background instead of leaving the space empty. Masks weigh pixels or have become alpha already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinosplat.render.field.rays import Rays, rays_through
from kinosplat.scenes import View
from kinosplat.trainers.draws import generator
from kinosplat.trainers.pixel_pool import Pixels

if TYPE_CHECKING:
    from kinosplat.trainers.training import Training


@dataclass(frozen=True)
class RayBatch:
    """R rays."""

    rays: Rays
    """In world coordinates; they carry gradients when poses are refined."""
    target: Tensor
    """(R, 3) what should be seen over `background`."""
    background: Tensor
    """(R, 3) colour behind each ray; carries a gradient when it is learned."""
    views: Tensor
    """(R,) int64 which training views they belong to."""
    places: Tensor
    """(R, 2) pixels they go through."""
    weight: Tensor | None = None
    """(R,) how much each ray counts, or None when all count."""
    exposures: Tensor | None = None
    """(R, 3, 4) affine colour corrections, or None."""

    def expose(self, rgb: Tensor) -> Tensor:
        """Colours (R, 3) of the scene as the rays' cameras would have taken them."""
        if self.exposures is None:
            return rgb
        return (self.exposures[:, :, :3] * rgb[:, None, :]).sum(-1) + self.exposures[:, :, 3]


@dataclass(frozen=True)
class CameraMatrices:
    """V views' cameras, one row a view, so that rays can pick theirs on the device."""

    inverse_K: Tensor
    """(V, 3, 3)."""
    world_to_camera: Tensor
    """(V, 4, 4) as given, without corrections."""
    camera_index: Tensor
    """(V,) int64, which physical camera took the view."""

    @staticmethod
    def of(views: Sequence[View], device: torch.device) -> CameraMatrices:
        """The cameras of `views`."""
        cameras = [view.camera for view in views]
        return CameraMatrices(
            torch.linalg.inv(torch.stack([camera.K for camera in cameras]).double()).float().to(device),
            torch.stack([camera.world_to_camera for camera in cameras]).to(device),
            torch.tensor([view.camera_index for view in views], device=device),
        )


def draw_rays(training: Training, matrices: CameraMatrices, pixels: Pixels) -> RayBatch:
    """Rays through `pixels` of the training views, with the corrections of their cameras."""
    world_to_camera = matrices.world_to_camera
    if training.poses is not None:
        world_to_camera = training.poses.corrections()[matrices.camera_index] @ world_to_camera
    rays = rays_through(pixels.places, matrices.inverse_K[pixels.views], world_to_camera[pixels.views])
    background = training.background.colors(training.step, len(pixels.rgb))
    target = pixels.rgb
    if pixels.alpha is not None:
        draws = generator(training.config.schedule.seed, training.step, "backgrounds", training.device)
        background = torch.rand(pixels.rgb.shape, generator=draws, device=training.device)
        target = target * pixels.alpha[:, None] + background * (1 - pixels.alpha[:, None])
    exposures = None
    if training.exposure is not None:
        exposures = training.exposure.corrections()[matrices.camera_index[pixels.views]]
    return RayBatch(rays, target, background, pixels.views, pixels.places, pixels.weight, exposures)
