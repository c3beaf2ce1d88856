"""Marching jumps over empty space and still finds exactly the samples of the reference, which looks everywhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kinosplat.render.field import native, reference
from kinosplat.render.field.layout import Space, StepRule
from kinosplat.render.field.marching import OccupiedCells, RayParts
from native.field.rays import rays, sparse_bits

STAGES = {
    "cube": (Space(), StepRule(128), 32),
    "elsewhere": (Space(center=(1.0, 2.0, 3.0), half_extent=2.0), StepRule(200), 64),
    "unbounded": (Space(n_cascades=4, contract=True), StepRule(128, 1 / 64), 32),
    "few long steps": (Space(half_extent=0.5), StepRule(16), 64),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("share", [0.0, 0.05, 1.1])
def test_samples_are_those_of_the_reference(stage: str, dtype: torch.dtype, share: float) -> None:
    space, rule, resolution = STAGES[stage]
    bundle = rays(300, dtype, space)
    bits = sparse_bits(space.n_cascades, resolution, share)
    cells = OccupiedCells(bits, space, rule, resolution)
    expected = reference.march(bundle, cells)
    n_visited = torch.empty(300, dtype=torch.int32)
    samples = native.march(bundle, cells, n_visited=n_visited)
    assert len(expected) > 0
    assert torch.equal(samples.offsets, expected.offsets)
    # Measured: float64 1.6e-14, float32 5e-7 at distances up to 25.
    torch.testing.assert_close(samples.t, expected.t, rtol=0, atol=1e-13 if dtype == torch.float64 else 5e-6)
    torch.testing.assert_close(samples.dt, expected.dt, rtol=1e-6, atol=0)
    assert (n_visited >= samples.offsets.diff()).all()
    if share == 0.0 and rule.n_steps > 100:  # nearly empty: whole blocks are passed at a time
        steps = reference.march(bundle, replace(cells, bits=torch.full_like(bits, 255))).offsets.diff()
        assert n_visited.sum() < 0.5 * steps.sum()

    points = native.sample_points(bundle.origins, bundle.directions, samples, space)
    for ours, theirs in zip(
        points, reference.sample_points(bundle.origins, bundle.directions, samples, space), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14 if dtype == torch.float64 else 1e-6)


def test_rays_that_see_nothing_have_no_samples() -> None:
    space, rule, resolution = STAGES["cube"]
    full = torch.full((resolution**3 // 8,), 255, dtype=torch.uint8)
    origins = torch.tensor([[0.0, 0.0, -3.0]]).repeat(7, 1)
    directions = torch.tensor([[0.0, 0.0, 1.0]]).repeat(7, 1)
    near, far = torch.full((7,), 0.1), torch.full((7,), 10.0)
    directions[0] = 0.0
    directions[1, 2] = torch.nan
    directions[2] = torch.tensor([0.0, 0.0, -1.0])  # looks away
    far[3] = near[3]
    far[4] = 1.0  # ends before the cube
    near[5] = torch.nan
    samples = native.march(
        RayParts(origins, directions, near, far, torch.zeros(7)), OccupiedCells(full, space, rule, resolution)
    )
    counts = samples.offsets.diff()
    assert (counts[:6] == 0).all()
    assert counts[6] > 0


def test_a_ray_without_an_end_stops_at_the_cube_and_steps_too_small_to_count_end_it() -> None:
    space, rule, resolution = STAGES["cube"]
    full = torch.full((resolution**3 // 8,), 255, dtype=torch.uint8)
    origins, directions = torch.tensor([[0.0, 0.0, -3.0], [0.0, 0.0, -1e9]]), torch.tensor([[0.0, 0.0, 1.0]] * 2)
    near, far = torch.tensor([0.0, 9e8]), torch.tensor([torch.inf, torch.inf])
    samples = native.march(
        RayParts(origins, directions, near, far, torch.zeros(2)), OccupiedCells(full, space, rule, resolution)
    )
    assert samples.t.isfinite().all()
    assert 0 < samples.offsets[1] < 2 * rule.n_steps
    assert samples.offsets[2] == samples.offsets[1]


def test_no_rays_give_no_samples() -> None:
    space, rule, resolution = STAGES["cube"]
    nothing = RayParts(*(values[:0].clone() for values in vars(rays(1, torch.float32, space)).values()))
    samples = native.march(nothing, OccupiedCells(sparse_bits(1, resolution, 0.1), space, rule, resolution))
    assert samples.offsets.tolist() == [0]
    assert len(samples) == 0


def test_occupancy_of_another_size_is_refused() -> None:
    space, rule, resolution = STAGES["cube"]
    bundle, bits = rays(1, torch.float32, space), sparse_bits(1, 16, 0.1)
    with pytest.raises(ValueError, match=r"bits must have shape \(4096,\), got \(512,\)"):
        native.march(bundle, OccupiedCells(bits, space, rule, resolution))
    with pytest.raises(ValueError, match="the occupancy resolution must be a multiple of 8"):
        native.march(bundle, OccupiedCells(bits, space, rule, 20))


def test_occupancy_decays_rises_and_is_packed() -> None:
    density = torch.rand(4096, generator=torch.Generator().manual_seed(0))
    cells = torch.tensor([3, 70, 3, 4095])
    values = torch.tensor([0.5, 9.0, 2.0, 0.0])
    expected = density.clone()
    reference.occupancy_update(expected, cells, values, 0.95)
    native.occupancy_update(density, cells, values, 0.95)
    assert torch.equal(density, expected)
    assert density[3] == 2.0
    assert torch.equal(native.occupancy_pack(density, 0.4), reference.occupancy_pack(density, 0.4))
