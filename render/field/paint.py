"""Pictures of what a field is made of: the cells that rays stop in, and the saliency that gates its features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from kinosplat.render.camera import Camera
from kinosplat.render.field import reference
from kinosplat.render.field.composite import composite
from kinosplat.render.field.field import Field
from kinosplat.render.field.march import sample_points
from kinosplat.render.field.occupancy import OccupancyGrid
from kinosplat.render.field.rays import camera_rays
from kinosplat.render.field.render import RAYS, SAMPLES, march_rays


def painters(
    field: Callable[[], Field], grid: OccupancyGrid, near: float, *, hollow: bool
) -> dict[str, Callable[[Camera], Tensor]]:
    """The pictures of a field by the names a viewer gives them; `field` is asked anew for each."""
    pictures = {"occupied cells": paint_occupancy}
    if hollow:
        pictures["saliency"] = paint_saliency

    def drawn(paint: Callable[[Field, OccupancyGrid, Camera, float], Tensor], camera: Camera) -> Tensor:
        return paint(field(), grid, camera, near)

    return {name: partial(drawn, paint) for name, paint in pictures.items()}


@torch.no_grad()
def paint_occupancy(field: Field, grid: OccupancyGrid, camera: Camera, near: float) -> Tensor:
    """(H, W, 3) each ray in a colour of the first occupied cell it meets, black where it meets none."""
    rays = camera_rays(camera)
    picture = torch.zeros_like(rays.origins)
    for first in range(0, len(rays), RAYS):
        piece = rays.part(slice(first, first + RAYS))
        samples = march_rays(grid, piece, near, torch.zeros(len(piece), device=picture.device), field.backend)
        hit = (samples.offsets.diff() > 0).nonzero()[:, 0]
        nearest = samples.offsets[:-1][hit]
        middle = (samples.t + samples.dt / 2)[nearest, None]
        cells = reference.occupancy_cells(
            piece.origins[hit] + middle * piece.directions[hit], grid.space, grid.resolution
        )
        picture[first + hit] = _cell_colours(cells)
    return picture.unflatten(0, (camera.height, camera.width))


def _cell_colours(cells: Tensor) -> Tensor:
    """(M, 3) colours in [0.2, 1] that differ between neighbouring cells."""
    factors = torch.tensor([2654435761, 805459861, 3674653429], device=cells.device)
    return 0.2 + 0.8 * ((cells[:, None] * factors >> 16) % 256).float() / 255


@torch.no_grad()
def paint_saliency(field: Field, grid: OccupancyGrid, camera: Camera, near: float) -> Tensor:
    """(H, W, 3) saliency of what is seen, grey, black where nothing is."""
    rays = camera_rays(camera)
    pieces = []
    for first in range(0, len(rays), RAYS):
        piece = rays.part(slice(first, first + RAYS))
        samples = march_rays(grid, piece, near, torch.zeros(len(piece), device=field.device), field.backend)
        positions, _ = sample_points(piece.origins, piece.directions, samples, grid.space, field.backend)
        parts = [(field.density(part)[0], field.saliency_at(part)) for part in positions.split(SAMPLES)]
        density, saliency = (torch.cat(values) for values in zip(*parts, strict=True))
        pieces.append(composite(density, saliency.expand(-1, 3).contiguous(), samples, field.backend).rgb)
    return torch.cat(pieces).unflatten(0, (camera.height, camera.width))
