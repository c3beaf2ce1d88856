"""The reference of the field gives the values one can work out by hand, and its gradients belong to them."""

from __future__ import annotations

import math

import pytest
import torch

from kinosplat.render.field import reference
from kinosplat.render.field.layout import GridLayout, Space, StepRule
from kinosplat.render.field.marching import OccupiedCells, RayParts
from kinosplat.render.field.samples import Samples

F64 = torch.float64
SMALL = GridLayout(n_levels=3, base_resolution=4, finest_resolution=12, log2_table_size=9)
"""A dense and two hashed levels."""


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class TestEncoding:
    def test_at_a_vertex_it_is_the_vertex(self) -> None:
        table = random(SMALL.n_entries, 2)
        features = reference.encode(torch.tensor([[0.25, 0.5, 0.75]], dtype=F64), table, SMALL)
        assert torch.equal(features[0, :2], table[1 + 5 * (2 + 5 * 3)])
        assert features.shape == (1, 6)

    def test_between_vertices_it_is_linear(self) -> None:
        layout = GridLayout(n_levels=1, base_resolution=4, finest_resolution=4, n_features=1)
        grid = torch.cartesian_prod(*[torch.arange(5, dtype=F64)] * 3)
        table = (grid @ torch.tensor([3.0, 2.0, 1.0], dtype=F64))[:, None]  # z is slowest: the first column
        positions = random(50, 3)
        expected = 4 * positions @ torch.tensor([1.0, 2.0, 3.0], dtype=F64)
        assert torch.allclose(reference.encode(positions, table, layout)[:, 0], expected, atol=1e-12)

    def test_the_far_face_belongs_to_the_last_cell_and_outside_is_the_nearest_point(self) -> None:
        table = random(SMALL.n_entries, 2)
        at = torch.tensor([[1.0, 1.0, 1.0], [3.0, 1.5, 1.0], [1.0, 0.2, 0.2], [9.0, 0.2, 0.2]], dtype=F64)
        features = reference.encode(at, table, SMALL)
        assert torch.equal(features[0, :2], table[124])
        assert torch.equal(features[0], features[1])
        assert torch.equal(features[2], features[3])

    def test_the_hash_is_that_of_32_bit_words(self) -> None:
        vertex = torch.tensor([[12, 11, 7]])
        mixed = (12 ^ (11 * 2654435761 % 2**32) ^ (7 * 805459861 % 2**32)) % 512
        assert reference.vertex_entries(vertex, 2, SMALL).item() == SMALL.offsets[2] + mixed

    def test_a_nan_position_has_nan_features_and_leaves_the_others_alone(self) -> None:
        table = random(SMALL.n_entries, 2).requires_grad_()
        features = reference.encode(torch.tensor([[math.nan, 0.5, 0.5], [0.1, 0.2, 0.3]], dtype=F64), table, SMALL)
        assert features[0].isnan().all()
        assert features[1].isfinite().all()

    def test_gradients_to_table_and_positions(self) -> None:
        layout = GridLayout(n_levels=2, base_resolution=2, finest_resolution=5, log2_table_size=6)
        table, positions = random(layout.n_entries, 2).requires_grad_(), (0.9 * random(4, 3)).requires_grad_()
        assert torch.autograd.gradcheck(lambda t, p: reference.encode(p, t, layout), (table, positions))


class TestNetwork:
    def test_it_is_a_perceptron_without_biases(self) -> None:
        weights = [torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0], [-3.0]])]
        outputs = reference.mlp(torch.tensor([[3.0, 1.0], [1.0, 3.0]]), weights)
        assert outputs.tolist() == [[4.0, -6.0], [0.0, 0.0]]

    def test_gradients(self) -> None:
        weights = [random(5, 4, seed=1) - 0.5, random(3, 5, seed=2) - 0.5]
        inputs = [tensor.requires_grad_() for tensor in (random(6, 4), *weights)]
        assert torch.autograd.gradcheck(lambda x, a, b: reference.mlp(x, [a, b]), inputs)


class TestSpace:
    unbounded = Space(center=(1.0, 0.0, -1.0), half_extent=2.0, n_cascades=4, contract=True)

    def test_a_bounded_space_fills_the_grid(self) -> None:
        space = Space(center=(1.0, 0.0, -1.0), half_extent=2.0)
        corners = torch.tensor([[-1.0, -2.0, -3.0], [3.0, 2.0, 1.0]])
        assert reference.grid_positions(corners, space).tolist() == [[0.0] * 3, [1.0] * 3]

    def test_contraction_keeps_the_inner_cube_and_brings_infinity_to_the_face(self) -> None:
        points = torch.tensor([[3.0, 2.0, 1.0], [1e9, 0.0, -1.0]])
        positions = reference.grid_positions(points, self.unbounded)
        assert positions[0].tolist() == [0.75] * 3
        assert positions[1].tolist() == pytest.approx([1.0, 0.5, 0.5], abs=1e-6)

    @pytest.mark.parametrize("space", [unbounded, Space(half_extent=0.5)])
    def test_world_points_undoes_grid_positions(self, space: Space) -> None:
        positions = 0.05 + 0.9 * random(200, 3)
        assert torch.allclose(
            reference.grid_positions(reference.world_points(positions, space), space), positions, atol=1e-12
        )

    def test_contraction_has_a_gradient_everywhere(self) -> None:
        points = ((random(40, 3) - 0.5) * 30).requires_grad_()
        assert torch.autograd.gradcheck(lambda p: reference.grid_positions(p, self.unbounded), points)

    def test_a_point_is_in_the_smallest_cascade_that_holds_it(self) -> None:
        u = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.001, 0.0, 0.0], [7.9, 0.0, 0.0], [8.1, 0.0, 0.0]])
        points = reference.points_from_unit(u, self.unbounded)
        cells = reference.occupancy_cells(points, self.unbounded, 8)
        assert (cells[:4] // 512).tolist() == [0, 0, 1, 3]
        assert cells[4].item() == -1
        assert cells[0].item() == 4 + 8 * (4 + 8 * 4)


def march(bits: torch.Tensor, space: Space, rule: StepRule, *, resolution: int = 8, jitter: float = 0.0) -> Samples:
    """One ray along x from u = -2, through the middle of a row of cells."""
    start = reference.points_from_unit(torch.tensor([[-2.0, 0.1, 0.1]], dtype=F64), space)
    one = torch.ones(1, dtype=F64)
    direction = torch.tensor([[1.0, 0.0, 0.0]], dtype=F64)
    return reference.march(
        RayParts(start, direction, 0 * one, 4 * one, jitter * one), OccupiedCells(bits, space, rule, resolution)
    )


class TestMarching:
    space = Space()
    rule = StepRule(n_steps=32)

    def test_samples_are_evenly_spaced_inside_the_occupied_cells_only(self) -> None:
        occupied = torch.zeros(8, 8, 8, dtype=torch.bool)
        occupied[4, 4, 2:4] = True  # x from -0.5 to 0, that is t from 1.5 to 2
        samples = march(reference.pack_bits(occupied.flatten()), self.space, self.rule)
        step = 2 * math.sqrt(3) / 32
        middles = samples.t + samples.dt / 2
        assert samples.offsets.tolist() == [0, len(samples)]
        assert torch.allclose(samples.dt, torch.full_like(samples.dt, step))
        assert ((middles >= 1.5) & (middles < 2.0)).all()
        assert len(samples) == sum(1.5 <= (i + 0.5) * step < 2.0 for i in range(100))

    def test_all_occupied_is_the_cube_and_nothing_outside(self) -> None:
        samples = march(torch.full((64,), 255, dtype=torch.uint8), self.space, self.rule)
        middles = samples.t + samples.dt / 2
        assert middles.min() > 1.0
        assert middles.max() < 3.0
        assert abs(len(samples) * samples.dt[0].item() - 2.0) < samples.dt[0]

    def test_the_jitter_moves_all_samples_by_a_part_of_a_step(self) -> None:
        bits = torch.full((64,), 255, dtype=torch.uint8)
        still, moved = march(bits, self.space, self.rule), march(bits, self.space, self.rule, jitter=0.25)
        phase = ((moved.t[0] - still.t[0]) / still.dt[0]).item() % 1.0
        assert phase == pytest.approx(0.25, abs=1e-9)

    def test_what_is_skipped_does_not_move_what_is_seen(self) -> None:
        everything = torch.ones(512, dtype=torch.bool)
        sparse = torch.rand(512, generator=torch.Generator().manual_seed(3)) < 0.5
        space = Space(n_cascades=1, contract=True)
        rule = StepRule(n_steps=200, cone_angle=1 / 64)
        dense = march(reference.pack_bits(everything), space, rule)
        few = march(reference.pack_bits(sparse), space, rule)
        assert 0 < len(few) < len(dense)
        assert torch.isin(few.t, dense.t).all()

    def test_steps_grow_with_the_distance_between_their_limits(self) -> None:
        space = Space(n_cascades=3, contract=True)
        rule = StepRule(n_steps=64, cone_angle=0.1)
        bits = torch.full((3 * 64,), 255, dtype=torch.uint8)
        samples = march(bits, space, rule)
        dt_min, dt_max = rule.limits(space, 8)
        assert torch.allclose(samples.dt, (samples.t * 0.1).clamp(dt_min, dt_max))
        assert torch.allclose(samples.t[1:], samples.t[:-1] + samples.dt[:-1])

    def test_a_ray_without_a_direction_sees_nothing(self) -> None:
        origins, ones = torch.zeros(2, 3), torch.ones(2)
        directions = torch.tensor([[0.0, 0.0, 0.0], [math.nan, 1.0, 0.0]])
        bits = torch.full((64,), 255, dtype=torch.uint8)
        parts = RayParts(origins, directions, 0 * ones, ones, 0 * ones)
        samples = reference.march(parts, OccupiedCells(bits, self.space, self.rule, 8))
        assert samples.offsets.tolist() == [0, 0, 0]

    def test_bits_are_packed_lowest_first(self) -> None:
        values = torch.zeros(16, dtype=torch.bool)
        values[[0, 9]] = True
        assert reference.pack_bits(values).tolist() == [1, 2]
        assert torch.equal(reference.unpack_bits(reference.pack_bits(values)), values)


class TestCompositing:
    def test_a_slab_of_constant_density_absorbs_by_beers_law(self) -> None:
        n, length, density = 4000, 2.0, 1.5
        dt = torch.full((n,), length / n, dtype=F64)
        t = 1.0 + torch.arange(n, dtype=F64) * dt
        seen = reference.composite(
            torch.full((n,), density, dtype=F64), torch.full((n, 3), 0.5, dtype=F64), t, dt, torch.tensor([0, n])
        )
        alpha = 1 - math.exp(-density * length)
        depth = 1 / density + 1 - (1 / density + 3) * math.exp(-density * length)
        assert seen.alpha.item() == pytest.approx(alpha, abs=1e-12)
        assert seen.rgb[0].tolist() == pytest.approx([alpha / 2] * 3, abs=1e-12)
        assert seen.depth.item() == pytest.approx(depth, abs=1e-6)  # measured 1e-8: midpoints of 4000 steps

    def test_the_distortion_is_the_double_sum(self) -> None:
        dt = 0.1 + random(7)
        t, density = dt.cumsum(0) - dt, 3 * random(7, seed=1)
        seen = reference.composite(density, random(7, 3), t, dt, torch.tensor([0, 7]), stop=0.0)
        transmittance = torch.exp(-torch.cat([torch.zeros(1, dtype=F64), (density * dt).cumsum(0)[:-1]]))
        w, m = transmittance * (1 - torch.exp(-density * dt)), t + dt / 2
        double = (w[:, None] * w[None, :] * (m[:, None] - m[None, :]).abs()).sum() + (w * w * dt).sum() / 3
        assert seen.distortion.item() == pytest.approx(double.item(), abs=1e-12)

    def test_the_sample_that_ends_the_ray_is_the_last_that_counts(self) -> None:
        ones = torch.ones(4, dtype=F64)
        density = torch.tensor([1.0, 5.0, 7.0, 9.0], dtype=F64)  # T: 0.37, 0.0025, 2e-6
        seen = reference.composite(density, torch.eye(4, 3, dtype=F64), ones.cumsum(0), ones, torch.tensor([0, 4]))
        assert seen.n_used.tolist() == [3]
        assert seen.alpha.item() == pytest.approx(1 - math.exp(-13.0), abs=1e-12)

    def test_rays_do_not_mix_and_one_without_samples_sees_nothing(self) -> None:
        offsets = torch.tensor([0, 2, 2, 5])
        density, rgb, t, dt = random(5), random(5, 3), random(5), 0.1 + random(5)
        seen = reference.composite(density, rgb, t, dt, offsets)
        last = reference.composite(density[2:], rgb[2:], t[2:], dt[2:], torch.tensor([0, 3]))
        assert seen.alpha[1].item() == 0.0
        assert torch.equal(seen.rgb[2], last.rgb[0])

    def test_gradients(self) -> None:
        offsets = torch.tensor([0, 3, 3, 8])
        dt = 0.1 + random(8)
        t = dt.cumsum(0)

        def outputs(density: torch.Tensor, rgb: torch.Tensor) -> tuple[torch.Tensor, ...]:
            seen = reference.composite(density, rgb, t, dt, offsets)
            return seen.rgb, seen.alpha, seen.depth, seen.distortion

        inputs = random(8).requires_grad_(), random(8, 3).requires_grad_()
        assert torch.autograd.gradcheck(outputs, inputs)


def test_occupancy_forgets_slowly_and_learns_at_once() -> None:
    density = torch.tensor([1.0, 1.0, 0.0, 0.0] + [0.0] * 4)
    reference.occupancy_update(density, torch.tensor([1, 2, 2]), torch.tensor([0.5, 0.2, 0.3]), 0.5)
    assert density[:4].tolist() == pytest.approx([0.5, 0.5, 0.3, 0.0])
    assert reference.occupancy_pack(density, 0.4).tolist() == [3]


def test_points_of_samples_lie_on_their_rays() -> None:
    origins = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]])
    directions = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    samples = Samples(torch.tensor([0, 1, 3]), torch.tensor([0.4, 0.0, 0.8]), torch.full((3,), 0.2))
    positions, along = reference.sample_points(origins, directions, samples, Space())
    assert positions.tolist() == [pytest.approx(p) for p in ([0.75, 0.5, 0.5], [0.75, 0.55, 0.5], [0.75, 0.95, 0.5])]
    assert along.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
