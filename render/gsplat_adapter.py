"""gsplat behind the interface of `rasterize`: a cross-check and a peer to measure against.

Importing it raises ImportError where gsplat is not installed. gsplat has no median depth (asking for it raises
InputError) and keeps neither blend weights nor pixel counts (those two statistics stay as they are). Its pixels end a
step later or earlier where the transmittance is exactly 1e-4, and it lists a tile by the square around a Gaussian.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gsplat import rasterization
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.render.camera import Camera
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.output import RenderOutput
from kinosplat.render.rotations import matrix_from_quaternion
from kinosplat.render.settings import RasterSettings
from kinosplat.render.statistics import GaussianStatistics


def rasterize_gsplat(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    *,
    background: Tensor | None = None,
    features: Tensor | None = None,
    settings: RasterSettings | None = None,
    statistics: GaussianStatistics | None = None,
    visible: Tensor | None = None,
) -> RenderOutput:
    """Render with gsplat; the arguments mean what they mean in `rasterize`."""
    settings = settings or RasterSettings()
    if settings.median_depth:
        raise InputError("gsplat has no median depth; ask the native rasterizer for it.")
    background = gaussians.means.new_zeros(3) if background is None else background
    backgrounds = background.expand(len(cameras), 3)
    views = [
        _render_view(gaussians, camera, backgrounds[i], features, settings, statistics)
        for i, camera in enumerate(cameras)
    ]
    if visible is not None:
        for view in views:
            visible.logical_or_(view["visible"])

    def stacked(name: str) -> Tensor | None:
        return None if views[0][name] is None else torch.stack([view[name] for view in views])

    rgb, alpha = stacked("rgb"), stacked("alpha")
    assert rgb is not None
    assert alpha is not None
    return RenderOutput(
        rgb=rgb,
        alpha=alpha,
        depth=stacked("depth"),
        normal=stacked("normal"),
        features=stacked("features"),
        n_visible=sum(view["n_visible"] for view in views),
        n_hits=sum(view["n_hits"] for view in views),
    )


def _render_view(
    gaussians: Gaussians,
    camera: Camera,
    background: Tensor,
    features: Tensor | None,
    settings: RasterSettings,
    statistics: GaussianStatistics | None,
) -> dict[str, Any]:
    camera = camera.to(gaussians.device, gaussians.means.dtype)
    means, opacities = gaussians.means, torch.sigmoid(gaussians.opacity_logits)
    if gaussians.displacements is not None:
        assert gaussians.time_centres is not None
        assert gaussians.log_durations is not None
        assert camera.time is not None
        phase = (camera.time - gaussians.time_centres) * torch.exp(-gaussians.log_durations)
        means = means + gaussians.displacements * phase[:, None]
        opacities = opacities * torch.exp(-0.5 * phase.square())
    degree = settings.degree_of(gaussians)
    colours = torch.cat([gaussians.sh_dc[:, None], gaussians.sh_rest[:, : (degree + 1) ** 2 - 1]], dim=1)
    shape = {
        "means": means,
        "quats": gaussians.quats,
        "scales": gaussians.log_scales.exp(),
        "opacities": opacities,
        "viewmats": camera.world_to_camera[None],
        "Ks": camera.K[None],
        "width": camera.width,
        "height": camera.height,
        "near_plane": settings.near,
        "far_plane": settings.far,
        "packed": False,
        "rasterize_mode": "antialiased" if settings.antialiased else "classic",
    }
    picture, alpha, info = rasterization(
        colors=colours, sh_degree=degree, render_mode="RGB+ED" if settings.depth else "RGB", **shape
    )
    alpha = alpha[0, ..., 0]
    maps: dict[str, Tensor] = {}
    if settings.normal:
        maps["normal"] = _normals(gaussians, means, camera)
    if features is not None and features.shape[1] > 0:
        maps["features"] = features
    blended = dict.fromkeys(("normal", "features"))
    if maps:
        channels = rasterization(colors=torch.cat([*maps.values()], dim=1), **shape)[0][0]
        parts = channels.split([tensor.shape[1] for tensor in maps.values()], dim=-1)
        blended.update(zip(maps, parts, strict=True))
    visible = (info["radii"][0] > 0).all(dim=-1)
    if statistics is not None:
        _record(statistics, info, visible, camera)
    return {
        "rgb": picture[0, ..., :3] + (1 - alpha[..., None]) * background,
        "alpha": alpha,
        "depth": picture[0, ..., 3] if settings.depth else None,
        "visible": visible,
        "n_visible": int(visible.sum()),
        "n_hits": info["flatten_ids"].shape[0],
        **blended,
    }


def _normals(gaussians: Gaussians, means: Tensor, camera: Camera) -> Tensor:
    """(N, 3) unit vectors along the shortest axes, turned to the camera."""
    axes = matrix_from_quaternion(gaussians.quats)
    shortest = gaussians.log_scales.argmin(dim=1)
    normals = axes.gather(2, shortest[:, None, None].expand(-1, 3, 1)).squeeze(2)
    facing_away = (normals * (means - camera.position)).sum(-1, keepdim=True) > 0
    return torch.where(facing_away, -normals, normals)


def _record(statistics: GaussianStatistics, info: dict[str, Any], visible: Tensor, camera: Camera) -> None:
    statistics.n_seen.add_(visible)
    radii = info["radii"][0].amax(dim=-1).to(statistics.max_radius)
    torch.maximum(statistics.max_radius, radii * visible, out=statistics.max_radius)
    if info["means2d"].requires_grad:
        half_size = info["means2d"].new_tensor([0.5 * camera.width, 0.5 * camera.height])

        def add(gradient: Tensor) -> None:
            statistics.screen_gradient.add_((gradient[0] * half_size).norm(dim=1))

        info["means2d"].register_hook(add)
