"""Rays, occupancy and samples that the tests of a field's passes share."""

from __future__ import annotations

import torch
from torch import Tensor

from kinosplat.render.field import reference
from kinosplat.render.field.layout import Space
from kinosplat.render.field.marching import RayParts
from kinosplat.render.field.samples import Samples


def rays(n: int, dtype: torch.dtype, space: Space, seed: int = 0) -> RayParts:
    """Rays that start around the space's cube and look at it from all sides; some miss."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    outside = torch.nn.functional.normalize(normal(n, 3), dim=1) * 3.0
    directions = torch.nn.functional.normalize(0.7 * normal(n, 3) - outside, dim=1)
    center = torch.tensor(space.center, dtype=torch.float64)
    return RayParts(
        origins=(center + space.half_extent * outside).to(dtype),
        directions=directions.to(dtype),
        near=torch.full((n,), 0.05, dtype=dtype),
        far=torch.full((n,), 30.0, dtype=dtype),
        jitter=torch.rand(n, generator=generator, dtype=torch.float64).to(dtype),
    )


def sparse_bits(n_cascades: int, resolution: int, share: float, seed: int = 1, singles: float = 0.002) -> Tensor:
    """Occupancy in clumps that take that share of the blocks, and in a share of single cells anywhere."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n_cascades, *(resolution // 8,) * 3, generator=generator) < share
    cells = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)
    cells = cells & (torch.rand(cells.shape, generator=generator) < 0.5)
    single = torch.rand(cells.shape, generator=generator) < singles
    return reference.pack_bits((cells | single).flatten())


def ragged_samples(counts: list[int], dtype: torch.dtype, seed: int = 2) -> Samples:
    """Samples with those counts a ray, at increasing distances with gaps."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(counts)
    dt = 0.05 + 0.1 * torch.rand(n, generator=generator, dtype=torch.float64)
    gaps = 0.2 * torch.rand(n, generator=generator, dtype=torch.float64)
    offsets = torch.tensor([0, *counts]).cumsum(0)
    ends = (dt + gaps).cumsum(0)
    ray = torch.repeat_interleave(torch.tensor(counts))
    before_ray = torch.cat([ends.new_zeros(1), ends])[offsets[:-1]][ray]
    return Samples(offsets, (ends - dt - before_ray + 1.0).to(dtype), dt.to(dtype))
