"""Depth and normals of fields whose geometry is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kinosplat.render.camera import look_at
from kinosplat.render.field.composite import composite, sample_weights
from kinosplat.render.field.geometry import median_distance, normals_along
from kinosplat.render.field.layout import Space, StepRule
from kinosplat.render.field.march import march, ray_range
from kinosplat.render.field.marching import OccupiedCells, RayParts
from kinosplat.render.field.rays import Rays, camera_rays
from kinosplat.render.field.samples import Samples

RADIUS, DISTANCE = 0.6, 3.0


def ball(points: Tensor) -> Tensor:
    """Dense within, with grain much finer than a step, as the finest levels of a hash grid have it."""
    grain = torch.sin(500.0 * points).prod(dim=1)
    return 200.0 * torch.sigmoid((RADIUS - points.norm(dim=1)) / 0.01) * torch.exp(grain)


def rays_and_samples(n: int = 40) -> tuple[Rays, Samples]:
    focal = 1.2 * n
    K = torch.tensor([[focal, 0.0, n / 2], [0.0, focal, n / 2], [0.0, 0.0, 1.0]])
    eye = torch.tensor([0.3, -0.8, -1.0])
    eye = DISTANCE * eye / eye.norm()
    rays = camera_rays(look_at(eye, torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), K=K, width=n, height=n))
    space = Space()
    bits = torch.full((8**3 // 8,), 255, dtype=torch.uint8)
    enters, leaves = ray_range(rays.origins, rays.directions, space, 0.05)
    parts = RayParts(rays.origins, rays.directions, enters, leaves, torch.zeros(len(rays)))
    return rays, march(parts, OccupiedCells(bits, space, StepRule(256), 8), "reference", None)


def degrees(directions: Tensor, expected: Tensor) -> Tensor:
    return torch.rad2deg(torch.acos(torch.cosine_similarity(directions, expected).clamp(-1, 1)))


def test_a_sphere_faces_outwards_however_grainy_its_density_is() -> None:
    rays, samples = rays_and_samples()
    middle = (samples.t + samples.dt / 2)[:, None]
    density = ball(rays.origins[samples.ray] + middle * rays.directions[samples.ray])
    seen = composite(density, torch.ones(len(samples), 3), samples, "reference")
    weights, _ = sample_weights(density, samples)
    normals = normals_along(ball, rays, samples, weights, seen.alpha)
    solid = seen.alpha > 0.99
    torch.testing.assert_close(normals.norm(dim=1)[solid], seen.alpha[solid], rtol=0, atol=1e-5)
    assert solid.float().mean() > 0.05
    surface = rays.origins + (seen.depth / seen.alpha)[:, None] * rays.directions
    outwards = torch.nn.functional.normalize(surface, dim=1)[solid]
    # Measured: 5.6 degrees in the median, where the gradient at the surface is off by 68.
    assert degrees(normals[solid], outwards).median() < 8
    surface.requires_grad_()
    (gradient,) = torch.autograd.grad(ball(surface).sum(), surface)
    assert degrees(-gradient[solid], outwards).median() > 30
    assert ((normals * rays.directions).sum(dim=1) <= 0).all()


def test_where_nothing_is_there_is_no_normal() -> None:
    rays, samples = rays_and_samples(8)
    nothing = torch.zeros(len(samples))
    normals = normals_along(lambda points: torch.zeros(len(points)), rays, samples, nothing, torch.zeros(len(rays)))
    assert not normals.any()


def test_half_of_the_light_is_left_within_a_sample() -> None:
    """Fog of one density from where rays begin: half gets as far as log(2) / density, wherever samples end."""
    offsets, dt = torch.tensor([0, 10, 10, 13]), torch.full((13,), 0.1, dtype=torch.float64)
    t = 1.0 + 0.1 * torch.cat([torch.arange(10), torch.arange(3)]).double()
    samples, density = Samples(offsets, t, dt), torch.full((13,), 2.0, dtype=torch.float64)
    weights, before = sample_weights(density, samples)
    median = median_distance(density, samples, before, before - weights)
    # The second ray has no samples, the third ends while more than half is left.
    torch.testing.assert_close(median, torch.tensor([1.0 + math.log(2.0) / 2.0, 0.0, 0.0], dtype=torch.float64))
