"""The order of the CPU backend's passes and the layout of their scratch memory (cuda/cpu/passes.h has the contract).

Torch allocates everything here. Per camera, of N Gaussians V visible ones (rows) touch H tiles (hits): the forward pass
takes 4 (r + 7) bytes a Gaussian with r numbers a record, of which only the rows' share is ever written, then 16 bytes a
row and 12 a hit for sorting; the backward pass takes 4 (6 + channels) bytes a hit. Kept between the two: records,
indices, depths, offsets, 8 bytes a hit and 8 a pixel. For 100k Gaussians at 800x600 that is 36 bytes a hit at the peak
of the forward pass and 60 at that of the backward pass (benchmarks/rasterizer_cpu.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinosplat._native import cpu as native
from kinosplat.render.backend import call_cpu
from kinosplat.render.frame import Frame, FrameGradients, FrameInputs, InputGradients

if TYPE_CHECKING:
    from kinosplat.render.pass_times import PassTimes
    from kinosplat.render.statistics import GaussianStatistics


@dataclass(frozen=True)
class CameraState:
    """What the backward pass of one camera needs of the forward pass."""

    n_rows: int
    """Visible Gaussians."""
    indices: Tensor
    """(N,) int32, Gaussian of each row."""
    records: Tensor
    """(N, r) rows as the blend pass reads them."""
    depths: Tensor
    """(N,) z of each row."""
    hit_offsets: Tensor
    """(N + 1,) int32, first slot of each row."""
    tile_offsets: Tensor
    """(tiles + 1,) int32, first position of each tile."""
    hit_rows: Tensor
    """(H,) int32, row at each position."""
    hit_slots: Tensor
    """(H,) int32, slot of each position."""
    transmittance: Tensor
    """(height, width) left at the end."""
    last_hit: Tensor
    """(height, width) int32, how far into its tile's list a pixel came."""


def check_gaussians(gaussians: Mapping[str, Tensor]) -> None:
    """Nothing to keep: the passes check what they are given themselves."""


def begin_frame(inputs: FrameInputs, *, keep_state: bool, statistics: GaussianStatistics | None) -> None:
    """Nothing: the frame is rendered by the thread that asks for it."""


def render_forward(
    inputs: FrameInputs,
    *,
    keep_state: bool,
    statistics: GaussianStatistics | None,
    times: PassTimes | None = None,
    begun: None = None,
) -> tuple[Frame, list[CameraState], int, int]:
    """Render all cameras; returns pictures, each one's state (none unless asked for), the numbers of rows and hits."""

    def picture(wanted: bool, *channels: int) -> Tensor | None:
        return means.new_empty(shape + channels) if wanted else None

    means = inputs.gaussians["means"]
    shape = (inputs.n_cameras, inputs.height, inputs.width)
    out = Frame(
        rgb=means.new_empty(*shape, 3),
        alpha=means.new_empty(shape),
        depth_sum=picture(inputs.depth),
        normal=picture(inputs.normal, 3),
        features=picture(inputs.n_features > 0, inputs.n_features),
        median_depth=picture(inputs.median_depth),
    )
    states, n_rows, n_hits = [], 0, 0
    for camera in range(inputs.n_cameras):
        state, n_camera_hits = _camera_forward(inputs, camera, out, statistics, times)
        n_rows, n_hits = n_rows + state.n_rows, n_hits + n_camera_hits
        if keep_state:
            states.append(state)
    return out, states, n_rows, n_hits


def _camera_forward(
    inputs: FrameInputs, camera: int, out: Frame, statistics: GaussianStatistics | None, times: PassTimes | None
) -> tuple[CameraState, int]:
    """Render one camera into `out`; returns its state and the number of hits."""
    if times is not None:
        times.begin()
    rows = _project(inputs, camera)
    if times is not None:
        times.passed()
    state = _bin(inputs, rows)
    if times is not None:
        times.passed()
    hits = _HitStatistics.empty(rows) if statistics is not None else None
    call_cpu(
        "blend_forward",
        **_blend_arguments(inputs, camera, state),
        **{f"out_{name}": tensor for name, tensor in _channels_of(inputs, out, camera).items()},
        out_alpha=out.alpha[camera],
        median_depth=of_camera(out.median_depth, camera),
        hit_weights=None if hits is None else hits.weights,
        hit_pixels=None if hits is None else hits.pixels,
    )
    if times is not None:
        times.passed()
    if inputs.visible is not None:
        call_cpu(
            "mark_visible",
            n_rows=rows.n_rows,
            indices=rows.indices,
            clear=camera == 0,
            visible=inputs.visible,
        )
    if statistics is not None and hits is not None:
        hits.add_to(statistics, rows)
    return state, rows.n_hits


@dataclass(frozen=True)
class _Rows:
    """What the project pass finds for one camera; tensors as of CameraState."""

    n_rows: int
    n_hits: int
    indices: Tensor
    records: Tensor
    depths: Tensor
    hit_offsets: Tensor
    ellipses: Tensor
    """(N, fields) of each row, from which its tiles follow."""


@dataclass(frozen=True)
class _HitStatistics:
    """What the blend pass writes down of every hit for statistics."""

    weights: Tensor
    """(H,) sum of blend weights."""
    pixels: Tensor
    """(H,) number of pixels."""

    @classmethod
    def empty(cls, rows: _Rows) -> _HitStatistics:
        """For the blend pass to write to."""
        return cls(*(torch.empty(rows.n_hits, dtype=rows.records.dtype) for _ in range(2)))

    def add_to(self, statistics: GaussianStatistics, rows: _Rows) -> None:
        """Add one camera's to those of the Gaussians."""
        call_cpu(
            "add_statistics",
            n_rows=rows.n_rows,
            indices=rows.indices,
            hit_offsets=rows.hit_offsets,
            ellipses=rows.ellipses,
            hit_weights=self.weights,
            hit_pixels=self.pixels,
            blend_weight=statistics.blend_weight,
            n_pixels=statistics.n_pixels,
            n_seen=statistics.n_seen,
            max_radius=statistics.max_radius,
        )


def _project(inputs: FrameInputs, camera: int) -> _Rows:
    """The rows of the Gaussians that one camera sees."""
    means = inputs.gaussians["means"]
    n, dtype = means.shape[0], means.dtype
    indices = torch.empty(n, dtype=torch.int32)
    records = torch.empty(n, native.record_stride(inputs.n_channels), dtype=dtype)
    depths = torch.empty(n, dtype=dtype)
    ellipses = torch.empty(n, native.N_ELLIPSE_FIELDS, dtype=dtype)
    hit_offsets = torch.empty(n + 1, dtype=torch.int32)
    n_rows, n_hits = call_cpu(
        "project_forward",
        **_projection_arguments(inputs, camera),
        indices=indices,
        records=records,
        depths=depths,
        ellipses=ellipses,
        hit_offsets=hit_offsets,
        chunk_rows=torch.empty(native.n_project_chunks(n), dtype=torch.int32),
    )
    return _Rows(n_rows, n_hits, indices, records, depths, hit_offsets, ellipses)


def _bin(inputs: FrameInputs, rows: _Rows) -> CameraState:
    """The tiles' lists of rows; of the state, what the blend pass writes is still empty."""
    width, height = inputs.width, inputs.height
    n_tiles = native.n_tiles(width, height)
    tile_offsets = torch.empty(n_tiles + 1, dtype=torch.int32)
    hit_rows = torch.empty(rows.n_hits, dtype=torch.int32)
    hit_slots = torch.empty(rows.n_hits, dtype=torch.int32)
    call_cpu(
        "bin",
        n_rows=rows.n_rows,
        n_hits=rows.n_hits,
        width=width,
        height=height,
        n_channels=inputs.n_channels,
        records=rows.records,
        depths=rows.depths,
        ellipses=rows.ellipses,
        hit_offsets=rows.hit_offsets,
        keys=torch.empty(2, rows.n_rows, dtype=torch.int64),
        tile_of_slot=torch.empty(rows.n_hits, dtype=torch.int32),
        histograms=torch.empty(torch.get_num_threads(), n_tiles, dtype=torch.int32),
        tile_offsets=tile_offsets,
        hit_rows=hit_rows,
        hit_slots=hit_slots,
    )
    return CameraState(
        n_rows=rows.n_rows,
        indices=rows.indices,
        records=rows.records,
        depths=rows.depths,
        hit_offsets=rows.hit_offsets,
        tile_offsets=tile_offsets,
        hit_rows=hit_rows,
        hit_slots=hit_slots,
        transmittance=torch.empty(height, width, dtype=rows.records.dtype),
        last_hit=torch.empty(height, width, dtype=torch.int32),
    )


def render_backward(
    inputs: FrameInputs,
    state: list[CameraState],
    pictures: Frame,
    gradients: FrameGradients,
    *,
    statistics: GaussianStatistics | None,
) -> InputGradients:
    """Gradients of everything that went in, from those of the pictures."""
    out = InputGradients(
        # Filled by the pass of the first camera: zeroing here would leave torch's threads spinning beside ours.
        gaussians={name: torch.empty_like(tensor) for name, tensor in inputs.gaussians.items()},
        features=None if inputs.features is None else torch.empty_like(inputs.features),
        world_to_camera=torch.zeros_like(inputs.world_to_camera),
        K=torch.zeros_like(inputs.K),
        background=None if inputs.background is None else torch.zeros_like(inputs.background),
    )
    for camera, camera_state in enumerate(state):
        _camera_backward(inputs, camera, camera_state, gradients, out, statistics)
    return out


def _camera_backward(
    inputs: FrameInputs,
    camera: int,
    state: CameraState,
    gradients: FrameGradients,
    out: InputGradients,
    statistics: GaussianStatistics | None,
) -> None:
    """Add the gradients of one camera's pictures to `out`, which has all tensors."""
    assert out.world_to_camera is not None
    assert out.K is not None
    dtype = state.records.dtype
    n_hits, n_channels = state.hit_rows.shape[0], inputs.n_channels
    hit_gradients = torch.empty(n_hits, native.N_MOMENTS + n_channels, dtype=dtype)
    tile_backgrounds = torch.empty(native.n_tiles(inputs.width, inputs.height), n_channels, dtype=dtype)
    call_cpu(
        "blend_backward",
        **_blend_arguments(inputs, camera, state),
        **{f"dL_d{name}": tensor for name, tensor in _channels_of(inputs, gradients, camera).items()},
        dL_dalpha=of_camera(gradients.alpha, camera),
        hit_gradients=hit_gradients,
        tile_backgrounds=tile_backgrounds,
    )
    if out.background is not None:
        out.background[camera].add_(tile_backgrounds[:, :3].sum(dim=0))
    call_cpu(
        "project_backward",
        **_projection_arguments(inputs, camera),
        n_rows=state.n_rows,
        indices=state.indices,
        hit_offsets=state.hit_offsets,
        records=state.records,
        hit_gradients=hit_gradients,
        clear=camera == 0,
        **{f"dL_d{name}": tensor for name, tensor in out.gaussians.items()},
        **({"dL_dfeatures": out.features} if inputs.n_features else {}),
        dL_dworld_to_camera=out.world_to_camera[camera],
        dL_dK=out.K[camera],
        screen_gradient=None if statistics is None else statistics.screen_gradient,
    )


def of_camera(tensor: Tensor | None, camera: int) -> Tensor | None:
    """One camera's part of a tensor (C, ...)."""
    return None if tensor is None else tensor[camera]


def _channels_of(inputs: FrameInputs, pictures: Frame | FrameGradients, camera: int) -> dict[str, Tensor | None]:
    """The blended channels of one camera by the name the native module gives them, without those nobody asked for."""
    channels = {"rgb": pictures.rgb}
    if inputs.depth:
        channels["depth"] = pictures.depth_sum
    if inputs.normal:
        channels["normal"] = pictures.normal
    if inputs.n_features:
        channels["features"] = pictures.features
    return {name: of_camera(tensor, camera) for name, tensor in channels.items()}


def _projection_arguments(inputs: FrameInputs, camera: int) -> dict[str, Any]:
    still = dict.fromkeys(("displacements", "time_centres", "log_durations"))
    return {
        **still,
        **inputs.gaussians,
        "features": inputs.features,
        "world_to_camera": inputs.world_to_camera[camera],
        "K": inputs.K[camera],
        "width": inputs.width,
        "height": inputs.height,
        "near": inputs.near,
        "far": inputs.far,
        "time": inputs.times[camera],
        "antialiased": inputs.antialiased,
        "sh_degree": inputs.sh_degree,
        "depth": inputs.depth,
        "normal": inputs.normal,
    }


def _blend_arguments(inputs: FrameInputs, camera: int, state: CameraState) -> dict[str, Any]:
    black = torch.zeros(3, dtype=state.records.dtype)
    return {
        "width": inputs.width,
        "height": inputs.height,
        "depth": inputs.depth,
        "normal": inputs.normal,
        "n_features": inputs.n_features,
        "background": black if inputs.background is None else inputs.background[camera],
        "records": state.records,
        "depths": state.depths,
        "tile_offsets": state.tile_offsets,
        "hit_rows": state.hit_rows,
        "hit_slots": state.hit_slots,
        "transmittance": state.transmittance,
        "last_hit": state.last_hit,
    }
