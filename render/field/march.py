"""Samples along rays, by any backend; nothing here is differentiable but the points themselves."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kinosplat.render.field import native, reference
from kinosplat.render.field.backend import FieldBackend
from kinosplat.render.field.layout import Space
from kinosplat.render.field.marching import OccupiedCells, RayParts
from kinosplat.render.field.picture_blocks import PictureBlocks
from kinosplat.render.field.samples import Samples

MarchBy = Literal["rays", "blocks"]
"""How a picture finds its samples: along each ray, or by the occupied blocks of cells that it shows (RT-NeRF)."""


def march(rays: RayParts, cells: OccupiedCells, backend: FieldBackend, picture: PictureBlocks | None = None) -> Samples:
    """Samples of R rays in occupied cells (marching.py).

    With `picture` the rays are its pixels and occupied blocks are visited instead; the reference finds the same samples
    along the rays.
    """
    if backend == "reference":
        return reference.march(rays, cells)
    return native.march(rays, cells, picture=picture)


def sample_points(
    origins: Tensor, directions: Tensor, samples: Samples, space: Space, backend: FieldBackend
) -> tuple[Tensor, Tensor]:
    """Grid positions and directions (S, 3) of the samples; by the reference where rays carry gradients (poses)."""
    if backend == "reference" or (torch.is_grad_enabled() and (origins.requires_grad or directions.requires_grad)):
        return reference.sample_points(origins, directions, samples, space)
    return native.sample_points(origins, directions, samples, space)


@torch.no_grad()
def ray_range(origins: Tensor, directions: Tensor, space: Space, near: float) -> tuple[Tensor, Tensor]:
    """(near, far) (R,) each: where rays are inside the outermost cube and at least `near` away; far = near outside."""
    low, high = ((bound * space.reach) * space.half_extent for bound in (-1.0, 1.0))
    center = origins.new_tensor(space.center)
    inverse = 1.0 / torch.where(directions == 0, 1e-20, directions)
    a, b = (low + center - origins) * inverse, (high + center - origins) * inverse
    enters = torch.minimum(a, b).amax(dim=1).clamp_min(near)
    leaves = torch.maximum(a, b).amin(dim=1)
    return enters, torch.maximum(leaves, enters)
