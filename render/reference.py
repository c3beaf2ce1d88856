"""The definition, in plain torch, of the picture that every backend of the project has to render.

docs/mathematics.md has the same formulas on paper. Written to be read and to be differentiated by autograd, in
float32 or float64; slow on purpose. Every pixel looks at every Gaussian that can reach it: pixels are only cut into
blocks to bound memory. A Gaussian with a non-finite parameter, or whose projection is not finite, is not drawn and gets
a gradient of zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kinosplat.render.camera import Camera
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.output import RenderOutput
from kinosplat.render.rotations import matrix_from_quaternion
from kinosplat.render.settings import RasterSettings
from kinosplat.render.spherical_harmonics import sh_colours

if TYPE_CHECKING:
    from kinosplat.render.statistics import GaussianStatistics

MAX_ALPHA = 0.999
"""Upper limit of one Gaussian's alpha, so that the transmittance never reaches 0."""
MIN_ALPHA = 1.0 / 255.0
"""Contributions below one step of an 8-bit image are skipped."""
MIN_TRANSMITTANCE = 1e-4
"""A pixel is finished before the Gaussian that would take its transmittance below this."""
DILATION = 0.3
"""Pixels squared added to the variance on screen, so that no Gaussian falls between pixel centres."""
JACOBIAN_MARGIN = 0.15
"""The projection is linearised at a point at most this fraction of the image size outside of the image."""
MEDIAN_TRANSMITTANCE = 0.5
"""The median depth is that of the Gaussian at which the transmittance reaches this."""
BLOCK = 32
"""Side in pixels of the blocks the image is rendered in; bounds memory, changes no value."""


@dataclass(frozen=True)
class Projection:
    """V Gaussians as one camera sees them, nearest first."""

    index: Tensor
    """(V,) int64 positions in the set they were projected from."""
    means2d: Tensor
    """(V, 2) centres, x and y in pixels."""
    covariances2d: Tensor
    """(V, 3) entries xx, xy, yy of the dilated covariance, pixels squared."""
    conics: Tensor
    """(V, 3) entries xx, xy, yy of its inverse."""
    depths: Tensor
    """(V,) z in camera coordinates, world units."""
    opacities: Tensor
    """(V,) after fading in time and, if asked for, the compensation of Mip-Splatting."""
    colours: Tensor
    """(V, 3) as seen from this camera."""
    normals: Tensor
    """(V, 3) unit vectors along the shortest axis, world coordinates, turned to the camera."""

    @property
    def extents(self) -> Tensor:
        """(V, 2) half sizes in pixels of the box that holds every alpha of at least MIN_ALPHA; NaN if there is none."""
        reach = 2 * torch.log(self.opacities / MIN_ALPHA)
        return torch.sqrt(reach[:, None] * self.covariances2d[:, [0, 2]])

    def take(self, rows: Tensor) -> Projection:
        """The projected Gaussians at `rows`, an index or mask."""
        return Projection(**{name: tensor[rows] for name, tensor in vars(self).items()})


def rasterize_reference(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    *,
    background: Tensor | None = None,
    features: Tensor | None = None,
    settings: RasterSettings | None = None,
    statistics: GaussianStatistics | None = None,
    visible: Tensor | None = None,
) -> RenderOutput:
    """Render `gaussians` from C `cameras` of one size; the arguments mean what they mean in `rasterize`.

    `n_hits` of the result is 0: there are no tiles here. `rasterize` checks the arguments; this function takes them as
    they are.
    """
    settings = settings or RasterSettings()
    dtype, device = gaussians.means.dtype, gaussians.device
    cameras = [camera.to(device, dtype) for camera in cameras]
    width, height = cameras[0].width, cameras[0].height
    if background is None:
        background = torch.zeros(3, dtype=dtype, device=device)
    backgrounds = background.expand(len(cameras), 3)
    if features is None:
        features = gaussians.means.new_zeros(len(gaussians), 0)

    rgb, alpha, depths, medians, normals, feature_maps = [], [], [], [], [], []
    n_visible = 0
    for camera, colour_behind in zip(cameras, backgrounds, strict=True):
        projection = project_visible(gaussians, camera, features, settings)
        n_visible += len(projection.index)
        if visible is not None:
            visible[projection.index] = True
        if statistics is not None:
            _record_projection(statistics, projection, width, height)
        channels = torch.cat(
            [projection.colours, projection.depths[:, None], projection.normals, features[projection.index]],
            dim=1,
        )
        picture, transmittance, median = _blend(projection, channels, width, height, statistics)
        coverage = 1 - transmittance
        rgb.append(picture[..., :3] + transmittance[..., None] * colour_behind)
        alpha.append(coverage)
        depths.append(picture[..., 3] / torch.where(coverage > 0, coverage, torch.ones_like(coverage)))
        normals.append(picture[..., 4:7])
        feature_maps.append(picture[..., 7:])
        medians.append(median)

    return RenderOutput(
        rgb=torch.stack(rgb),
        alpha=torch.stack(alpha),
        depth=torch.stack(depths) if settings.depth else None,
        median_depth=torch.stack(medians) if settings.median_depth else None,
        normal=torch.stack(normals) if settings.normal else None,
        features=torch.stack(feature_maps) if features.shape[1] > 0 else None,
        n_visible=n_visible,
    )


def project_visible(gaussians: Gaussians, camera: Camera, features: Tensor, settings: RasterSettings) -> Projection:
    """Project, drop what cannot be seen, and sort by depth; ties keep the order of the set.

    Visible is a Gaussian of which all that is read and its projection are finite, whose centre has near <= z <= far,
    whose opacity reaches MIN_ALPHA and whose box (`extents`) overlaps the image. The rest is left out before gradients
    are recorded, so its gradient is exactly zero.
    """
    sh_degree, antialiased = settings.degree_of(gaussians), settings.antialiased
    with torch.no_grad():
        everything = torch.arange(len(gaussians), device=gaussians.device)
        candidate = project(gaussians, everything, camera, sh_degree, antialiased)
        read = {**gaussians.parameters(), "features": features, **vars(candidate)}
        read["sh_rest"] = gaussians.sh_rest[:, : (sh_degree + 1) ** 2 - 1]
        finite = torch.ones_like(everything, dtype=torch.bool)
        for name, tensor in read.items():
            good = torch.isfinite(tensor) | (tensor == torch.inf if name == "log_durations" else False)
            finite &= good[:, None].flatten(1).all(dim=1)
        size = candidate.means2d.new_tensor([camera.width, camera.height])
        low, high = candidate.means2d - candidate.extents, candidate.means2d + candidate.extents
        on_screen = ((high > 0) & (low < size)).all(dim=1)
        in_depth = (candidate.depths >= settings.near) & (candidate.depths <= settings.far)
        visible = (finite & in_depth & on_screen & (candidate.opacities >= MIN_ALPHA)).nonzero()[:, 0]
        order = torch.argsort(candidate.depths[visible], stable=True)
    return project(gaussians, visible[order], camera, sh_degree, antialiased)


def project(gaussians: Gaussians, index: Tensor, camera: Camera, sh_degree: int, antialiased: bool) -> Projection:
    """Slice the Gaussians at `index` at the camera's time, and project them; no check, no order."""
    part = gaussians.select(index)
    means, opacities = slice_in_time(part, camera.time)
    to_camera, translation = camera.world_to_camera[:3, :3], camera.world_to_camera[:3, 3]
    fx, fy, cx, cy = camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]

    x, y, z = (means @ to_camera.T + translation).unbind(-1)
    u, v = fx * x / z + cx, fy * y / z + cy

    # The Jacobian of the projection, taken no further outside than the margin: it grows without bound beside the image.
    u_near = u.clamp(-JACOBIAN_MARGIN * camera.width, (1 + JACOBIAN_MARGIN) * camera.width)
    v_near = v.clamp(-JACOBIAN_MARGIN * camera.height, (1 + JACOBIAN_MARGIN) * camera.height)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, (cx - u_near) / z, zero, fy / z, (cy - v_near) / z], dim=-1)
    jacobian = jacobian.unflatten(-1, (2, 3))

    axes = matrix_from_quaternion(part.quats)
    scales = part.log_scales.exp()
    row_x, row_y = (jacobian @ to_camera @ (axes * scales[:, None, :])).unbind(-2)
    xx, xy, yy = (row_x * row_x).sum(-1), (row_x * row_y).sum(-1), (row_y * row_y).sum(-1)
    # |row_x x row_y|^2 is the determinant without the cancellation of xx * yy - xy^2; the dilation only adds to it.
    determinant = torch.linalg.cross(row_x, row_y).square().sum(-1)
    dilated = determinant + DILATION * (xx + yy) + DILATION * DILATION
    if antialiased:
        opacities = opacities * torch.sqrt(determinant / dilated)
    xx, yy = xx + DILATION, yy + DILATION

    views = means - camera.position
    shortest = part.log_scales.argmin(dim=1)
    normals = axes.gather(2, shortest[:, None, None].expand(-1, 3, 1)).squeeze(2)
    facing_away = (normals * views).sum(-1, keepdim=True) > 0
    return Projection(
        index=index,
        means2d=torch.stack([u, v], dim=-1),
        covariances2d=torch.stack([xx, xy, yy], dim=-1),
        conics=torch.stack([yy, -xy, xx], dim=-1) / dilated[:, None],
        depths=z,
        opacities=opacities,
        colours=sh_colours(part.sh_dc, part.sh_rest, views, sh_degree),
        normals=torch.where(facing_away, -normals, normals),
    )


def slice_in_time(gaussians: Gaussians, time: float | None) -> tuple[Tensor, Tensor]:
    """Means (N, 3) and opacities (N,) at `time`; a duration of +inf makes the phase 0 and all gradients of time 0."""
    opacities = torch.sigmoid(gaussians.opacity_logits)
    if gaussians.displacements is None or gaussians.time_centres is None or gaussians.log_durations is None:
        return gaussians.means, opacities
    assert time is not None
    phases = (time - gaussians.time_centres) * torch.exp(-gaussians.log_durations)
    means = gaussians.means + gaussians.displacements * phases[:, None]
    return means, opacities * torch.exp(-0.5 * phases.square())


def _blend(
    projection: Projection, channels: Tensor, width: int, height: int, statistics: GaussianStatistics | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Blended channels (H, W, F), transmittance (H, W) and median depth (H, W), block by block."""
    extents = projection.extents.detach()
    low, high = projection.means2d.detach() - extents, projection.means2d.detach() + extents
    picture = channels.new_zeros(height, width, channels.shape[1])
    transmittance = channels.new_ones(height, width)
    median = channels.new_zeros(height, width)
    for top, left, bottom, right in _blocks(width, height):
        corner_low, corner_high = low.new_tensor([left, top]), low.new_tensor([right, bottom])
        reaches = ((high > corner_low) & (low < corner_high)).all(dim=1).nonzero()[:, 0]
        if len(reaches) == 0:
            continue
        rows, columns = torch.arange(top, bottom).to(low) + 0.5, torch.arange(left, right).to(low) + 0.5
        pixels = torch.cartesian_prod(rows, columns).flip(1)
        # Recomputed in the backward pass, so that the memory of one block is all that is ever held.
        blended, left_over, block_median, weights, n_pixels = checkpoint(
            _blend_block, pixels, projection.take(reaches), channels[reaches], use_reentrant=False
        )
        block = (slice(top, bottom), slice(left, right))
        picture[block] = blended.unflatten(0, (bottom - top, right - left))
        transmittance[block] = left_over.unflatten(0, (bottom - top, right - left))
        median[block] = block_median.unflatten(0, (bottom - top, right - left))
        if statistics is not None:
            _record_blending(statistics, projection.index[reaches], weights, n_pixels)
    return picture, transmittance, median


def _blocks(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    for top in range(0, height, BLOCK):
        for left in range(0, width, BLOCK):
            yield top, left, min(top + BLOCK, height), min(left + BLOCK, width)


def _blend_block(
    pixels: Tensor, projection: Projection, channels: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Blend M sorted Gaussians at P pixels.

    Returns channels (P, F), transmittance (P,), median depth (P,), and per Gaussian its weight (M,) and pixels (M,).
    """
    dx, dy = (pixels - projection.means2d[:, None]).unbind(-1)
    conic_xx, conic_xy, conic_yy = projection.conics[:, :, None].unbind(1)
    # Rounding may take the square distance of a long thin Gaussian below 0.
    half_square = (0.5 * (conic_xx * dx * dx + conic_yy * dy * dy) + conic_xy * dx * dy).clamp_min(0.0)
    alpha = (projection.opacities[:, None] * torch.exp(-half_square)).clamp_max(MAX_ALPHA)

    # The transmittance only falls, so the first Gaussian that would end the pixel also rules out all behind it.
    with torch.no_grad():
        kept = alpha >= MIN_ALPHA
        kept &= torch.cumprod(torch.where(kept, 1 - alpha, 1.0), dim=0) >= MIN_TRANSMITTANCE
    alpha = torch.where(kept, alpha, 0.0)
    after = torch.cumprod(1 - alpha, dim=0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    weights = alpha * before

    with torch.no_grad():
        passes = (before > MEDIAN_TRANSMITTANCE) & (after <= MEDIAN_TRANSMITTANCE)
        median = (passes * projection.depths[:, None]).sum(dim=0)
    return weights.T @ channels, after[-1], median, weights.detach().sum(dim=1), kept.sum(dim=1)


def _record_projection(statistics: GaussianStatistics, projection: Projection, width: int, height: int) -> None:
    """Count this camera; when the backward pass comes by, add the gradient on screen in units of half an image."""
    index = projection.index
    xx, xy, yy = projection.covariances2d.detach().unbind(-1)
    variance = 0.5 * (xx + yy) + torch.sqrt(0.25 * (xx - yy).square() + xy * xy)
    statistics.n_seen[index] += 1
    statistics.max_radius[index] = torch.maximum(
        statistics.max_radius[index], 3 * variance.sqrt().to(statistics.max_radius)
    )
    if projection.means2d.requires_grad:
        half_size = projection.means2d.new_tensor([0.5 * width, 0.5 * height])

        def add(gradient: Tensor) -> None:
            statistics.screen_gradient[index] += (gradient * half_size).norm(dim=1).to(statistics.screen_gradient)

        projection.means2d.register_hook(add)


def _record_blending(statistics: GaussianStatistics, index: Tensor, weights: Tensor, n_pixels: Tensor) -> None:
    statistics.blend_weight[index] += weights.to(statistics.blend_weight)
    statistics.n_pixels[index] += n_pixels.to(statistics.n_pixels)
