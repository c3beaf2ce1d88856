"""Density along rays as far as one can see, asked for from front to back.

Most of what a ray is marched through lies behind the surface it ends at. Going on in parts that grow leaves most of
that out, and waits once a part.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kinosplat.render.field import reference
from kinosplat.render.field.backend import FieldBackend
from kinosplat.render.field.layout import Space
from kinosplat.render.field.march import sample_points
from kinosplat.render.field.rays import Rays
from kinosplat.render.field.samples import Samples, runs

OPAQUE = -math.log(reference.STOP) + 0.1
"""Optical thickness behind which nothing is seen, with room for sums in another order."""


@torch.no_grad()
def density_in_sight(
    density: Callable[[Tensor], Tensor],
    rays: Rays,
    samples: Samples,
    space: Space,
    backend: FieldBackend,
    n_first: int | None,
) -> tuple[Samples, Tensor]:
    """The first (S,) samples of each ray, at least those that can be seen, and their densities.

    density: (M,) at (M, 3) grid positions. It is asked for the first `n_first` samples of each ray, then for twice as
    many of those that go on, and so on; with None for all at once.
    """
    if n_first is None:
        return samples, density(sample_points(rays.origins, rays.directions, samples, space, backend)[0])
    starts, counts = samples.offsets[:-1], samples.offsets.diff()
    values, optical = torch.zeros_like(samples.t), samples.t.new_zeros(len(rays))
    first, n = 0, n_first
    going_on = counts.nonzero()[:, 0]
    met = torch.zeros_like(counts)
    while len(going_on) > 0:
        n_more = (counts[going_on] - first).clamp_max(n)
        places = runs(starts[going_on] + first, n_more)
        offsets = torch.nn.functional.pad(n_more.cumsum(0), (1, 0))
        part = Samples(offsets, samples.t[places], samples.dt[places])
        positions, _ = sample_points(rays.origins[going_on], rays.directions[going_on], part, space, backend)
        values[places] = density(positions).to(values)
        met[going_on] += n_more
        optical.index_add_(0, torch.repeat_interleave(going_on, n_more), values[places] * part.dt)
        first, n = first + n, 2 * n
        going_on = going_on[(optical[going_on] < OPAQUE) & (counts[going_on] > first)]
    places = runs(starts, met)
    offsets = torch.nn.functional.pad(met.cumsum(0), (1, 0))
    return Samples(offsets, samples.t[places], samples.dt[places]), values[places]
