"""Marching by occupied blocks (RT-NeRF, Li et al. 2022): which blocks of cells a picture shows, where, in which order.

The blocks of 8^3 cells with an occupied one are projected to the picture, and each is visited only by the rays of the
pixels it may cover, instead of every ray passing all the empty space. They come in an order in which no block lies
behind a later one, for all rays at once: along a ray from the camera the distance in blocks from the camera's own block
never falls on any axis, so blocks are ordered by the sum of the three. Only for spaces of one cascade, whose blocks lie
on one lattice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.render.camera import Camera
from kinosplat.render.field.marching import OccupiedCells

BLOCK_CELLS = 8
"""Cells along one side of a block."""
MARGIN = 1e-3
"""Blocks are projected larger by this share of their edge: rounding must not lose a ray at a corner."""


@dataclass(frozen=True)
class PictureBlocks:
    """Occupied blocks that a picture may show."""

    blocks: Tensor
    """(M,) int32, number x + n (y + n z) of each with n blocks along an axis, front to back."""
    rectangles: Tensor
    """(M, 4) int32, first and last column, first and last row of the pixels it may cover."""
    occupied: Tensor
    """(n^3,) uint8, not zero for every occupied block, in the picture or not."""
    width: int
    """Pixels across the picture."""
    height: int
    """Pixels down the picture."""

    def rows(self, first: int, last: int) -> PictureBlocks:
        """The part of the picture from row `first` up to before row `last`."""
        shift = self.rectangles.new_tensor([0, 0, first, first])
        return replace(self, rectangles=self.rectangles - shift, height=last - first)


def picture_blocks(occupied: Tensor, camera: Camera, cells: OccupiedCells) -> PictureBlocks:
    """Order and project the blocks of cells that `occupied` (n^3,) uint8 marks (`native.occupied_blocks`)."""
    space = cells.space
    if space.n_cascades != 1:
        raise InputError(f"a space of {space.n_cascades} cascades cannot be marched by blocks; march along the rays.")
    n = cells.resolution // BLOCK_CELLS
    blocks = torch.nonzero(occupied).flatten()
    lattice = torch.stack([blocks % n, blocks // n % n, blocks // (n * n)], dim=1).to(camera.K.dtype)
    center = camera.K.new_tensor(space.center)
    edge = 2 * space.half_extent / n

    camera_block = torch.floor((camera.position - center + space.half_extent) / edge)
    order = torch.argsort((lattice - camera_block).abs().sum(dim=1), stable=True)
    blocks, lattice = blocks[order], lattice[order]

    sides = lattice.new_tensor([-MARGIN, 1 + MARGIN])
    corners = lattice[:, None] + torch.cartesian_prod(sides, sides, sides)
    points = corners * edge + (center - space.half_extent)
    in_camera = points @ camera.world_to_camera[:3, :3].T + camera.world_to_camera[:3, 3]
    depth = in_camera[..., 2]
    # A block that reaches behind the camera has no bounded picture: every pixel may show it, or none.
    beside = (depth <= MARGIN * edge).any(dim=1)
    behind = (depth <= 0).all(dim=1)
    pixels = (in_camera @ camera.K.T)[..., :2] / depth.clamp_min(MARGIN * edge)[..., None]
    size = lattice.new_tensor([camera.width, camera.height])
    low = torch.where(beside[:, None], 0.0, torch.floor(pixels.amin(dim=1)) - 1)
    high = torch.where(beside[:, None], size - 1, torch.ceil(pixels.amax(dim=1)) + 1)
    low, high = low.clamp_min(0).minimum(size), high.minimum(size - 1).clamp_min(-1)
    rectangles = torch.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], dim=1)
    seen = ~behind & (low <= high).all(dim=1)
    return PictureBlocks(
        blocks[seen].to(torch.int32),
        rectangles[seen].to(torch.int32).contiguous(),
        occupied,
        camera.width,
        camera.height,
    )
