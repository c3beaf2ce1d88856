"""What first points say of depths, and what is made of it along rays."""

from __future__ import annotations

import torch
from torch import Tensor

from kinosplat.render.camera import Camera, look_at
from kinosplat.render.field.point_depths import SLACK, PointDepths, depth_bounds
from kinosplat.render.field.rays import rays_through

WIDTH, HEIGHT = 64, 48
RED, BLUE = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9])


def camera(height: float = 0.0) -> Camera:
    """Looks along x from x = -2."""
    K = torch.tensor([[60.0, 0.0, WIDTH / 2], [0.0, 60.0, HEIGHT / 2], [0.0, 0.0, 1.0]])
    up = torch.tensor([0.0, 0.0, 1.0])
    return look_at(torch.tensor([-2.0, 0.0, height]), torch.zeros(3), up, K=K, width=WIDTH, height=HEIGHT)


def wall(x: float, side: float = 4.0, n: int = 120) -> Tensor:
    """(n^2, 3) points of a square at right angles to the x axis."""
    along = torch.linspace(-side / 2, side / 2, n)
    y, z = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([torch.full_like(y, x), y, z], dim=-1).flatten(0, 1)


def picture(colour: Tensor) -> Tensor:
    return colour.expand(HEIGHT, WIDTH, 3)


def test_rays_meet_a_wall_within_their_bounds() -> None:
    cameras, points = [camera(), camera(0.3)], wall(0.0)
    views = [(c, picture(RED)) for c in cameras]
    depths = PointDepths.of(views, points, RED.expand_as(points), near=0.05)
    places = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([WIDTH, HEIGHT])
    which = torch.arange(500) % 2
    bounds = depths.along(which, places)
    matrices = torch.stack([c.world_to_camera for c in cameras])
    rays = rays_through(places, depths.inverse_K[which], matrices[which])
    distance = -rays.origins[:, 0] / rays.directions[:, 0]
    assert torch.isfinite(bounds).all()
    assert (bounds[:, 0] < distance).all()
    assert (distance < bounds[:, 1]).all()
    # Measured: 0.10 at most for the first camera, twice the slack and what a wall at a slant needs.
    assert ((bounds[:, 1] - bounds[:, 0]) / distance).max() < 5 * SLACK


def test_nothing_is_known_where_there_are_no_points() -> None:
    points = wall(0.0, side=0.5)
    patch, bounds = depth_bounds(camera(), picture(RED), points, RED.expand_as(points), near=0.05)
    known = torch.isfinite(bounds[..., 1])
    assert (bounds[..., 0] > 0).equal(known)
    # The wall is 15 pixels wide and high, 7.3% of the picture; measured 8.3%.
    assert 0.05 < known.float().mean() < 0.11
    middle = known[int(HEIGHT / 2 / patch), int(WIDTH / 2 / patch)]
    assert bool(middle)


def test_points_behind_something_else_say_nothing() -> None:
    before, behind = wall(-0.5, side=1.0), wall(1.0)
    points = torch.cat([before, behind])
    colours = torch.cat([BLUE.expand_as(before), RED.expand_as(behind)])
    looking = camera()
    seen = picture(RED).clone()
    # The first wall spans 40 pixels: there the picture is blue, and its points hide those of the other.
    seen[4:44, 12:52] = BLUE
    patch, bounds = depth_bounds(looking, seen, points, colours, near=0.05)
    row, column = int(HEIGHT / 2 / patch), int(WIDTH / 2 / patch)
    assert bounds[row, column, 1] < 1.5 * (1 + 2 * SLACK)
    # Without points on the first wall, nothing is known of what is blue.
    patch, bounds = depth_bounds(looking, seen, behind, RED.expand_as(behind), near=0.05)
    row, column = int(HEIGHT / 2 / patch), int(WIDTH / 2 / patch)
    assert torch.isinf(bounds[row, column, 1])
    assert bounds[row, 0, 0] > 3.0 * (1 - 2 * SLACK)


def test_a_checkpoint_brings_them_back() -> None:
    points = wall(0.0)
    depths = PointDepths.of([(camera(), picture(RED))], points, RED.expand_as(points), near=0.05)
    again = PointDepths.from_tensors(depths.tensors(), torch.device("cpu"))
    assert again is not None
    assert again.bounds.equal(depths.bounds)
    assert PointDepths.from_tensors({}, torch.device("cpu")) is None


def test_points_nearer_than_the_near_plane_or_not_finite_do_not_count() -> None:
    points = torch.cat([wall(-1.9), torch.full((10, 3), torch.nan)])
    _, bounds = depth_bounds(camera(), picture(RED), points, RED.expand_as(points), near=0.2)
    assert torch.isinf(bounds[..., 1]).all()
