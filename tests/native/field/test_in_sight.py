"""Asking for the density from front to back finds what can be seen, and little else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kinosplat.render.field.backend import FieldBackend
from kinosplat.render.field.composite import visible_part
from kinosplat.render.field.in_sight import density_in_sight
from kinosplat.render.field.layout import Space
from kinosplat.render.field.rays import Rays
from kinosplat.render.field.samples import runs
from native.field.rays import ragged_samples, rays

COUNTS = [0, 1, 5, 200, 0, 64, 65, 17]
SPACE = Space(half_extent=20.0)


def wavy(positions: Tensor) -> Tensor:
    """Thin in some places and dense in others, (S,) at (S, 3)."""
    return 4.0 * (1 + torch.sin(400.0 * positions.sum(dim=1)))


def drawn_rays() -> Rays:
    parts = rays(len(COUNTS), torch.float32, SPACE)
    return Rays(parts.origins, parts.directions)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("n_first", [1, 8, 1000])
def test_parts_find_what_can_be_seen(n_first: int, backend: FieldBackend) -> None:
    samples = ragged_samples(COUNTS, torch.float32)
    everything, density = density_in_sight(wavy, drawn_rays(), samples, SPACE, backend, None)
    assert everything is samples
    met, met_density = density_in_sight(wavy, drawn_rays(), samples, SPACE, backend, n_first)
    expected = visible_part(density, samples, backend)
    found = visible_part(met_density, met, backend)
    assert found.offsets.equal(expected.offsets)
    assert found.t.equal(expected.t)
    # Of 352 samples 102 can be seen; asked for are 116, 159 and all.
    assert 0.2 * len(samples) < len(found) < 0.4 * len(samples)
    assert len(found) <= len(met)
    assert (len(met) < 0.5 * len(samples)) == (n_first < 1000)


def test_rays_without_samples_see_nothing() -> None:
    samples = ragged_samples([0] * len(COUNTS), torch.float32)
    met, density = density_in_sight(wavy, drawn_rays(), samples, SPACE, "native", 8)
    assert len(met) == len(density) == 0
    assert met.offsets.equal(samples.offsets)


def test_runs_count_up_from_each_start() -> None:
    assert runs(torch.tensor([7, 0, 3]), torch.tensor([2, 0, 3])).tolist() == [7, 8, 3, 4, 5]
