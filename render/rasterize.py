"""`rasterize`: pictures of Gaussians from cameras, differentiable in everything that went in.

The native backends do the work (`backend.py` finds the one for the device); the plain-torch reference and gsplat can be
asked for by name. Arguments that do not fit raise ValueError in one sentence that names them. A Gaussian with a
non-finite parameter is not drawn and gets a gradient of zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import assert_never

from kinosplat.errors import BackendError, InputError
from kinosplat.render.backend import MISSING_GSPLAT, passes_for
from kinosplat.render.camera import Camera
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.output import RenderOutput
from kinosplat.render.pass_times import PassTimes
from kinosplat.render.statistics import GaussianStatistics


@dataclass(frozen=True)
class RasterSettings:
    """How Gaussians are rasterized, and which pictures are wanted beside rgb and alpha."""

    rasterizer: Literal["auto", "native", "reference", "gsplat"] = "auto"
    """Which code renders: auto is native; reference is slow plain torch; gsplat needs that package and a GPU."""
    sh_degree: int | None = None
    """Use spherical harmonics up to this degree at most; None uses all there are."""
    antialiased: bool = False
    """Scale opacities by the area the screen filter adds (Mip-Splatting, Yu et al. 2024)."""
    near: float = 0.01
    """Gaussians whose centre is nearer than this are not drawn, world units."""
    far: float = 1e10
    """Gaussians whose centre is farther than this are not drawn, world units."""
    depth: bool = False
    """Also render the expected depth."""
    median_depth: bool = False
    """Also render the median depth."""
    normal: bool = False
    """Also render normals."""


@dataclass(frozen=True)
class FrameInputs:
    """Everything the pictures of C cameras depend on, as the backends read it, without building a history."""

    gaussians: dict[str, Tensor]
    """Parameter name to tensor, without the time parameters of a static set."""
    features: Tensor | None
    """(N, F), None when there are none."""
    world_to_camera: Tensor
    """(C, 4, 4)."""
    K: Tensor
    """(C, 3, 3)."""
    background: Tensor
    """(C, 3)."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    times: tuple[float | None, ...]
    """Seconds, one a camera; None in a static set."""
    sh_degree: int
    """Used degree, at most what is stored."""
    antialiased: bool
    """Opacity compensation on or off."""
    near: float
    """World units."""
    far: float
    """World units."""
    depth: bool
    """Whether depth is a channel."""
    normal: bool
    """Whether the normal is three channels."""
    median_depth: bool
    """Whether the median depth is wanted."""
    camera_gradient: bool
    """Whether the backward pass has to give gradients of world_to_camera and K."""
    background_gradient: bool
    """Whether the backward pass has to give the gradient of the background."""
    visible: Tensor | None
    """(N,) bool that the forward pass sets to true for what is visible, None when nobody asks."""

    @property
    def n_cameras(self) -> int:
        """C."""
        return len(self.times)

    @property
    def n_features(self) -> int:
        """Number of feature channels."""
        return 0 if self.features is None else self.features.shape[1]

    @property
    def n_channels(self) -> int:
        """All blended channels: rgb, depth, normal, features."""
        return 3 + int(self.depth) + 3 * int(self.normal) + self.n_features


@dataclass(frozen=True)
class Frame:
    """Pictures of C cameras, written by a backend."""

    rgb: Tensor
    """(C, H, W, 3)."""
    alpha: Tensor
    """(C, H, W)."""
    depth_sum: Tensor | None
    """(C, H, W), blended depth, not yet divided by alpha."""
    normal: Tensor | None
    """(C, H, W, 3)."""
    features: Tensor | None
    """(C, H, W, F)."""
    median_depth: Tensor | None
    """(C, H, W)."""


@dataclass(frozen=True)
class FrameGradients:
    """Gradients of the loss by the pictures of C cameras, shaped like them; None where a picture was not used."""

    rgb: Tensor | None
    alpha: Tensor | None
    depth_sum: Tensor | None
    normal: Tensor | None
    features: Tensor | None


@dataclass(frozen=True)
class InputGradients:
    """Gradients by what went in, shaped like it; of cameras and background they may be None where not wanted."""

    gaussians: dict[str, Tensor]
    features: Tensor | None
    world_to_camera: Tensor | None
    K: Tensor | None
    background: Tensor | None


def rasterize(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    *,
    background: Tensor | None = None,
    features: Tensor | None = None,
    settings: RasterSettings | None = None,
    statistics: GaussianStatistics | None = None,
    visible: Tensor | None = None,
    times: PassTimes | None = None,
) -> RenderOutput:
    """Render `gaussians` from C `cameras` of one size, each at its own time.

    gaussians: N Gaussians, float32 or float64, contiguous; what is only drawn may be `Gaussians.for_drawing`.
    background: (3,) or (C, 3), black when None. features: (N, F) channels blended beside the colour, over zero.
    statistics: added to by the forward pass, and by the backward pass its screen gradient. visible: (N,) bool, becomes
    true for what is visible in any of the cameras and false for the rest: the rows a sparse optimiser updates. times:
    marked between the passes of a forward pass without gradients.
    Differentiable with respect to every tensor of `gaussians`, the cameras' `world_to_camera` and `K` (focal lengths
    and principal point), `background` and `features`. Without a tensor that requires gradients nothing is kept.
    Raises InputError (a ValueError) for arguments that do not fit together, BackendError for a missing backend.
    """
    settings = RasterSettings() if settings is None else settings
    _check(gaussians, cameras, background, features, settings, statistics, visible)
    if visible is not None:
        visible.zero_()
    match settings.rasterizer:
        case "auto" | "native":
            return _rasterize_native(gaussians, cameras, background, features, settings, statistics, visible, times)
        case "reference":
            from kinosplat.render.reference import rasterize_reference as rasterize_other
        case "gsplat":
            try:
                from kinosplat.render.gsplat_adapter import rasterize_gsplat as rasterize_other
            except ImportError as error:
                raise BackendError(MISSING_GSPLAT) from error
        case _:
            assert_never(settings.rasterizer)
    return rasterize_other(
        gaussians,
        cameras,
        background=background,
        features=features,
        sh_degree=settings.sh_degree,
        antialiased=settings.antialiased,
        near=settings.near,
        far=settings.far,
        depth=settings.depth,
        median_depth=settings.median_depth,
        normal=settings.normal,
        statistics=statistics,
        visible=visible,
    )


def _check(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    background: Tensor | None,
    features: Tensor | None,
    settings: RasterSettings,
    statistics: GaussianStatistics | None,
    visible: Tensor | None,
) -> None:
    n = len(gaussians)
    if len({(camera.width, camera.height) for camera in cameras}) != 1:
        raise InputError("cameras must be at least one camera, all of one width and height.")
    if gaussians.is_moving and any(camera.time is None for camera in cameras):
        raise InputError("cameras must have a time when the Gaussians move; give one with Camera.at(seconds).")
    if gaussians.means.dtype not in (torch.float32, torch.float64):
        raise InputError(f"means must be float32 or float64, got {gaussians.means.dtype}; convert the Gaussians first.")
    if background is not None and tuple(background.shape) not in ((3,), (len(cameras), 3)):
        raise InputError(f"background must have shape (3,) or ({len(cameras)}, 3), got {tuple(background.shape)}.")
    if features is not None and (features.ndim != 2 or features.shape[0] != n):
        raise InputError(f"features must have shape ({n}, F), got {tuple(features.shape)}.")
    if not 0 < settings.near < settings.far:
        raise InputError(f"near must be above 0 and below far, got near {settings.near} and far {settings.far}.")
    if statistics is not None and len(statistics) != n:
        raise InputError(f"statistics must be those of {n} Gaussians, got {len(statistics)}.")
    if visible is not None and (visible.dtype != torch.bool or visible.shape != (n,)):
        raise InputError(f"visible must be bool of shape ({n},), got {visible.dtype} of shape {tuple(visible.shape)}.")


def _rasterize_native(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    background: Tensor | None,
    features: Tensor | None,
    settings: RasterSettings,
    statistics: GaussianStatistics | None,
    visible: Tensor | None,
    times: PassTimes | None,
) -> RenderOutput:
    means = gaussians.means
    degree = gaussians.sh_degree if settings.sh_degree is None else min(settings.sh_degree, gaussians.sh_degree)
    parameters = gaussians.parameters()
    call = _Call(
        passes=passes_for(means.device),
        names=tuple(parameters),
        width=cameras[0].width,
        height=cameras[0].height,
        times=tuple(camera.time if gaussians.is_moving else None for camera in cameras),
        sh_degree=degree,
        settings=settings,
        statistics=statistics,
        visible=visible,
    )
    if background is None:
        background = means.new_zeros(3)
    tensors = (
        *parameters.values(),
        _stacked([camera.world_to_camera.to(means) for camera in cameras]),
        _stacked([camera.K.to(means) for camera in cameras]),
        background.to(means).expand(len(cameras), 3).contiguous(),
        *(() if features is None or features.shape[1] == 0 else (features,)),
    )
    wants_gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if gaussians.sh_rest.dtype == torch.float16 and (wants_gradients or means.device.type != "cuda"):
        raise InputError(
            "sh_rest in float16 is for drawing on a GPU without gradients; convert it to float32 for anything else."
        )
    if wants_gradients:
        *pictures, n_visible, n_hits = _Rasterize.apply(call, *tensors)
        frames = Frame(*pictures)
    else:
        inputs = call.inputs(tensors)
        frames, _, n_visible, n_hits = call.passes.render_forward(
            inputs, keep_state=False, statistics=statistics, times=times
        )
    depth = None
    if frames.depth_sum is not None:
        depth = frames.depth_sum / torch.where(frames.alpha > 0, frames.alpha, 1.0)
    return RenderOutput(
        rgb=frames.rgb,
        alpha=frames.alpha,
        depth=depth,
        median_depth=frames.median_depth,
        normal=frames.normal,
        features=frames.features,
        n_visible=n_visible,
        n_hits=n_hits,
    )


def _stacked(tensors: list[Tensor]) -> Tensor:
    """Like torch.stack, but a single tensor costs no copy."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)


@dataclass(frozen=True)
class _Call:
    """One call of `rasterize` without its tensors, which are always handed on in the order

    Gaussians as in `names`, world_to_camera (C, 4, 4), K (C, 3, 3), background (C, 3), features if there are any.
    """

    passes: ModuleType
    names: tuple[str, ...]
    width: int
    height: int
    times: tuple[float | None, ...]
    sh_degree: int
    settings: RasterSettings
    statistics: GaussianStatistics | None
    visible: Tensor | None

    def inputs(self, tensors: Sequence[Tensor], needs_gradient: Sequence[bool] | None = None) -> FrameInputs:
        """What the backends read; `needs_gradient` says so of each tensor, in their order."""
        n = len(self.names)
        world_to_camera, K, background = tensors[n : n + 3]
        return FrameInputs(
            gaussians=dict(zip(self.names, tensors[:n], strict=True)),
            features=tensors[n + 3] if len(tensors) > n + 3 else None,
            world_to_camera=world_to_camera,
            K=K,
            background=background,
            width=self.width,
            height=self.height,
            times=self.times,
            sh_degree=self.sh_degree,
            antialiased=self.settings.antialiased,
            near=self.settings.near,
            far=self.settings.far,
            depth=self.settings.depth,
            normal=self.settings.normal,
            median_depth=self.settings.median_depth,
            camera_gradient=needs_gradient is not None and (needs_gradient[n] or needs_gradient[n + 1]),
            background_gradient=needs_gradient is not None and needs_gradient[n + 2],
            visible=self.visible,
        )


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> Any:
        inputs = call.inputs(tensors)
        frames, state, n_visible, n_hits = call.passes.render_forward(
            inputs, keep_state=True, statistics=call.statistics
        )
        ctx.call, ctx.state, ctx.n_inputs = call, state, len(tensors)
        pictures = tuple(vars(frames).values())
        ctx.save_for_backward(*tensors, *pictures)
        ctx.set_materialize_grads(False)
        if frames.median_depth is not None:
            ctx.mark_non_differentiable(frames.median_depth)
        return (*pictures, n_visible, n_hits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dL_dpictures: Tensor | None) -> Any:
        call: _Call = ctx.call
        saved = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        gradients: InputGradients = call.passes.render_backward(
            call.inputs(saved[: ctx.n_inputs], needed),
            ctx.state,
            Frame(*saved[ctx.n_inputs :]),
            FrameGradients(*(None if g is None else g.contiguous() for g in dL_dpictures[:5])),
            statistics=call.statistics,
        )
        ordered = [
            *(gradients.gaussians[name] for name in call.names),
            gradients.world_to_camera,
            gradients.K,
            gradients.background,
            *([] if gradients.features is None else [gradients.features]),
        ]
        return None, *(g if wanted else None for g, wanted in zip(ordered, needed, strict=True))
