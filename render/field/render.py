"""Pictures of a field: fused where the native kernels can do so and nobody asks for geometry, else piece by piece.

Pieces are rays of bounded number, marched, evaluated and composited one pass after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.render.camera import Camera
from kinosplat.render.field import native, native_fused, reference
from kinosplat.render.field.backend import FieldBackend
from kinosplat.render.field.composite import composite, sample_weights
from kinosplat.render.field.field import SALIENCY, Field
from kinosplat.render.field.geometry import median_distance, normals_along
from kinosplat.render.field.march import MarchBy, march, ray_range, sample_points
from kinosplat.render.field.marching import RayParts
from kinosplat.render.field.occupancy import OccupancyGrid
from kinosplat.render.field.picture_blocks import PictureBlocks, picture_blocks
from kinosplat.render.field.rays import Rays, camera_rays
from kinosplat.render.field.samples import Samples
from kinosplat.render.output import RenderOutput

RAYS = 1 << 15
"""Rays marched together: their samples' distances, densities and colours are held at once, 24 bytes each."""
SAMPLES = 1 << 18
"""Samples evaluated together: features and hidden layers take about 500 bytes each."""


@dataclass(frozen=True)
class _Seen:
    """What a piece of rays sees, one row a ray; the optional parts are None unless geometry was asked for."""

    rgb: Tensor
    alpha: Tensor
    depth: Tensor | None
    median: Tensor | None
    normal: Tensor | None
    n_samples: int


@torch.no_grad()
def render_field(
    field: Field,
    grid: OccupancyGrid,
    cameras: Sequence[Camera],
    background: Tensor,
    *,
    near: float,
    geometry: bool = False,
    march_by: MarchBy = "rays",
) -> RenderOutput:
    """Pictures of C cameras of one size over the (3,) colour `background`; carries no gradients.

    near: nothing is seen nearer than this, world units. geometry: also depth, median depth and normals, the latter
    against the gradient of the density. march_by: "blocks" visits the occupied blocks of cells front to back instead
    of marching along each ray, for spaces of one cascade; the picture is the same. `n_visible` counts the samples that
    were evaluated.
    """
    prepared = None if geometry or march_by == "blocks" else _prepared(field)
    if prepared is None:
        pictures = [_picture(field, grid, camera, background, near, geometry, march_by) for camera in cameras]
    else:
        pictures = [_draw(prepared, grid, camera, background, near) for camera in cameras]

    def stacked(name: str) -> Tensor | None:
        parts = [getattr(picture, name) for picture in pictures]
        return None if parts[0] is None else torch.stack(parts).unflatten(1, (cameras[0].height, cameras[0].width))

    rgb, alpha = stacked("rgb"), stacked("alpha")
    assert rgb is not None
    assert alpha is not None
    return RenderOutput(
        rgb=rgb,
        alpha=alpha,
        depth=stacked("depth"),
        median_depth=stacked("median"),
        normal=stacked("normal"),
        n_visible=sum(picture.n_samples for picture in pictures),
    )


def prepare(field: Field) -> native_fused.PreparedField:
    """The field as the fused kernels take it; BackendError where they cannot."""
    return native_fused.PreparedField(
        field.shape.layout,
        field.entries,
        field.density_weights,
        field.colour_weights,
        direction_degrees=field.shape.direction_degrees,
        saliency=field.saliency,
        saliency_layout=None if field.saliency is None else SALIENCY,
        sharpness=field.sharpness,
        density_scale=field.shape.density_scale,
    )


def _prepared(field: Field) -> native_fused.PreparedField | None:
    """None where the field has to be evaluated piece by piece."""
    return prepare(field) if why_not_fused(field) is None else None


def why_not_fused(field: Field) -> str | None:
    """Why a field is not drawn in one go, in one sentence; None where it is."""
    if field.backend != "native":
        return f"Fields of the backend {field.backend} are evaluated piece by piece."
    return native_fused.why_not(
        field.shape.layout,
        field.density_weights,
        field.colour_weights,
        field.shape.direction_degrees,
        field.device,
    )


def _draw(
    prepared: native_fused.PreparedField, grid: OccupancyGrid, camera: Camera, background: Tensor, near: float
) -> _Seen:
    picture = native_fused.draw(prepared, grid.cells, camera, background.tolist(), near=near)
    assert picture.rgb is not None
    return _Seen(picture.rgb.flatten(0, 1), picture.alpha.flatten(), None, None, None, int(picture.n_samples))


def _picture(
    field: Field,
    grid: OccupancyGrid,
    camera: Camera,
    background: Tensor,
    near: float,
    geometry: bool,
    march_by: MarchBy,
) -> _Seen:
    camera = camera.to(field.device)
    rays, forward = camera_rays(camera), camera.forward
    blocks = None
    if march_by == "blocks":
        blocks = picture_blocks(native.occupied_blocks(grid.cells), camera, grid.cells)
    n_rows = max(1, RAYS // camera.width)
    pieces = []
    for top in range(0, camera.height, n_rows):
        bottom = min(top + n_rows, camera.height)
        part = rays.part(slice(top * camera.width, bottom * camera.width))
        part_blocks = None if blocks is None else blocks.rows(top, bottom)
        pieces.append(_see(field, grid, part, forward, background, near, geometry, part_blocks))

    def joined(name: str) -> Tensor | None:
        parts = [getattr(piece, name) for piece in pieces]
        return None if parts[0] is None else torch.cat(parts)

    rgb, alpha = joined("rgb"), joined("alpha")
    assert rgb is not None
    assert alpha is not None
    n_samples = sum(piece.n_samples for piece in pieces)
    return _Seen(rgb, alpha, joined("depth"), joined("median"), joined("normal"), n_samples)


def _see(
    field: Field,
    grid: OccupancyGrid,
    rays: Rays,
    forward: Tensor,
    background: Tensor,
    near: float,
    geometry: bool,
    blocks: PictureBlocks | None,
) -> _Seen:
    samples = march_rays(grid, rays, near, torch.zeros(len(rays), device=rays.origins.device), field.backend, blocks)
    positions, directions = sample_points(rays.origins, rays.directions, samples, grid.space, field.backend)
    density = rays.origins.new_empty(len(samples))
    rgb = rays.origins.new_empty(len(samples), 3)
    for first in range(0, len(samples), SAMPLES):
        piece = slice(first, first + SAMPLES)
        density[piece], outputs = field.density(positions[piece])
        rgb[piece] = field.colour(outputs, directions[piece])
    seen = composite(density, rgb, samples, field.backend)
    colours = seen.rgb + (1 - seen.alpha)[:, None] * background
    if not geometry:
        return _Seen(colours, seen.alpha, None, None, None, len(samples))
    to_z = rays.directions @ forward
    depth = seen.depth / torch.where(seen.alpha > 0, seen.alpha, 1.0) * to_z
    weights, before = sample_weights(density, samples)
    median = median_distance(density, samples, before, before - weights) * to_z

    def density_at(points: Tensor) -> Tensor:
        return field.density(reference.grid_positions(points, grid.space))[0]

    normal = normals_along(density_at, rays, samples, weights, seen.alpha)
    return _Seen(colours, seen.alpha, depth, median, normal, len(samples))


def march_rays(
    grid: OccupancyGrid,
    rays: Rays,
    near: float,
    jitter: Tensor,
    backend: FieldBackend,
    picture: PictureBlocks | None = None,
) -> Samples:
    """Samples of the rays between `near` (world units) and the end of the space; jitter (R,) in [0, 1).

    With `picture` the rays are its pixels.
    """
    origins, directions = rays.origins.detach(), rays.directions.detach()
    enters, leaves = ray_range(origins, directions, grid.space, near)
    return march(RayParts(origins, directions, enters, leaves, jitter), grid.cells, backend, picture)
