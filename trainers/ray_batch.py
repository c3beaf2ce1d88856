"""The rays of one step, with what should be seen along them.

Alpha is settled here: a pixel with alpha is composited over a colour of its own, drawn at random, so that a field
cannot paint the background instead of leaving the space empty. Masks weigh pixels or have become alpha already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from kinosplat.render.field.rays import Rays, rays_through
from kinosplat.trainers.pixel_pool import PixelPool

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
    jitter: Tensor
    """(R,) in [0, 1), by how much of a step their samples are moved."""
    weight: Tensor | None = None
    """(R,) how much each ray counts, or None when all count."""
    exposures: Tensor | None = None
    """(R, 3, 4) affine colour corrections, or None."""

    def expose(self, rgb: Tensor) -> Tensor:
        """Colours (R, 3) of the scene as the rays' cameras would have taken them."""
        if self.exposures is None:
            return rgb
        return (self.exposures[:, :, :3] * rgb[:, None, :]).sum(-1) + self.exposures[:, :, 3]


def draw_rays(training: Training, pool: PixelPool, n_rays: int) -> RayBatch:
    """Rays through random pixels of the training views, with the corrections of their cameras."""
    colour = training.background.behind_rays(training.step)
    drawn = pool.draw(training.step, n_rays, None if colour is None else colour.detach())
    rays, background, cameras = Rays(drawn.origins, drawn.directions), drawn.background, pool.cameras
    if colour is not None and colour.requires_grad and not pool.has_alpha:
        background = colour.expand(n_rays, 3)
    if training.poses is not None:
        corrections = training.poses.corrections()[cameras.camera_index]
        world_to_camera = (corrections @ cameras.world_to_camera)[drawn.views]
        rays = rays_through(drawn.places, cameras.inverse_K[drawn.views], world_to_camera)
    exposures = None
    if training.exposure is not None:
        exposures = training.exposure.corrections()[cameras.camera_index[drawn.views]]
    return RayBatch(rays, drawn.target, background, drawn.views, drawn.places, drawn.jitter, drawn.weight, exposures)
