"""A field as it is drawn, not learned: pictures without a tensor of samples in between, on both devices.

Raw calls, no autograd; the field's tensors come one by one. `PreparedField` takes them over in the form in which they
are drawn and is good until a parameter changes. On CUDA two kernels make a picture, with tables and networks of 16
bits; rays, marching, encoding, networks, compositing, background and rounding to 8 bits happen without a read-back, so
the next picture can be asked for at once (cuda/gpu/fused_field.h). On the CPU threads take tiles of rays, in the
precision of the parameters (cuda/cpu/fused_field.h). What the kernels are not made for, `why_not` says in one sentence,
which PreparedField raises as BackendError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from kinosplat.errors import BackendError, InputError
from kinosplat.render.backend import call_cpu, load_cuda, load_native
from kinosplat.render.camera import Camera
from kinosplat.render.field.layout import GridLayout
from kinosplat.render.field.marching import OccupiedCells
from kinosplat.render.field.native import native_grid, native_marching, occupied_blocks
from kinosplat.render.field.native_mlp import cpu_network
from kinosplat.render.field.reference import STOP
from kinosplat.render.field.sparse_table import BLOCK, SparseTable


@dataclass(frozen=True)
class FieldPicture:
    """One picture of height H and width W; the optional parts are None unless asked for."""

    rgb: Tensor | None
    """(H, W, 3) over the background."""
    alpha: Tensor
    """(H, W)."""
    depth: Tensor
    """(H, W), sum of weights times distance along the ray, world units."""
    as_bytes: Tensor | None
    """(H, W, 3) uint8, `rgb` clamped to [0, 1] and rounded to 8 bits."""
    n_rays: Tensor
    """() int64 on the device, rays that met an occupied cell."""
    n_samples: Tensor
    """() int64 on the device, samples evaluated."""
    stage_cycles: Tensor | None
    """(5,) int64, cycles the GPU's warps spent in each stage."""


def why_not(
    layout: GridLayout,
    density_weights: Sequence[Tensor],
    colour_weights: Sequence[Tensor],
    direction_degrees: int,
    device: torch.device,
) -> str | None:
    """Why a field on `device` cannot be drawn fused, in one sentence; None where it can."""
    if not 1 <= direction_degrees <= 4:
        return f"direction_degrees must be 1 to 4 to be drawn fused, got {direction_degrees}."
    if device.type == "cpu":
        return None
    native, _ = load_cuda()
    if layout.n_features not in (2, 4):
        return f"The fused kernels need 2 or 4 features a level, got {layout.n_features}; draw it unfused."
    density_widths, colour_widths = _widths(layout, density_weights, colour_weights, direction_degrees)
    widest = max(*density_widths, *colour_widths)
    if widest > native.MAX_MLP_WIDTH:
        return (
            f"The fused kernels need layers of at most {native.MAX_MLP_WIDTH} numbers, got {widest}; draw it unfused."
        )
    n_outputs = density_weights[-1].shape[0]
    if n_outputs != native.DENSITY_OUTPUTS:
        return (
            f"The fused kernels need a density network of {native.DENSITY_OUTPUTS} outputs, got {n_outputs}; "
            "draw it unfused."
        )
    n_layers = max(len(density_weights), len(colour_weights))
    if n_layers > native.MAX_MLP_LAYERS:
        return f"The fused kernels need at most {native.MAX_MLP_LAYERS} layers, got {n_layers}; draw it unfused."
    n_bytes, most_bytes = native.least_shared_bytes(density_widths, colour_widths), _shared_bytes(device)
    if n_bytes > most_bytes:
        return (
            f"The fused kernels need {n_bytes} bytes of shared memory for these networks and this GPU has "
            f"{most_bytes}; draw it unfused."
        )
    return None


def _shared_bytes(device: torch.device) -> int:
    """Shared memory that a block of threads may have on a GPU."""
    native, calls = load_cuda()
    return int(calls.run_pass(native.most_shared_bytes, calls.current_queue(device)))


def _widths(
    layout: GridLayout, density_weights: Sequence[Tensor], colour_weights: Sequence[Tensor], direction_degrees: int
) -> tuple[list[int], list[int]]:
    """Widths of the layers of the density and of the colour network, inputs first."""
    density = [layout.width, *(weight.shape[0] for weight in density_weights)]
    return density, [density[-1] + direction_degrees**2, *(weight.shape[0] for weight in colour_weights)]


class PreparedField:
    """Parameters on one device in the form in which they are drawn.

    table (n_entries, F), or sparse and read as it is; weights (n_outputs, n_inputs) a layer; saliency (n, 1) logits on
    the one dense level of `saliency_layout`, None for a field without gate; sharpness of that gate; density_scale, the
    density where the network says 0, 1 / world units. float32, on the CPU also float64.
    """

    def __init__(
        self,
        layout: GridLayout,
        table: Tensor | SparseTable,
        density_weights: Sequence[Tensor],
        colour_weights: Sequence[Tensor],
        *,
        direction_degrees: int,
        saliency: Tensor | None = None,
        saliency_layout: GridLayout | None = None,
        sharpness: float = 0.0,
        density_scale: float = 1.0,
    ) -> None:
        values = table.values if isinstance(table, SparseTable) else table
        self.index = table.index if isinstance(table, SparseTable) else None
        reason = why_not(layout, density_weights, colour_weights, direction_degrees, values.device)
        if reason is not None:
            raise BackendError(reason)
        if (saliency is None) != (saliency_layout is None):
            raise InputError("saliency and saliency_layout must be given together.")
        self.layout = layout
        self.direction_degrees, self.sharpness = direction_degrees, sharpness
        self.density_scale = density_scale
        self.saliency_layout = saliency_layout or layout
        # Whatever the addresses below point to has to live as long as they are used.
        self.table = values.detach()
        self.density_weights = [weight.detach() for weight in density_weights]
        self.colour_weights = [weight.detach() for weight in colour_weights]
        self.saliency = None if saliency is None else saliency.detach()
        if self.colour_weights[-1].shape[0] != 3:
            raise InputError(f"colour_weights must end in 3 outputs, got {self.colour_weights[-1].shape[0]}.")
        if values.is_cuda:
            self.table = self.table.half().contiguous()
            self.native = self._native_field()

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.table.device

    def _native_field(self) -> Any:
        native, calls = load_cuda()
        checked = calls.Checked(self.device)
        gate = self.saliency_layout
        density_widths, colour_widths = _widths(
            self.layout, self.density_weights, self.colour_weights, self.direction_degrees
        )
        arguments: dict[str, list[int]] = {}
        for name, widths, weights in (
            ("density", density_widths, self.density_weights),
            ("colour", colour_widths, self.colour_weights),
        ):
            arguments[f"{name}_widths"] = widths
            arguments[f"{name}_weights"] = [
                checked(f"{name}_weights[{i}]", weight, (n_out, n_in))
                for i, (weight, (n_in, n_out)) in enumerate(zip(weights, pairwise(widths), strict=True))
            ]
        index = self.index
        n_rows = self.layout.n_entries if index is None else len(self.table)
        headers, words = (None, None) if index is None else (index.headers, index.words)
        return native.FusedField(
            grid=native_grid(self.layout),
            table=checked("table", self.table, (n_rows, self.layout.n_features), torch.float16, 8),
            sparse_headers=checked("headers", headers, (-(-self.layout.n_entries // BLOCK) + 1, 2), torch.int32, 8),
            sparse_words=checked("words", words, None if words is None else tuple(words.shape), torch.int32),
            saliency_grid=native_grid(gate),
            saliency=checked("saliency", self.saliency, (gate.n_entries, 1)),
            sharpness=self.sharpness,
            **arguments,
            n_degrees=self.direction_degrees,
            density_scale=self.density_scale,
        )


def evaluate(field: PreparedField, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Densities (S,), in 1 / world units, and colours (S, 3) of samples, by one CUDA kernel.

    positions (S, 3) in the grid's unit cube; directions (S, 3) of length 1.
    """
    native, calls = load_cuda()
    n_samples, checked = len(positions), calls.Checked(field.device)
    density, rgb = torch.empty(n_samples, device=field.device), torch.empty(n_samples, 3, device=field.device)
    calls.run_pass(
        native.evaluate_field,
        calls.current_queue(field.device),
        field.native,
        n_samples,
        checked("positions", positions, (n_samples, 3)),
        checked("directions", directions, (n_samples, 3)),
        density.data_ptr(),
        rgb.data_ptr(),
    )
    return density, rgb


def draw(
    field: PreparedField,
    cells: OccupiedCells,
    camera: Camera,
    background: Sequence[float],
    *,
    near: float,
    stop: float = STOP,
    as_bytes: bool = False,
    stages: bool = False,
) -> FieldPicture:
    """One picture of the samples that marching.py defines, without jitter; the cells are those of the field's space.

    near: nothing is seen nearer, world units. stop: transmittance
    at which a ray ends. as_bytes: 8-bit colours instead of floats. stages: also count cycles (CUDA), which takes some.
    """
    device = field.device
    dtype = torch.float32 if device.type == "cuda" else field.table.dtype
    shape = (camera.height, camera.width)
    rgb = None if as_bytes else torch.empty(*shape, 3, dtype=dtype, device=device)
    as_8_bits = torch.empty(*shape, 3, dtype=torch.uint8, device=device) if as_bytes else None
    alpha, depth = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
    marching = native_marching(cells.space, cells.rule, cells.resolution)
    blocks, bits = occupied_blocks(cells), cells.bits
    view = _view(camera, background, near, stop)

    if device.type == "cpu":
        counters = torch.empty(load_native().cpu.field_tiles(camera.width, camera.height), 2, dtype=torch.int64)
        call_cpu(
            "draw_field",
            **_cpu_arguments(field),
            marching=marching,
            view=view,
            bits=bits,
            blocks=blocks,
            rgb=rgb,
            alpha=alpha,
            depth=depth,
            bytes=as_8_bits,
            counters=counters,
        )
        n_rays, n_samples = counters.sum(dim=0)
        return FieldPicture(rgb, alpha, depth, as_8_bits, n_rays, n_samples, None)

    native, calls = load_cuda()
    n_bits = cells.space.n_cascades * cells.resolution**3
    counters = torch.empty(native.FIELD_COUNTERS, dtype=torch.int64, device=device)
    stage_cycles = torch.empty(len(native.FIELD_STAGES), dtype=torch.int64, device=device) if stages else None
    pixels = torch.empty(shape, dtype=torch.int32, device=device)
    starts = torch.empty(shape, device=device)
    calls.run_pass(
        native.draw_field,
        calls.current_queue(device),
        field.native,
        marching,
        calls.Checked(device)("bits", bits, (n_bits // 8,), torch.uint8, 1),
        blocks.data_ptr(),
        view,
        native.FieldPicture(
            rgb=calls.address_of(rgb),
            alpha=alpha.data_ptr(),
            depth=depth.data_ptr(),
            bytes=calls.address_of(as_8_bits),
            pixels=pixels.data_ptr(),
            starts=starts.data_ptr(),
            counters=counters.data_ptr(),
            stage_cycles=calls.address_of(stage_cycles),
        ),
    )
    return FieldPicture(rgb, alpha, depth, as_8_bits, counters[0], counters[2], stage_cycles)


def stage_shares(picture: FieldPicture) -> dict[str, float]:
    """Shares, which sum to 1, of the drawing kernel's time by stage of a picture that was drawn with `stages`.

    march: from sample to sample; encode: hash grid; networks: both; composite; rays: new rays and finished pixels.
    """
    if picture.stage_cycles is None:
        raise InputError("picture must have been drawn on CUDA with stages=True.")
    native, _ = load_cuda()
    cycles = picture.stage_cycles.tolist()
    total = max(1, sum(cycles))
    return {stage: n / total for stage, n in zip(native.FIELD_STAGES, cycles, strict=True)}


def _cpu_arguments(field: PreparedField) -> dict[str, Any]:
    """The field, and scratch memory: per thread a block of each network and a tile of samples."""
    like = field.table
    density_widths, colour_widths = _widths(
        field.layout, field.density_weights, field.colour_weights, field.direction_degrees
    )
    arguments: dict[str, Any] = {}
    for name, n_inputs, weights in (
        ("density", density_widths[0], field.density_weights),
        ("colour", colour_widths[0], field.colour_weights),
    ):
        network, _ = cpu_network(like.new_empty(0, n_inputs), weights)
        arguments |= {f"{name}_{key}": value for key, value in network.items()}
    tile = load_native().cpu.field_tile_size(density_widths[0], density_widths[-1], field.direction_degrees)
    return arguments | {
        "grid": native_grid(field.layout),
        "table": field.table,
        "headers": None if field.index is None else field.index.headers,
        "words": None if field.index is None else field.index.words,
        "saliency_grid": native_grid(field.saliency_layout),
        "saliency": field.saliency,
        "sharpness": field.sharpness,
        "n_degrees": field.direction_degrees,
        "density_scale": field.density_scale,
        "scratch": like.new_empty(torch.get_num_threads(), tile),
    }


def _view(camera: Camera, background: Sequence[float], near: float, stop: float) -> Any:
    world_to_camera, K = camera.world_to_camera.detach().double().cpu(), camera.K.detach().double().cpu()
    rotation = world_to_camera[:3, :3]
    return load_native().FieldView(
        width=camera.width,
        height=camera.height,
        inverse_K=torch.linalg.inv(K).flatten().tolist(),
        rotation=rotation.flatten().tolist(),
        position=(-rotation.T @ world_to_camera[:3, 3]).tolist(),
        near=near,
        stop=stop,
        background=[float(value) for value in background],
    )
