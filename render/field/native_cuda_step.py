"""The native passes of a field's training step on a GPU (cuda/gpu/field_step.h has the contract of each), called by
`native_step`; those that fill buffers of samples are in native_cuda_buffers.py.

Torch allocates everything, on the current stream. Nothing waits for the device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kinosplat._native import gpu as native
from kinosplat.errors import InputError
from kinosplat.render.cuda_call import Checked, address_of, current_queue, run_pass
from kinosplat.render.field.native_step import DrawnRays, Pictures
from kinosplat.render.field.samples import Composited


def draw_rays(pictures: Pictures, rays: DrawnRays, key: int, background: Tensor | None) -> None:
    """Write `rays`."""
    device = pictures.data.device
    checked = Checked(device)
    n_slots, slot_pixels, n_bytes = pictures.data.shape
    n_views = len(pictures.sizes)
    pool = native.PixelPool(
        n_slots,
        slot_pixels,
        checked("data", pictures.data, (n_slots, slot_pixels, n_bytes), torch.uint8, 1),
        checked("view_of_slot", pictures.view_of_slot, (n_slots,), torch.int64, 8),
        checked("sizes", pictures.sizes, (n_views, 2), torch.int64, 8),
        checked("inverse_K", pictures.inverse_K, (n_views, 3, 3)),
        checked("world_to_camera", pictures.world_to_camera, (n_views, 4, 4)),
        checked("background", background, (3,)),
    )
    if n_bytes != native.POOL_BYTES:
        raise InputError(f"data must have {native.POOL_BYTES} bytes a pixel, got {n_bytes}.")
    run_pass(
        native.draw_rays,
        current_queue(device),
        pool,
        key,
        len(rays.views),
        rays.origins.data_ptr(),
        rays.directions.data_ptr(),
        rays.target.data_ptr(),
        rays.background.data_ptr(),
        rays.views.data_ptr(),
        rays.places.data_ptr(),
        rays.jitter.data_ptr(),
        address_of(rays.weight),
    )


def _head_arrays(
    outputs: Tensor, colour_logits: Tensor | None, density_scale: float, gate: Tensor | None, count: Tensor | None
) -> Any:
    n, width = outputs.shape
    checked = Checked(outputs.device)
    return native.HeadArrays(
        n,
        checked("count", count, (), torch.int32),
        width,
        checked("outputs", outputs, (n, width)),
        checked("gate", gate, (n,)),
        checked("colour_logits", colour_logits, (n, 3)),
        density_scale,
    )


def activate(
    outputs: Tensor,
    colour_logits: Tensor,
    density_scale: float,
    gate: Tensor | None,
    count: Tensor | None,
    density: Tensor,
    rgb: Tensor,
) -> None:
    """Write densities and colours."""
    arrays = _head_arrays(outputs, colour_logits, density_scale, gate, count)
    run_pass(native.activate, current_queue(outputs.device), arrays, density.data_ptr(), rgb.data_ptr())


def colour_gradients(rgb: Tensor, dL_drgb: Tensor, count: Tensor | None, dL_dlogits: Tensor) -> None:
    """Write the gradients of the colours' logits."""
    n, checked = len(rgb), Checked(rgb.device)
    run_pass(
        native.colour_gradients,
        current_queue(rgb.device),
        n,
        checked("count", count, (), torch.int32),
        checked("rgb", rgb, (n, 3)),
        checked("the gradient of rgb", dL_drgb, (n, 3)),
        dL_dlogits.data_ptr(),
    )


def output_gradients(
    outputs: Tensor,
    dL_dcolour_inputs: Tensor,
    dL_ddensity: Tensor,
    density_scale: float,
    gate: Tensor | None,
    count: Tensor | None,
    dL_doutputs: Tensor,
    dL_dgate: Tensor | None,
) -> None:
    """Write the gradients of the density network's outputs, and of the gate."""
    (n, n_inputs), n_outputs = dL_dcolour_inputs.shape, dL_doutputs.shape[1]
    if n_inputs < n_outputs:
        raise InputError("the gradient of colour_inputs must have a column for each output.")
    checked = Checked(outputs.device)
    run_pass(
        native.output_gradients,
        current_queue(outputs.device),
        _head_arrays(outputs, None, density_scale, gate, count),
        n_outputs,
        n_inputs,
        checked("the gradient of colour_inputs", dL_dcolour_inputs, (len(outputs), n_inputs)),
        checked("the gradient of density", dL_ddensity, (n,)),
        dL_doutputs.data_ptr(),
        address_of(dL_dgate),
    )


def occupied_cells(bits: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers (n_cells,) int32 of the occupied cells, and () int32 how many of these count."""
    n_cells = 8 * len(bits)
    if n_cells >= 2**31:
        raise InputError(f"a GPU's occupancy grid must have less than 2^31 cells, got {n_cells}.")
    words = torch.zeros(2 + native.list_blocks(n_cells), dtype=torch.int64, device=bits.device)
    cells, begin = torch.empty(n_cells, dtype=torch.int32, device=bits.device), words.data_ptr()
    run_pass(
        native.list_occupied,
        current_queue(bits.device),
        n_cells,
        Checked(bits.device)("bits", bits, (n_cells // 8,), torch.uint8, 4),
        begin + 16,
        begin + 8,
        cells.data_ptr(),
        begin,
    )
    return cells, words.view(torch.int32)[0]


def visit_cells(
    marching: Any,
    learnable: Tensor,
    occupied: tuple[Tensor, Tensor],
    key: int,
    n_visits: int,
    first: int,
    cells: Tensor,
    positions: Tensor,
) -> None:
    """Write the cells that visits `first` and on look into, and where."""
    device, n_cells = learnable.device, len(learnable)
    checked = Checked(device)
    run_pass(
        native.visit_cells,
        current_queue(device),
        marching,
        n_cells,
        n_visits,
        checked("learnable", learnable, (n_cells,), torch.bool, 1),
        checked("occupied", occupied[0], (n_cells,), torch.int32),
        checked("the number of occupied cells", occupied[1], (), torch.int32),
        key,
        first,
        len(cells),
        cells.data_ptr(),
        positions.data_ptr(),
    )


def _gate_arrays(features: Tensor, logits: Tensor, sharpness: float, count: Tensor | None) -> Any:
    n, n_features = features.shape
    checked = Checked(features.device)
    return native.GateArrays(
        n,
        checked("count", count, (), torch.int32),
        n_features,
        checked("features", features, (n, n_features)),
        checked("logits", logits, (n,)),
        sharpness,
    )


def gate_features(
    features: Tensor, logits: Tensor, sharpness: float, count: Tensor | None, gated: Tensor, gate: Tensor
) -> None:
    """Write features times saliency, and gates."""
    arrays = _gate_arrays(features, logits, sharpness, count)
    run_pass(native.gate_features, current_queue(features.device), arrays, gated.data_ptr(), gate.data_ptr())


def gate_gradients(
    features: Tensor,
    logits: Tensor,
    sharpness: float,
    dL_dgated: Tensor,
    dL_dgate: Tensor,
    count: Tensor | None,
    dL_dfeatures: Tensor,
    dL_dlogits: Tensor,
) -> None:
    """Write the gradients of features and logits."""
    checked = Checked(features.device)
    run_pass(
        native.gate_gradients,
        current_queue(features.device),
        _gate_arrays(features, logits, sharpness, count),
        checked("the gradient of gated features", dL_dgated, tuple(features.shape)),
        checked("the gradient of gates", dL_dgate, (len(features),)),
        dL_dfeatures.data_ptr(),
        dL_dlogits.data_ptr(),
    )


def ray_difference(
    seen: Composited,
    background: Tensor,
    target: Tensor,
    weight: Tensor | None,
    total: Tensor | None,
    huber: float,
    distortion_weight: float,
    counts: Tensor | None,
    gradients: tuple[Tensor, Tensor, Tensor | None],
    sums: Tensor,
) -> None:
    """Write the gradients of colour, alpha and distortion; add the losses and the squared error to `sums` (3,)."""
    n, checked = len(target), Checked(target.device)
    dL_drgb, dL_dalpha, dL_ddistortion = gradients
    run_pass(
        native.ray_difference,
        current_queue(target.device),
        n,
        checked("counts", counts, (4,), torch.int32),
        checked("rgb", seen.rgb, (n, 3)),
        checked("alpha", seen.alpha, (n,)),
        checked("background", background, (n, 3)),
        checked("target", target, (n, 3)),
        0 if dL_ddistortion is None else checked("distortion", seen.distortion, (n,)),
        checked("weight", weight, (n,)),
        checked("the sum of weights", total, ()),
        huber,
        distortion_weight,
        dL_drgb.data_ptr(),
        dL_dalpha.data_ptr(),
        address_of(dL_ddistortion),
        sums.data_ptr(),
    )
