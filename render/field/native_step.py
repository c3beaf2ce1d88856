"""The native passes of a field's training step: raw calls, no autograd (cuda/cpu/field_step.h and cuda/gpu/field_step.h
have the contracts).

Tensors are of one device: float32 or float64 on the CPU, float32 on a GPU. There `count`, () int32 on the device, may
say how many of the rows are in use, so that nobody has to wait for their number; what is behind them is left as it is.
Wrong devices, dtypes, shapes or layouts raise ValueError naming the argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from kinosplat.render.backend import call_cpu, load_cuda
from kinosplat.render.field.marching import OccupiedCells
from kinosplat.render.field.native import native_marching
from kinosplat.render.field.reference import unpack_bits
from kinosplat.render.field.samples import Composited


@dataclass(frozen=True)
class Pictures:
    """Pictures of V views as they lie on a device, and their cameras."""

    data: Tensor
    """(slots, pixels, 5) uint8: red, green, blue, alpha, weight, line after line; room for a picture each."""
    view_of_slot: Tensor
    """(slots,) int64 view whose picture lies there."""
    sizes: Tensor
    """(V, 2) int64 width and height."""
    inverse_K: Tensor
    """(V, 3, 3) float32."""
    world_to_camera: Tensor
    """(V, 4, 4) float32."""


@dataclass(frozen=True)
class DrawnRays:
    """R rays through pixels drawn at random, each picture as often as another."""

    origins: Tensor
    """(R, 3) world units."""
    directions: Tensor
    """(R, 3) of length 1."""
    target: Tensor
    """(R, 3) what should be seen over the background."""
    background: Tensor
    """(R, 3) colour behind each ray."""
    views: Tensor
    """(R,) int64."""
    places: Tensor
    """(R, 2) x and y of the pixels' centres."""
    jitter: Tensor
    """(R,) in [0, 1): by how much of a step its samples are moved."""
    weight: Tensor | None
    """(R,) in [0, 1], how much each counts; None when all count."""


def draw_rays(pictures: Pictures, n_rays: int, key: int, *, background: Tensor | None, with_weight: bool) -> DrawnRays:
    """The rays of a step, a pure function of the `key`, whatever the device.

    background: (3,) behind all rays; with None a random colour is behind each.
    """
    device = pictures.data.device
    rays = DrawnRays(
        origins=torch.empty(n_rays, 3, device=device),
        directions=torch.empty(n_rays, 3, device=device),
        target=torch.empty(n_rays, 3, device=device),
        background=torch.empty(n_rays, 3, device=device),
        views=torch.empty(n_rays, dtype=torch.int64, device=device),
        places=torch.empty(n_rays, 2, device=device),
        jitter=torch.empty(n_rays, device=device),
        weight=torch.empty(n_rays, device=device) if with_weight else None,
    )
    if device.type == "cuda":
        _cuda().draw_rays(pictures, rays, key, background)
    else:
        call_cpu("draw_rays", **vars(pictures), **vars(rays), key=key, fixed_background=background)
    return rays


def occupied_cells(cells: OccupiedCells) -> tuple[Tensor, Tensor | None]:
    """Numbers (n,) int32 of the occupied cells, and () int32 how many of these count; None for all.

    On a GPU nobody waits for their number; on a processor they are counted at once.
    """
    if cells.bits.is_cuda:
        return _cuda().occupied_cells(cells.bits)
    return unpack_bits(cells.bits).nonzero()[:, 0].int(), None


def visit_cells(
    cells: OccupiedCells,
    learnable: Tensor,
    occupied: tuple[Tensor, Tensor | None],
    key: int,
    *,
    n_visits: int,
    part: range,
) -> tuple[Tensor, Tensor]:
    """Which cells an update looks into, (n,) int64 with -1 for none, and (n, 3) grid positions in them.

    Half of the `n_visits` go to any of the (n_cells,) bool `learnable` cells, half to the `occupied` ones; as many
    visits as there are cells go to all. What visit i of the `part` sees is a pure function of the `key` and i.
    """
    device, n = cells.bits.device, len(part)
    numbers, positions = torch.empty(n, dtype=torch.int64, device=device), torch.empty(n, 3, device=device)
    marching = native_marching(cells.space, cells.rule, cells.resolution)
    if cells.bits.is_cuda:
        _cuda().visit_cells(marching, learnable, occupied, key, n_visits, part.start, numbers, positions)
    else:
        call_cpu(
            "visit_cells",
            marching=marching,
            learnable=learnable,
            occupied=occupied[0],
            n_visits=n_visits,
            key=key,
            first=part.start,
            cells=numbers,
            positions=positions,
        )
    return numbers, positions


def activate(
    outputs: Tensor, colour_logits: Tensor, density_scale: float, gate: Tensor | None, count: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Densities (S,), in the unit of `density_scale`, and colours (S, 3) in [0, 1].

    outputs: (S, n) rows that begin with log densities; gate: (S,) factors of the densities.
    """
    density, rgb = outputs.new_empty(len(outputs)), torch.empty_like(colour_logits)
    if outputs.is_cuda:
        _cuda().activate(outputs, colour_logits, density_scale, gate, count, density, rgb)
    else:
        call_cpu(
            "activate",
            outputs=outputs,
            colour_logits=colour_logits,
            density_scale=density_scale,
            gate=gate,
            density=density,
            rgb=rgb,
        )
    return density, rgb


def colour_gradients(rgb: Tensor, dL_drgb: Tensor, count: Tensor | None = None) -> Tensor:
    """Gradients (S, 3) of the colours' logits from those of the colours."""
    dL_dlogits = torch.empty_like(rgb)
    if rgb.is_cuda:
        _cuda().colour_gradients(rgb, dL_drgb, count, dL_dlogits)
    else:
        call_cpu("colour_gradients", rgb=rgb, dL_drgb=dL_drgb, dL_dlogits=dL_dlogits)
    return dL_dlogits


def output_gradients(
    outputs: Tensor,
    dL_dcolour_inputs: Tensor,
    dL_ddensity: Tensor,
    density_scale: float,
    gate: Tensor | None,
    n_outputs: int,
    count: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Gradients (S, n_outputs) of the density network's outputs, which are the first of the colour network's inputs,
    and (S,) of the gate where there is one; `outputs` as for `activate`.
    """
    dL_doutputs = outputs.new_empty(len(outputs), n_outputs)
    dL_dgate = None if gate is None else torch.empty_like(gate)
    if outputs.is_cuda:
        _cuda().output_gradients(
            outputs, dL_dcolour_inputs, dL_ddensity, density_scale, gate, count, dL_doutputs, dL_dgate
        )
    else:
        call_cpu(
            "output_gradients",
            outputs=outputs,
            dL_dcolour_inputs=dL_dcolour_inputs,
            dL_ddensity=dL_ddensity,
            density_scale=density_scale,
            gate=gate,
            dL_doutputs=dL_doutputs,
            dL_dgate=dL_dgate,
        )
    return dL_doutputs, dL_dgate


def gate_features(
    features: Tensor, logits: Tensor, sharpness: float, count: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Features (S, n) times the saliency, of which `logits` (S,) are given, and the gate (S,) of the density."""
    gated, gate = torch.empty_like(features), torch.empty_like(logits)
    if features.is_cuda:
        _cuda().gate_features(features, logits, sharpness, count, gated, gate)
    else:
        call_cpu("gate_features", features=features, logits=logits, sharpness=sharpness, gated=gated, gate=gate)
    return gated, gate


def gate_gradients(
    features: Tensor,
    logits: Tensor,
    sharpness: float,
    dL_dgated: Tensor,
    dL_dgate: Tensor,
    count: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of the features, in the place of those of what was gated, and (S,) of the logits."""
    dL_dlogits = torch.empty_like(logits)
    if features.is_cuda:
        _cuda().gate_gradients(features, logits, sharpness, dL_dgated, dL_dgate, count, dL_dgated, dL_dlogits)
    else:
        call_cpu(
            "gate_gradients",
            features=features,
            logits=logits,
            sharpness=sharpness,
            dL_dgated=dL_dgated,
            dL_dgate=dL_dgate,
            dL_dfeatures=dL_dgated,
            dL_dlogits=dL_dlogits,
        )
    return dL_dgated, dL_dlogits


@dataclass(frozen=True)
class RayDifference:
    """What R rays cost, as means over the rays, and the gradients of what they saw."""

    image: Tensor
    """() Huber loss of the colours."""
    distortion: Tensor
    """() distortion times its weight; 0 where it is left out."""
    squared_error: Tensor
    """() of the colours."""
    dL_drgb: Tensor
    """(R, 3)."""
    dL_dalpha: Tensor
    """(R,)."""
    dL_ddistortion: Tensor | None
    """(R,), None where distortion is left out."""


def ray_difference(
    seen: Composited,
    background: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None,
    huber: float,
    distortion_weight: float,
    counts: Tensor | None = None,
) -> RayDifference:
    """Compare what rays see over `background` (R, 3) with `target` (R, 3), each counting as much as `weight` (R,) says.

    huber: colour errors above this count by their size; 0 squares all. counts: (4,) int32 as the device counted the
    samples (cuda/gpu/field_step.h): rays that found no room for theirs cost nothing.
    """
    dL_drgb, dL_dalpha = torch.empty_like(seen.rgb), torch.empty_like(seen.alpha)
    dL_ddistortion = torch.empty_like(seen.alpha) if distortion_weight > 0.0 else None
    total = None if weight is None else weight.sum().clamp_min(1e-8)
    if seen.rgb.is_cuda:
        sums = torch.zeros(3, device=seen.rgb.device)
        _cuda().ray_difference(
            seen,
            background,
            target,
            weight,
            total,
            huber,
            distortion_weight,
            counts,
            (dL_drgb, dL_dalpha, dL_ddistortion),
            sums,
        )
    else:
        sums = seen.rgb.new_tensor(
            call_cpu(
                "ray_difference",
                rgb=seen.rgb,
                alpha=seen.alpha,
                background=background,
                target=target,
                distortion=None if dL_ddistortion is None else seen.distortion,
                weight=weight,
                total=float(max(len(target), 1) if total is None else total),
                huber=huber,
                distortion_weight=distortion_weight,
                dL_drgb=dL_drgb,
                dL_dalpha=dL_dalpha,
                dL_ddistortion=dL_ddistortion,
            )
        )
    image, distortion, squared_error = sums.unbind()
    return RayDifference(image, distortion, squared_error, dL_drgb, dL_dalpha, dL_ddistortion)


def _cuda() -> ModuleType:
    load_cuda()
    from kinosplat.render.field import native_cuda_step

    return native_cuda_step
