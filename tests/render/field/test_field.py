"""Fields, their occupancy grids and their pictures, where one can say what they have to be."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kinosplat.render.camera import Camera, look_at
from kinosplat.render.field import reference, render
from kinosplat.render.field.backend import FieldBackend
from kinosplat.render.field.field import EMPTY_DENSITY, REMOVED, SALIENCY, Field, FieldShape, truncated_exp
from kinosplat.render.field.layout import GridLayout, Space, StepRule
from kinosplat.render.field.march import ray_range
from kinosplat.render.field.occupancy import OccupancyGrid
from kinosplat.render.field.rays import camera_rays
from kinosplat.render.field.reach import SIDE, cells_within, drop_vertices, overlapping, reachable_entries
from kinosplat.render.field.render import render_field

LAYOUT = GridLayout(n_levels=2, n_features=2, base_resolution=4, finest_resolution=8, log2_table_size=10)
BACKENDS: tuple[FieldBackend, ...] = ("native", "reference")


def some_field(*, hollow: bool = False, backend: FieldBackend = "native", space: Space | None = None) -> Field:
    shape = FieldShape(layout=LAYOUT, space=space or Space(), n_hidden=16, hollow=hollow)
    field = Field.create(shape, backend, torch.Generator().manual_seed(0))
    return replace(field, table=torch.randn(field.table.shape, generator=torch.Generator().manual_seed(1)))


def uniform_field(density: float, space: Space) -> Field:
    """The same density and, up to the last bit, grey everywhere: networks of zeros but for a constant path."""
    field = some_field(space=space)
    table = torch.ones_like(field.table)
    first, last = torch.zeros(16, 4), torch.zeros(16, 16)
    first[0, 0] = 1.0
    last[0, 0] = math.log(density / field.shape.density_scale)
    colour = tuple(torch.zeros_like(weight) for weight in field.colour_weights)
    return replace(field, table=table, density_weights=(first, last), colour_weights=colour)


def grid_of(space: Space, resolution: int = 16, n_steps: int = 512) -> OccupancyGrid:
    return OccupancyGrid(space, StepRule(n_steps), resolution, torch.device("cpu"))


def camera(distance: float = 4.0) -> Camera:
    K = torch.tensor([[60.0, 0.0, 16.0], [0.0, 60.0, 12.0], [0.0, 0.0, 1.0]])
    position = torch.tensor([0.0, -distance, 0.0])
    return look_at(position, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]), K=K, width=32, height=24)


class TestField:
    def test_backends_agree(self) -> None:
        native, definition = some_field(hollow=True), some_field(hollow=True, backend="reference")
        positions = torch.rand(500, 3, generator=torch.Generator().manual_seed(2))
        directions = torch.nn.functional.normalize(positions - 0.5, dim=1)
        mine, outputs = native.density(positions)
        truth, expected = definition.density(positions)
        # Measured 2e-7, relative: sums in another order.
        assert torch.allclose(mine, truth, rtol=1e-5)
        assert torch.allclose(native.colour(outputs, directions), definition.colour(expected, directions), atol=1e-5)

    def test_a_field_that_knows_nothing_is_nearly_empty_at_any_scale(self) -> None:
        for extent in (0.5, 20.0):
            shape = FieldShape(layout=LAYOUT, space=Space(half_extent=extent))
            field = Field.create(shape, "native", torch.Generator().manual_seed(0))
            density, _ = field.density(torch.rand(100, 3))
            assert (density * extent).mean().item() == pytest.approx(EMPTY_DENSITY, rel=0.01)

    def test_a_removed_vertex_empties_the_cells_around_it_and_no_others(self) -> None:
        field = some_field(hollow=True)
        assert field.saliency is not None
        saliency = torch.full_like(field.saliency, 3.0)
        saliency[reference.vertex_entries(torch.tensor([[20, 30, 40]]), 0, SALIENCY)] = REMOVED
        field = replace(field, saliency=saliency)
        vertex = torch.tensor([20.0, 30.0, 40.0]) / SIDE
        beside = vertex + torch.tensor([[0.5, 0.5, 0.5], [-0.9, 0.1, -0.9], [1.5, 0.5, 0.5]]) / SIDE
        density, _ = field.density(beside)
        assert density[:2].tolist() == [0.0, 0.0]
        assert density[2] > 0

    def test_the_gate_moves_the_mask_but_not_the_features(self) -> None:
        field = some_field(hollow=True).mapped(lambda tensor: (tensor * 1e-4).requires_grad_())
        density, _ = field.density(torch.rand(50, 3))
        density.sum().backward()
        assert field.saliency is not None
        assert field.saliency.grad is not None
        assert field.table.grad is not None
        # The networks, at 1e-4 of their size, let nothing through to the features; the gate moves the mask.
        assert field.saliency.grad.abs().max() > 1e3 * field.table.grad.abs().max()

    def test_the_exponential_neither_overflows_nor_loses_its_gradient(self) -> None:
        values = torch.tensor([-50.0, 0.0, 200.0], requires_grad=True)
        result = truncated_exp(values)
        result.sum().backward()
        assert result.isfinite().all()
        assert values.grad is not None
        assert (values.grad > 0).all()


class TestOccupancyGrid:
    def test_cells_hold_the_points_that_lie_in_them(self) -> None:
        space = Space(center=(1.0, 2.0, 3.0), half_extent=0.5, n_cascades=3, contract=True)
        grid = OccupancyGrid(space, StepRule(), 8, torch.device("cpu"))
        cells = torch.arange(grid.n_cells)
        points = grid.points(cells, torch.full((grid.n_cells, 3), 0.5))
        found = reference.occupancy_cells(points, space, 8)
        # The inner half of an outer cascade belongs to the one within it.
        outermost = cells >= 8**3
        assert torch.equal(found[~outermost], cells[~outermost])
        assert (found <= cells).all()

    def test_it_finds_the_ball(self) -> None:
        grid = grid_of(Space())
        for key in range(4):
            grid.update(lambda positions: 100.0 * ((2 * positions - 1).norm(dim=1) < 0.5), key)
        centres = grid.points(torch.arange(grid.n_cells), torch.full((grid.n_cells, 3), 0.5))
        distance, cell = centres.norm(dim=1), 2 / 16
        occupied = grid.occupied()
        assert occupied[distance < 0.5 - cell].all()
        assert not occupied[distance > 0.5 + cell].any()

    def test_what_is_gone_is_forgotten(self) -> None:
        grid = grid_of(Space())
        grid.update(lambda positions: torch.full((len(positions),), 50.0), 0)
        assert grid.occupied().all()
        for key in range(120):
            grid.update(lambda positions: torch.zeros(len(positions)), key, grid.n_cells // 4)
        # Thickness 0.34 falls below 0.01 and the mean falls with it, so some cells stay as long as all are alike.
        assert grid.thickness.max() < 0.01

    def test_cells_that_no_camera_sees_stay_empty(self) -> None:
        grid = grid_of(Space())
        grid.learn_only_what_is_seen([camera(distance=0.5)], near=0.1)
        grid.update(lambda positions: torch.full((len(positions),), 50.0), 0)
        centres = grid.points(torch.arange(grid.n_cells), torch.full((grid.n_cells, 3), 0.5))
        behind = centres[:, 1] < -0.5
        assert behind.any()
        assert not grid.occupied()[behind].any()
        assert grid.occupied().any()

    def test_what_two_of_four_cameras_see_stays_empty(self) -> None:
        near, far = camera(distance=0.5), camera(distance=3.0)
        grid, all_see = grid_of(Space()), grid_of(Space())
        all_see.learn_only_what_is_seen([near, near, near], near=0.1)
        grid.learn_only_what_is_seen([near, near, far, far], near=0.1)
        alone = grid_of(Space())
        alone.learn_only_what_is_seen([far, far, far], near=0.1)
        # Three of these four see a cell only where both kinds of camera see it.
        assert (alone.occupied() & ~all_see.occupied()).any()
        assert torch.equal(grid.occupied(), alone.occupied() & all_see.occupied())

    def test_surroundings_farther_out_than_all_cameras_need_to_be_seen_by_one_only(self) -> None:
        near, far = camera(distance=0.5), camera(distance=3.0)
        grid, all_see = (grid_of(Space(n_cascades=4, contract=True)) for _ in range(2))
        all_see.learn_only_what_is_seen([far, far, far], near=0.1)
        grid.learn_only_what_is_seen([near, near, far], near=0.1)
        distance = grid.points(torch.arange(grid.n_cells), torch.full((grid.n_cells, 3), 0.5)).norm(dim=1)
        surroundings = distance > 3.0
        assert (all_see.occupied() & surroundings).any()
        assert grid.occupied()[all_see.occupied() & surroundings].all()
        assert not grid.occupied()[all_see.occupied() & ~surroundings].all()

    def test_a_checkpoint_brings_it_back(self) -> None:
        grid, other = grid_of(Space()), grid_of(Space())
        grid.update(lambda positions: 100.0 * (positions[:, 0] > 0.5), 0)
        other.load(grid.tensors())
        assert torch.equal(grid.bits, other.bits)
        with pytest.raises(ValueError, match=r"occupancy.thickness must have 512 cells\."):
            grid_of(Space(), resolution=8).load(grid.tensors())


class TestPictures:
    space = Space(half_extent=0.5)

    @pytest.mark.parametrize("geometry", [False, True])
    def test_a_cube_of_fog_absorbs_by_beers_law(self, geometry: bool) -> None:
        field, grid = uniform_field(1.5, self.space), grid_of(self.space)
        output = render_field(field, grid, [camera()], torch.tensor([0.0, 0.5, 1.0]), near=0.01, geometry=geometry)
        rays = camera_rays(camera())
        enters, leaves = ray_range(rays.origins, rays.directions, self.space, 0.01)
        expected = 1 - torch.exp(-1.5 * (leaves - enters))
        # Measured 1.1e-3: whole steps of 3.4 thousandths at both faces.
        assert torch.allclose(output.alpha.flatten(), expected, atol=3.4e-3)
        blue = output.rgb[0, ..., 2].flatten()
        assert torch.allclose(blue, 0.5 * expected + (1 - expected), atol=6e-3)
        assert output.n_visible > 0

    @pytest.mark.parametrize("geometry", [False, True])
    def test_going_by_blocks_gives_the_same_picture(self, geometry: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(render, "RAYS", 32 * 5)  # in pieces of five rows, the last one shorter
        field, grid = uniform_field(1.5, self.space), grid_of(self.space)
        grid.bits[::3] = 0
        arguments = (field, grid, [camera()], torch.tensor([0.0, 0.5, 1.0]))
        along = render_field(*arguments, near=0.01, geometry=True)
        by_blocks = render_field(*arguments, near=0.01, geometry=geometry, march_by="blocks")
        assert torch.equal(by_blocks.rgb, along.rgb)
        assert by_blocks.n_visible == along.n_visible
        assert (by_blocks.depth is not None) == geometry

    def test_depth_is_along_the_axis_and_the_median_where_half_is_gone(self) -> None:
        density = 4.0
        field, grid = uniform_field(density, self.space), grid_of(self.space)
        output = render_field(field, grid, [camera()], torch.zeros(3), near=0.01, geometry=True)
        assert output.median_depth is not None
        assert output.depth is not None
        # The middle ray enters at 3.5 and has lost half after ln 2 / density; all pixels see the front face at 3.5.
        middle = output.median_depth[0, 12, 16].item()
        assert middle == pytest.approx(3.5 + math.log(2) / density, abs=0.01)
        length = 1.0
        mean = 1 / density - length * math.exp(-density * length) / (1 - math.exp(-density * length))
        assert output.depth[0, 12, 16].item() == pytest.approx(3.5 + mean, abs=0.01)

    def test_nothing_is_seen_nearer_than_the_near_plane(self) -> None:
        field, grid = uniform_field(50.0, self.space), grid_of(self.space)
        output = render_field(field, grid, [camera(distance=1.0)], torch.zeros(3), near=0.8, geometry=True)
        assert output.median_depth is not None
        assert output.median_depth[0, 12, 16].item() == pytest.approx(0.8 + math.log(2) / 50, abs=0.01)

    def test_empty_cells_show_the_background(self) -> None:
        field, grid = uniform_field(50.0, self.space), grid_of(self.space)
        grid.bits.zero_()
        output = render_field(field, grid, [camera()], torch.tensor([0.2, 0.3, 0.4]), near=0.01, geometry=True)
        assert (output.alpha == 0).all()
        assert torch.allclose(output.rgb, torch.tensor([0.2, 0.3, 0.4]).expand_as(output.rgb))


class TestReach:
    def test_kept_cells_keep_all_their_vertices(self) -> None:
        alive = torch.zeros((SIDE + 1) ** 3, dtype=torch.bool)
        alive[10 + 64 * (20 + 64 * 30)] = True
        cells = cells_within(alive)
        assert cells.sum() == 8
        assert (~drop_vertices(cells)).sum() == 27

    @pytest.mark.parametrize("side", [SIDE, 128])
    def test_no_sample_of_a_kept_cell_reads_a_removed_entry(self, side: int) -> None:
        layout = GridLayout(n_levels=4, base_resolution=4, finest_resolution=200, log2_table_size=12)
        cells = torch.zeros(side**3, dtype=torch.bool)
        chosen = torch.randint(side**3, (3,), generator=torch.Generator().manual_seed(0))
        cells[chosen] = True
        reachable = reachable_entries(cells, layout)
        assert 0 < reachable.sum() < layout.n_entries
        corner = torch.stack([chosen % side, chosen // side % side, chosen // side**2], dim=1)
        inside = (corner[:, None] + torch.rand(1, 400, 3, generator=torch.Generator().manual_seed(1))) / side
        table = torch.zeros(layout.n_entries, 2, requires_grad=True)
        reference.encode(inside.view(-1, 3), table, layout).sum().backward()
        assert table.grad is not None
        read = (table.grad != 0).any(dim=1)
        assert not (read & ~reachable).any()
        # And little more than that is kept: measured 1.11 times the entries that 1200 samples happen to read.
        assert reachable.sum() < 1.5 * read.sum()

    @pytest.mark.parametrize(("side", "other"), [(63, 128), (128, 63), (8, 8), (16, 8), (8, 16)])
    def test_cells_of_two_lattices_overlap_where_they_share_volume(self, side: int, other: int) -> None:
        cell = torch.tensor([1, side // 2, side - 1])
        cells = torch.zeros(side**3, dtype=torch.bool)
        cells[cell[0] + side * (cell[1] + side * cell[2])] = True
        reached = overlapping(cells, other).view(other, other, other)
        i = torch.arange(other)
        # In units of 1 / (side * other), so that nothing is rounded.
        x, y, z = ((i * side < (c + 1) * other) & ((i + 1) * side > c * other) for c in cell)
        assert torch.equal(reached, z[:, None, None] & y[None, :, None] & x[None, None, :])
