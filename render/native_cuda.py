"""The order of the CUDA backend's passes and who allocates what (cuda/gpu/frame.h has the contract of each pass).

Torch allocates everything, on the current stream of the tensors' device. All cameras of a call go through the passes
together. The only wait is for the numbers of visible rows and hits, while the rows are sorted; then exactly as much
memory is taken as the lists need. Arrays are handed over as addresses, checked before (render/cuda_call.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from kinosplat._native import gpu as native
from kinosplat.errors import InputError
from kinosplat.render.cuda_call import Checked, address_of, current_queue, run_pass
from kinosplat.render.frame import Frame, FrameGradients, FrameInputs, InputGradients

if TYPE_CHECKING:
    from kinosplat.render.pass_times import PassTimes
    from kinosplat.render.statistics import GaussianStatistics


class _Layout(NamedTuple):
    """How a parameter has to lie in memory."""

    shape: tuple[int, ...]
    """Of one Gaussian."""
    alignment: int = 4
    """Bytes."""


LAYOUTS = {
    "means": _Layout((3,)),
    "quats": _Layout((4,), 16),
    "log_scales": _Layout((3,)),
    "opacity_logits": _Layout(()),
    "sh_dc": _Layout((3,)),
    "displacements": _Layout((3,)),
    "time_centres": _Layout(()),
    "log_durations": _Layout(()),
}
HOLD_ROW_GRADIENTS = ("means", "quats", "log_scales")
STATISTICS_DTYPES = {
    "blend_weight": torch.float32,
    "n_pixels": torch.int32,
    "screen_gradient": torch.float32,
    "n_seen": torch.int32,
    "max_radius": torch.float32,
}
NO_STATISTICS = native.StatisticsArrays()


Marks: TypeAlias = "Sequence[torch.cuda.Event] | None"


class _Kept(NamedTuple):
    """Device memory the forward pass leaves to the backward pass: 40 bytes a pair of a Gaussian and a camera, 4 an
    entry.
    """

    counts: Any
    """Numbers of rows, hits and entries."""
    rows: Tensor
    """Records of the visible rows, and their channels beside the colour."""
    lists: Tensor
    """Rows grouped by two by two tiles, in order of depth."""


@dataclass(slots=True)
class FrameState:
    """What the backward pass needs of the forward pass."""

    frame: Any
    """Inputs and settings, as the native module holds them."""
    kept: _Kept | None
    """Given up before the gradients of the Gaussians are allocated; a second backward pass renders again."""
    picture_channels: Tensor | None
    """(C, H, W, channels) as blended."""


def check_gaussians(gaussians: Mapping[str, Tensor], features: Tensor | None = None) -> tuple[Any, int]:
    """The addresses of a set, and that of its harmonics if they are float16, checked: good for as long as these very
    tensors are there (FrameInputs.checked).
    """
    means, sh_rest = gaussians["means"], gaussians["sh_rest"]
    n, n_sh_rest = means.shape[0], sh_rest.shape[1]
    checked = Checked(means.device)
    addresses = {
        name: checked(name, gaussians[name], (n, *layout.shape), alignment=layout.alignment)
        for name, layout in LAYOUTS.items()
        if name in gaussians
    }
    is_half = sh_rest.dtype == torch.float16
    harmonics = checked("sh_rest", sh_rest, (n, n_sh_rest, 3), torch.float16 if is_half else torch.float32, 16)
    if features is not None:
        addresses["features"] = checked("features", features, (n, features.shape[1]))
    return native.GaussianArrays(**addresses, sh_rest=0 if is_half else harmonics), harmonics if is_half else 0


@dataclass(slots=True)
class Begun:
    """A frame whose rows are projected and sorted on the device while the host does something else."""

    frame: Any
    """Inputs and settings, as the native module holds them."""
    queue: Any
    """Device and stream."""
    rows: Tensor
    """As of _Kept."""
    scratch: Tensor | None
    """Of everything up to the sorted rows; given up when they have been read."""


def begin_frame(
    inputs: FrameInputs, *, keep_state: bool, statistics: GaussianStatistics | None, marks: Marks = None
) -> Begun:
    """Check the arguments and start on the frame; this thread has to render it before it begins another one."""
    packed = not keep_state and inputs.n_channels == 3 and not inputs.median_depth and statistics is None
    frame = _native_frame(inputs, statistics, packed=packed)
    if inputs.visible is not None:
        inputs.visible.zero_()
    return _project(frame, inputs.gaussians["means"].device, marks)


def render_forward(
    inputs: FrameInputs,
    *,
    keep_state: bool,
    statistics: GaussianStatistics | None,
    times: PassTimes | None = None,
    begun: Begun | None = None,
) -> tuple[Frame, FrameState | None, int, int]:
    """Render all cameras; returns pictures, the state (None unless asked for), and the numbers of rows and hits.

    begun: of `begin_frame` with the same arguments, if it was called.
    """
    n_cameras, height, width = inputs.n_cameras, inputs.height, inputs.width
    n_features = inputs.n_features
    device = inputs.gaussians["means"].device
    n_channels = inputs.n_channels - 3
    marks = None if times is None else times.events(device)
    if begun is None:
        begun = begin_frame(inputs, keep_state=keep_state, statistics=statistics, marks=marks)
    frame, queue = begun.frame, begun.queue
    kept = _bin(begun, device, marks)
    # Scratch memory is free again by now, and pictures may take its place.
    rgb = torch.empty(n_cameras, height, width, 3, device=device)
    alpha = torch.empty(n_cameras, height, width, device=device)
    picture_channels = torch.empty(n_cameras, height, width, n_channels, device=device) if n_channels else None
    median_depth = torch.empty(n_cameras, height, width, device=device) if inputs.median_depth else None
    run_pass(
        native.blend,
        frame,
        kept.counts,
        queue,
        kept.rows.data_ptr(),
        kept.lists.data_ptr(),
        native.Pictures(rgb.data_ptr(), alpha.data_ptr(), address_of(picture_channels), address_of(median_depth)),
    )
    if marks is not None:
        marks[3].record(torch.cuda.current_stream(device))
    depth_sum = normal = features = None
    if picture_channels is not None:
        n_depth, n_normal = int(inputs.depth), 3 * int(inputs.normal)
        depth, normals, feature_maps = picture_channels.split([n_depth, n_normal, n_features], dim=3)
        depth_sum = depth[..., 0].contiguous() if n_depth else None
        normal = normals.contiguous() if n_normal else None
        features = feature_maps.contiguous() if n_features else None
    pictures = Frame(
        rgb=rgb, alpha=alpha, depth_sum=depth_sum, normal=normal, features=features, median_depth=median_depth
    )
    state = FrameState(frame, kept, picture_channels) if keep_state else None
    return pictures, state, kept.counts.n_rows, kept.counts.n_hits


def _project(frame: Any, device: torch.device, marks: Marks = None) -> Begun:
    """Rows, and their order of depth; `marks` are recorded at the beginning and after projecting."""
    queue = current_queue(device)
    rows, scratch = _memory(frame.row_bytes(), device), _memory(frame.project_bytes(), device)
    if marks is not None:
        marks[0].record(torch.cuda.current_stream(device))
    projected = 0 if marks is None else marks[1].cuda_event
    run_pass(native.project, frame, queue, scratch.data_ptr(), rows.data_ptr(), projected)
    return Begun(frame, queue, rows, scratch)


def _bin(begun: Begun, device: torch.device, marks: Marks = None) -> _Kept:
    """The lists of what tiles have to blend, when the host knows how long they are; `marks` are recorded after it."""
    frame, queue, rows = begun.frame, begun.queue, begun.rows
    project_scratch, begun.scratch = begun.scratch, None
    assert project_scratch is not None
    counts = run_pass(native.wait_for_counts, queue)
    if counts.n_entries > native.MAX_ENTRIES:
        raise InputError(
            f"the pictures have {counts.n_entries} pairs of a Gaussian and a block of tiles, more than "
            f"{native.MAX_ENTRIES}; render them smaller, or fewer cameras at once."
        )
    lists, scratch = _memory(frame.list_bytes(counts), device), _memory(frame.bin_bytes(counts), device)
    run_pass(
        native.bin,
        frame,
        counts,
        queue,
        project_scratch.data_ptr(),
        rows.data_ptr(),
        scratch.data_ptr(),
        lists.data_ptr(),
    )
    if marks is not None:
        marks[2].record(torch.cuda.current_stream(device))
    return _Kept(counts, rows, lists)


def render_backward(
    inputs: FrameInputs,
    state: FrameState,
    pictures: Frame,
    gradients: FrameGradients,
    *,
    statistics: GaussianStatistics | None,
) -> InputGradients:
    """Gradients of everything that went in, from those of the pictures."""
    device = pictures.rgb.device
    n_cameras = inputs.n_cameras
    picture_shape = (n_cameras, inputs.height, inputs.width)
    checked = Checked(device)
    dL_drgb = torch.zeros_like(pictures.rgb) if gradients.rgb is None else gradients.rgb
    dL_dchannels = None
    if state.picture_channels is not None:
        dL_dchannels = _join_channels(inputs, gradients, state.picture_channels)
    frame = state.frame
    queue = current_queue(device)
    kept, state.kept = state.kept, None
    if kept is None:
        kept = _bin(_project(_native_frame(inputs, None, packed=False), device), device)
    n_scratch = frame.row_gradient_bytes()
    scratch = _memory(n_scratch, device) if n_scratch > 0 else None
    gaussians = inputs.gaussians
    hold_rows = {name: torch.empty_like(gaussians[name]) for name in HOLD_ROW_GRADIENTS}
    run_pass(
        native.blend_backward,
        frame,
        kept.counts,
        queue,
        kept.rows.data_ptr(),
        kept.lists.data_ptr(),
        native.Pictures(pictures.rgb.data_ptr(), pictures.alpha.data_ptr(), address_of(state.picture_channels)),
        native.PictureGradients(
            rgb=checked("the gradient of rgb", dL_drgb, (*picture_shape, 3)),
            alpha=checked("the gradient of alpha", gradients.alpha, picture_shape),
            channels=address_of(dL_dchannels),
        ),
        address_of(scratch),
        _gradient_addresses(hold_rows, None),
    )
    background = torch.einsum("chw,chwk->ck", 1 - pictures.alpha, dL_drgb) if inputs.background_gradient else None
    del kept, dL_dchannels
    out = InputGradients(
        gaussians={
            name: hold_rows[name] if name in hold_rows else torch.empty_like(tensor)
            for name, tensor in gaussians.items()
        },
        features=None if inputs.features is None else torch.empty_like(inputs.features),
        world_to_camera=torch.zeros(n_cameras, 4, 4, device=device) if inputs.camera_gradient else None,
        K=torch.zeros(n_cameras, 3, 3, device=device) if inputs.camera_gradient else None,
        background=background,
    )
    run_pass(
        native.project_backward,
        frame,
        queue,
        address_of(scratch),
        _gradient_addresses(out.gaussians, out.features),
        address_of(out.world_to_camera),
        address_of(out.K),
    )
    return out


def _memory(n_bytes: int, device: torch.device) -> Tensor:
    return torch.empty(n_bytes, dtype=torch.uint8, device=device)


def _gradient_addresses(gaussians: dict[str, Tensor], features: Tensor | None) -> Any:
    return native.GaussianGradients(
        **{name: tensor.data_ptr() for name, tensor in gaussians.items()}, features=address_of(features)
    )


def _native_frame(inputs: FrameInputs, statistics: GaussianStatistics | None, *, packed: bool) -> Any:
    gaussians = inputs.gaussians
    means = gaussians["means"]
    n, n_cameras, n_sh_rest = means.shape[0], inputs.n_cameras, gaussians["sh_rest"].shape[1]
    if n_cameras > native.MAX_CAMERAS:
        raise InputError(f"cameras must be at most {native.MAX_CAMERAS} in one call, got {n_cameras}.")
    if n * n_cameras > native.MAX_PAIRS:
        raise InputError(
            f"Gaussians times cameras must be at most {native.MAX_PAIRS} in one call, got {n * n_cameras}; draw fewer "
            "cameras at once."
        )
    if max(inputs.width, inputs.height) > native.MAX_IMAGE_SIZE:
        raise InputError(f"cameras must be at most {native.MAX_IMAGE_SIZE} pixels wide and high.")
    arrays, half_sh_rest = inputs.checked or check_gaussians(gaussians, inputs.features)
    checked = Checked(means.device)
    return native.Frame(
        gaussians=arrays,
        half_sh_rest=half_sh_rest,
        statistics=_accumulators(checked, n, inputs.visible, statistics),
        world_to_camera=checked("world_to_camera", inputs.world_to_camera, (n_cameras, 4, 4)),
        K=checked("K", inputs.K, (n_cameras, 3, 3)),
        times=[0.0 if time is None else time for time in inputs.times],
        background=checked("background", inputs.background, (n_cameras, 3)),
        n_gaussians=n,
        n_cameras=n_cameras,
        width=inputs.width,
        height=inputs.height,
        n_sh_rest=n_sh_rest,
        sh_degree=inputs.sh_degree,
        n_features=inputs.n_features,
        near=inputs.near,
        far=inputs.far,
        antialiased=inputs.antialiased,
        depth_channel=inputs.depth,
        normal_channel=inputs.normal,
        packed=packed,
    )


def _accumulators(checked: Checked, n: int, visible: Tensor | None, statistics: GaussianStatistics | None) -> Any:
    if visible is None and statistics is None:
        return NO_STATISTICS
    accumulators = {"visible": checked("visible", visible, (n,), torch.bool, 1)}
    if statistics is not None:
        for name, dtype in STATISTICS_DTYPES.items():
            accumulators[name] = checked(f"statistics.{name}", getattr(statistics, name), (n,), dtype, 1)
    return native.StatisticsArrays(**accumulators)


def _join_channels(inputs: FrameInputs, gradients: FrameGradients, like: Tensor) -> Tensor:
    """(C, H, W, channels) gradients side by side, zero where a picture was not used."""
    joined = torch.zeros_like(like)
    depth, normal, features = joined.split([int(inputs.depth), 3 * int(inputs.normal), inputs.n_features], dim=3)
    if gradients.depth_sum is not None:
        depth[..., 0] = gradients.depth_sum
    if gradients.normal is not None:
        normal.copy_(gradients.normal)
    if gradients.features is not None:
        features.copy_(gradients.features)
    return joined
