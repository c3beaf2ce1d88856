"""`rasterize`: pictures of Gaussians from cameras, differentiable in everything that went in.

The native backends do the work (`backend.py` finds the one for the device); the plain-torch reference and gsplat can be
asked for by name. Arguments that do not fit raise ValueError in one sentence that names them. A Gaussian with a
non-finite parameter is not drawn and gets a gradient of zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import assert_never

from kinosplat.errors import BackendError, InputError
from kinosplat.render.backend import MISSING_GSPLAT, check_gsplat, passes_for
from kinosplat.render.camera import Camera
from kinosplat.render.frame import Frame, FrameGradients, FrameInputs, InputGradients
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.output import RenderOutput
from kinosplat.render.pass_times import PassTimes
from kinosplat.render.settings import RasterSettings
from kinosplat.render.statistics import GaussianStatistics

ONLY_DRAWN = "sh_rest in float16 is for drawing on a GPU without gradients; convert it to float32 for anything else."


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
    check_arguments(gaussians, cameras, background, features, settings, statistics, visible)
    match settings.rasterizer:
        case "auto" | "native":
            return _rasterize_native(gaussians, cameras, background, features, settings, statistics, visible, times)
        case "reference":
            from kinosplat.render.reference import rasterize_reference as rasterize_other
        case "gsplat":
            check_gsplat(gaussians.device)
            try:
                from kinosplat.render.gsplat_adapter import rasterize_gsplat as rasterize_other
            except ImportError as error:
                raise BackendError(MISSING_GSPLAT) from error
        case _:
            assert_never(settings.rasterizer)
    if visible is not None:
        visible.zero_()
    return rasterize_other(
        gaussians,
        cameras,
        background=background,
        features=features,
        settings=settings,
        statistics=statistics,
        visible=visible,
    )


def check_arguments(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    background: Tensor | None,
    features: Tensor | None,
    settings: RasterSettings,
    statistics: GaussianStatistics | None,
    visible: Tensor | None,
) -> None:
    """Refuse with InputError what does not fit together; arguments as of `rasterize`."""
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
    passes = passes_for(gaussians.device)
    inputs = frame_inputs(gaussians, cameras, background, features, settings, visible)
    wants_gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs.tensors)
    if gaussians.sh_rest.dtype == torch.float16 and (wants_gradients or gaussians.device.type != "cuda"):
        raise InputError(ONLY_DRAWN)
    if wants_gradients:
        *pictures, n_visible, n_hits = _Rasterize.apply(passes, inputs, statistics, *inputs.tensors)
        frames = Frame(*pictures)
    else:
        frames, _, n_visible, n_hits = passes.render_forward(
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


def frame_inputs(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    background: Tensor | None,
    features: Tensor | None,
    settings: RasterSettings,
    visible: Tensor | None,
    checked: Any = None,
) -> FrameInputs:
    """What the native passes read; arguments as of `rasterize`, and `checked` as of FrameInputs."""
    means, is_moving = gaussians.means, gaussians.is_moving
    world_to_camera = _stacked([camera.world_to_camera.to(means) for camera in cameras])
    K = _stacked([camera.K.to(means) for camera in cameras])
    if background is None:
        background = means.new_zeros(3)
    return FrameInputs(
        gaussians=gaussians.parameters(),
        features=None if features is None or features.shape[1] == 0 else features,
        world_to_camera=world_to_camera,
        K=K,
        background=background.to(means).expand(len(cameras), 3).contiguous(),
        width=cameras[0].width,
        height=cameras[0].height,
        times=tuple(camera.time if is_moving else None for camera in cameras),
        sh_degree=settings.degree_of(gaussians),
        antialiased=settings.antialiased,
        near=settings.near,
        far=settings.far,
        depth=settings.depth,
        normal=settings.normal,
        median_depth=settings.median_depth,
        camera_gradient=world_to_camera.requires_grad or K.requires_grad,
        background_gradient=background.requires_grad,
        visible=visible,
        checked=checked,
    )


def _stacked(tensors: list[Tensor]) -> Tensor:
    """Like torch.stack, but a single tensor costs no copy."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, passes: ModuleType, inputs: FrameInputs, statistics: GaussianStatistics | None, *tensors: Tensor
    ) -> Any:
        frames, state, n_visible, n_hits = passes.render_forward(inputs, keep_state=True, statistics=statistics)
        ctx.passes, ctx.inputs, ctx.statistics, ctx.state = passes, inputs, statistics, state
        pictures = tuple(vars(frames).values())
        ctx.save_for_backward(*tensors, *pictures)
        ctx.set_materialize_grads(False)
        if frames.median_depth is not None:
            ctx.mark_non_differentiable(frames.median_depth)
        return (*pictures, n_visible, n_hits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dL_dpictures: Tensor | None) -> Any:
        needed = ctx.needs_input_grad[3:]
        # Taken from torch, which notices tensors that were changed since.
        saved = ctx.saved_tensors
        gradients: InputGradients = ctx.passes.render_backward(
            ctx.inputs.with_tensors(saved[: len(needed)]),
            ctx.state,
            Frame(*saved[len(needed) :]),
            FrameGradients(*(None if g is None else g.contiguous() for g in dL_dpictures[:5])),
            statistics=ctx.statistics,
        )
        return None, None, None, *(g if wanted else None for g, wanted in zip(gradients.tensors, needed, strict=True))
