"""The steps of finding first points, each against a plain definition."""

from __future__ import annotations

import torch

from kinosplat.scenes.points.candidates import Candidates
from kinosplat.scenes.points.fusion import agreement, fill, n_seen_through
from kinosplat.scenes.points.pictures import separate, spread
from kinosplat.scenes.points.plane_sweep import Matcher, parabola, semi_global
from kinosplat.scenes.points.rig import Rig, choose_neighbours, focus_point
from kinosplat.scenes.points.visual_hull import visual_hull
from scenes.stage import RADIUS, cameras, cast


def rig_of(n: int = 12) -> tuple[Rig, torch.Tensor]:
    pictures, outlines = zip(*(cast(camera, torch.zeros(3)) for camera in cameras(n)), strict=True)
    rig = Rig(
        torch.stack(pictures),
        torch.stack([camera.world_to_camera for camera in cameras(n)]),
        torch.stack([camera.K for camera in cameras(n)]),
    )
    return rig, torch.stack(outlines)


def test_projection_undoes_unprojection() -> None:
    rig, _ = rig_of(3)
    depth = torch.full(rig.size, 2.5)
    pixels, found = rig.project(rig.unproject(1, depth), 1)
    assert torch.allclose(found, depth, atol=1e-5)
    assert torch.allclose(pixels[10, 20], torch.tensor([20.5, 10.5]), atol=1e-3)


def test_cameras_around_a_place_focus_on_it_and_parallel_ones_on_nothing() -> None:
    rig, _ = rig_of()
    focus = focus_point(rig.positions, rig.forwards)
    assert focus is not None
    assert focus.norm() < 1e-4
    forwards = torch.tensor([[0.0, 0.0, 1.0]]).repeat(5, 1)
    assert focus_point(torch.rand(5, 3), forwards) is None


def test_neighbours_are_the_cameras_beside() -> None:
    rig, _ = rig_of()
    chosen = choose_neighbours(rig, 2, torch.full((12,), 3.3))
    assert sorted(chosen[5].tolist()) == [4, 6]
    among = choose_neighbours(rig, 2, torch.full((12,), 3.3), among=[0, 2, 5, 8, 10])
    assert sorted(among[5].tolist()) == [2, 8]


def test_the_right_depth_costs_least() -> None:
    rig, _ = rig_of(24)
    neighbours = choose_neighbours(rig, 4, torch.full((24,), 3.3))
    distance = float(rig.positions[3].norm())
    planes = torch.linspace(1 / 5.0, 1 / 2.0, 61)
    matcher = Matcher(rig, 2)
    everywhere = (slice(None), slice(None))
    costs = matcher.costs(3, neighbours[3], planes[:, None, None], everywhere)
    middle = costs[:, 40:45, 54:59].mean(dim=(1, 2))
    found = 1 / planes[middle.argmin()]
    # The nearest point of the ball is one radius before its centre; planes are 1.4 to 3.5 % apart.
    assert abs(float(found) - (distance - RADIUS)) < 0.1
    window = (slice(30, 50), slice(40, 70))
    assert torch.allclose(matcher.costs(3, neighbours[3], planes[:, None, None], window)[:, 5:-5, 5:-5],
                          costs[:, 35:45, 45:65], atol=1e-4)  # fmt: skip


def test_one_neighbour_decides_where_it_alone_sees_the_place() -> None:
    rig, _ = rig_of(24)
    matcher = Matcher(rig, 2)
    plane = torch.full((1, 1, 1), 1 / 4.5)
    everywhere = (slice(None), slice(None))
    beside, behind = 4, 15  # Of what is behind the ball, the camera there sees a part.
    both = matcher.costs(3, torch.tensor([beside, behind]), plane, everywhere)
    alone = matcher.costs(3, torch.tensor([beside]), plane, everywhere)
    pixels, depth = rig.project(rig.unproject(3, torch.full(rig.size, 4.5)), behind)
    size = torch.tensor([rig.size[1], rig.size[0]])
    unseen = ~(((pixels >= 0) & (pixels <= size)).all(dim=-1) & (depth > 0))
    assert 0.1 < unseen.float().mean() < 0.9
    assert torch.equal(both[0][unseen], alone[0][unseen])
    assert not torch.equal(both[0][~unseen], alone[0][~unseen])


def test_semi_global_costs_follow_their_recurrence() -> None:
    costs = torch.rand(7, 5, 6, generator=torch.Generator().manual_seed(0))
    small, large = 0.1, 0.4
    expected = torch.zeros_like(costs)
    for direction in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        path = torch.zeros_like(costs)
        rows = range(5) if direction[0] >= 0 else range(4, -1, -1)
        columns = range(6) if direction[1] >= 0 else range(5, -1, -1)
        for y in rows:
            for x in columns:
                py, px = y - direction[0], x - direction[1]
                if not (0 <= py < 5 and 0 <= px < 6):
                    path[:, y, x] = costs[:, y, x]
                    continue
                before = path[:, py, px]
                for k in range(7):
                    ways = [before[k], before.min() + large]
                    ways += [before[j] + small for j in (k - 1, k + 1) if 0 <= j < 7]
                    path[k, y, x] = costs[k, y, x] + min(ways) - before.min()
        expected += path
    assert torch.allclose(semi_global(costs, small, large), expected, atol=1e-5)


def test_the_parabola_finds_the_minimum_between_planes() -> None:
    planes = torch.arange(9.0)[:, None, None]
    truth = torch.tensor([[3.3, 5.8, 0.0]])
    costs = (planes - truth) ** 2
    winner = costs.argmin(dim=0)
    assert torch.allclose(winner + parabola(costs, winner), truth, atol=1e-5)


def test_views_agree_on_what_they_both_see_and_look_past_what_is_not_there() -> None:
    rig, _ = rig_of(3)
    two = Rig(rig.images[:2], rig.world_to_camera[:1].repeat(2, 1, 1), rig.K[:2])
    inverse = torch.full((2, *two.size), 0.4)
    inverse[1, :, :50] = 0.3
    tolerance = torch.full((2,), 0.01)
    counts, seeing = agreement(two, inverse, tolerance, torch.tensor([[1], [0]]), [0])
    assert seeing[0].min() == 1
    assert seeing[1].max() == 0
    assert counts[0, :, 50:].min() == 1
    assert counts[0, :, :50].max() == 0
    assert counts[1].max() == 0
    points = two.unproject(0, torch.full(two.size, 1 / 0.4)).reshape(-1, 3)
    known = torch.ones(2, *two.size, dtype=torch.bool)
    past = n_seen_through(two, inverse, known, tolerance, points).reshape(two.size)
    # Pixel centres are projected within rounding of the border between pixels 49 and 50.
    assert past[:, :49].min() == 1
    assert past[:, 51:].max() == 0
    known[1] = False
    assert n_seen_through(two, inverse, known, tolerance, points).max() == 0


def test_gaps_are_filled_with_the_farthest_of_what_is_near() -> None:
    inverse = torch.full((1, 16, 16), 0.5)
    inverse[0, :, 8:] = 0.25
    known = torch.ones(1, 16, 16, dtype=torch.bool)
    known[0, 4:12, 6:10] = False
    filled = fill(inverse, known)
    assert torch.equal(filled[known], inverse[known])
    assert set(filled[~known].tolist()) <= {0.25, 0.5}
    assert fill(inverse, torch.zeros_like(known)).max() == 0


def test_lone_points_are_dropped_when_cells_are_merged() -> None:
    positions = torch.tensor([[0.1, 0.1, 0.1], [0.3, 0.3, 0.3], [5.0, 5.0, 5.0], [9.1, 9.1, 9.1], [9.2, 9.2, 9.2]])
    candidates = Candidates(positions, positions / 10, torch.ones(5))
    merged = candidates.merged(10, seed=0)
    assert sorted(merged.positions[:, 0].tolist()) == [
        torch.tensor(0.2).item(),
        torch.tensor(9.15).item(),
    ]
    assert len(candidates.merged(1, seed=0)) == 1


def test_points_of_different_pixel_sizes_do_not_share_a_cell() -> None:
    positions = torch.zeros(4, 3)
    candidates = Candidates(positions, positions, torch.tensor([1.0, 1.0, 8.0, 8.0]))
    assert len(candidates.merged(10, seed=0)) == 2


def test_the_background_is_what_is_there_most_of_the_time() -> None:
    background = torch.randint(60, 120, (2, 20, 30, 3), generator=torch.Generator().manual_seed(0)).byte()
    moments = []
    for t in range(5):
        picture = background.clone()
        picture[:, 5:12, 5 * t : 5 * t + 5] = 250
        moments.append(picture)
    found, is_background, foregrounds = separate(moments, torch.device("cpu"))
    assert torch.equal(found, background)
    assert is_background.all()
    assert foregrounds[3][:, 6:11, 16:19].all()
    assert not foregrounds[3][:, :, :14].any()


def test_the_hull_of_a_ball_is_a_little_larger_than_it() -> None:
    rig, outlines = rig_of()
    hull = visual_hull(rig, outlines.float(), 10_000, 64)
    assert hull is not None
    distance = hull[0].norm(dim=1) - RADIUS
    # Measured: from -0.03 (half a cell and half a pixel) to 0.13 (above and below, where no camera looks from).
    assert distance.min() > -0.06
    assert distance.max() < 0.2
    assert visual_hull(rig, torch.zeros_like(outlines).float(), 100, 64) is None


def test_items_are_spread_with_both_ends() -> None:
    assert spread(range(10), 4) == [0, 3, 6, 9]
    assert spread([1, 2], 5) == [1, 2]
    assert spread(range(10), 1) == [0]
