"""Marching by occupied blocks finds the same samples as marching along rays, and looks at fewer cells."""

from __future__ import annotations

import pytest
import torch

from kinosplat.render.camera import look_at
from kinosplat.render.field import native
from kinosplat.render.field.layout import Space, StepRule
from kinosplat.render.field.marching import OccupiedCells, RayParts
from kinosplat.render.field.picture_blocks import picture_blocks
from kinosplat.render.field.rays import camera_rays
from native.field.rays import sparse_bits

SPACE, RULE, RESOLUTION = Space(center=(0.5, -1.0, 2.0), half_extent=1.5), StepRule(200), 64

# From outside at an angle, straight on to a face, close to a corner, from inside, from inside right at a block's face,
# past the cube.
VIEWS = [
    ((4.0, 1.0, 3.0), (0.5, -1.0, 2.0)),
    ((0.5, -1.0, -4.0), (0.5, -1.0, 2.0)),
    ((2.1, 0.7, 3.7), (0.5, -1.0, 2.0)),
    ((0.7, -1.2, 2.3), (2.0, 0.0, 1.0)),
    ((0.5, -1.0, 2.0), (2.0, -0.3, 1.0)),
    ((4.0, 1.0, 3.0), (4.0, 5.0, 4.0)),
]


@pytest.mark.parametrize(("position", "target"), VIEWS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_samples_are_those_of_marching_along_the_rays(
    position: tuple[float, ...], target: tuple[float, ...], dtype: torch.dtype, share: float
) -> None:
    camera = look_at(
        torch.tensor(position, dtype=dtype),
        torch.tensor(target, dtype=dtype),
        torch.tensor([0.0, 1.0, 0.0], dtype=dtype),
        K=torch.tensor([[40.0, 0, 24], [0, 40, 17], [0, 0, 1]], dtype=dtype),
        width=45,
        height=35,
    )
    pixels = camera_rays(camera)
    n = len(pixels)
    near, far = torch.full((n,), 0.05, dtype=dtype), torch.full((n,), 20.0, dtype=dtype)
    jitter = torch.rand(n, generator=torch.Generator().manual_seed(0)).to(dtype)
    bits = sparse_bits(1, RESOLUTION, share, singles=0.0 if share == 0.1 else 0.002)
    parts = RayParts(pixels.origins.contiguous(), pixels.directions, near, far, jitter)
    cells = OccupiedCells(bits, SPACE, RULE, RESOLUTION)
    along, by_blocks = torch.empty(n, dtype=torch.int32), torch.empty(n, dtype=torch.int32)
    expected = native.march(parts, cells, n_visited=along)
    occupied = native.occupied_blocks(cells)
    picture = picture_blocks(occupied, camera, cells)
    samples = native.march(parts, cells, picture=picture, n_visited=by_blocks)
    assert torch.equal(samples.offsets, expected.offsets)
    assert torch.equal(samples.t, expected.t)
    assert torch.equal(samples.dt, expected.dt)
    assert len(picture.blocks) <= int((occupied > 0).sum())
    misses = (position, target) == VIEWS[-1]
    assert (len(samples) == 0) == misses
    if share == 0.1 and not misses:
        assert by_blocks.sum() < along.sum()


def test_a_space_of_several_cascades_is_refused() -> None:
    camera = look_at(
        torch.tensor([4.0, 1.0, 3.0]), torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]), K=torch.eye(3), width=1, height=1
    )
    cells = OccupiedCells(sparse_bits(2, 16, 0.1), Space(n_cascades=2, contract=True), RULE, 16)
    with pytest.raises(ValueError, match="a space of 2 cascades cannot be marched by blocks; march along the rays"):
        picture_blocks(torch.zeros(8, dtype=torch.uint8), camera, cells)


def test_rays_that_are_no_picture_are_refused() -> None:
    camera = look_at(
        torch.tensor([4.0, 1.0, 3.0]), torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]), K=torch.eye(3), width=3, height=2
    )
    cells = OccupiedCells(sparse_bits(1, RESOLUTION, 0.1), SPACE, RULE, RESOLUTION)
    picture = picture_blocks(native.occupied_blocks(cells), camera, cells)
    five = RayParts(torch.ones(5, 3), torch.ones(5, 3), *torch.ones(3, 5))
    with pytest.raises(ValueError, match="origins must be those of every pixel, line by line"):
        native.march(five, cells, picture=picture)
