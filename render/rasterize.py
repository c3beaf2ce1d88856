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
DEFAULT_SETTINGS = RasterSettings()


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
    settings = DEFAULT_SETTINGS if settings is None else settings
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
    checked = _checked(passes, gaussians) if features is None else None
    inputs = frame_inputs(gaussians, cameras, background, features, settings, visible, checked)
    tensors = inputs.tensors
    wants_gradients = torch.is_grad_enabled() and True in [t is not None and t.requires_grad for t in tensors]
    if gaussians.sh_rest.dtype == torch.float16 and (wants_gradients or gaussians.device.type != "cuda"):
        raise InputError(ONLY_DRAWN)
    if wants_gradients:
        # The device has something to do while torch gets its history ready.
        begun = passes.begin_frame(inputs, keep_state=True, statistics=statistics)
        *pictures, n_visible, n_hits = _Rasterize.apply((passes, inputs, statistics), begun, *tensors)
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


def _checked(passes: ModuleType, gaussians: Gaussians) -> Any:
    """FrameInputs.checked of a set, found out once for as long as its tensors lie where they did."""
    parameters = gaussians.parameters()
    places = [(tensor.data_ptr(), tensor.shape) for tensor in parameters.values()]
    known = gaussians.notes.get("checked")
    if known is None or known[0] != places:
        known = gaussians.notes["checked"] = (places, passes.check_gaussians(parameters))
    return known[1]


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
    if background is not None:
        background = background.to(means).expand(len(cameras), 3).contiguous()
    return FrameInputs(
        gaussians=gaussians.parameters(),
        features=None if features is None or features.shape[1] == 0 else features,
        world_to_camera=world_to_camera,
        K=K,
        background=background,
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
        background_gradient=background is not None and background.requires_grad,
        visible=visible,
        checked=checked,
    )


def _stacked(tensors: list[Tensor]) -> Tensor:
    """Like torch.stack, but a single tensor costs no copy."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)


class _Rasterize(torch.autograd.Function):
    """One node of torch's history; `call` holds the passes, what they read, and statistics or None; `begun` is what the
    passes' `begin_frame` said.
    """

    @staticmethod
    def forward(
        ctx: Any, call: tuple[ModuleType, FrameInputs, GaussianStatistics | None], begun: Any, *tensors: Tensor | None
    ) -> Any:
        passes, inputs, statistics = call
        pictures, state, n_visible, n_hits = passes.render_forward(
            inputs, keep_state=True, statistics=statistics, begun=begun
        )
        ctx.call, ctx.state = call, state
        ctx.save_for_backward(*tensors, *pictures)
        ctx.set_materialize_grads(False)
        if pictures.median_depth is not None:
            ctx.mark_non_differentiable(pictures.median_depth)
        return (*pictures, n_visible, n_hits)

    @staticmethod
    def backward(ctx: Any, *dL_dpictures: Tensor | None) -> Any:
        # Torch's guard against differentiating twice has nothing to do where no history is recorded.
        differentiate = _differentiate_once if torch.is_grad_enabled() else _differentiate
        return differentiate(ctx, *dL_dpictures)


def _differentiate(ctx: Any, *dL_dpictures: Tensor | None) -> tuple[Tensor | None, ...]:
    """Gradients of what `_Rasterize.forward` was given. On a GPU this runs on a thread of torch's own, whose caches are
    cold: every line costs several times what it would elsewhere.
    """
    passes, inputs, statistics = ctx.call
    # Asked of torch, which notices tensors that were changed since; those that went in are the inputs' own.
    pictures = Frame(*ctx.saved_tensors[-len(Frame._fields) :])
    of_pictures = [g if g is None else g.contiguous() for g in dL_dpictures[:5]]
    gradients: InputGradients = passes.render_backward(
        inputs, ctx.state, pictures, FrameGradients(*of_pictures), statistics=statistics
    )
    return (None, None, *gradients.tensors)


_differentiate_once = once_differentiable(_differentiate)
