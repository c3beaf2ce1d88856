"""How the CUDA backend's passes of a training step are called, besides those of the frame: loss, target, exposure, Adam
and what MCMC asks of every Gaussian.

Torch allocates, on the current stream of the tensors' device; nobody waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinosplat._native import gpu as native
from kinosplat.errors import InputError
from kinosplat.render.cuda_call import Checked, address_of, current_queue, run_pass
from kinosplat.render.output import Photometric

if TYPE_CHECKING:
    from kinosplat.render.adam import AdamTensor
    from kinosplat.render.exposure import Sensor
    from kinosplat.render.gaussians import Gaussians
    from kinosplat.render.mcmc import PenaltyInputs
    from kinosplat.render.target import Target


def photometric(
    rendered: Tensor, target: Tensor, mask: Tensor | None, ssim_weight: float, *, gradient: bool
) -> Photometric:
    """The photometric loss of pictures (C, H, W, 3) and what belongs to it; nobody waits for the device."""
    n, height, width, _ = rendered.shape
    device = rendered.device
    checked = Checked(device)
    sums = torch.empty(n, 4, dtype=torch.float64, device=device)
    loss, squared_error = torch.empty((), device=device), torch.empty((), device=device)
    terms = torch.empty(3, *rendered.shape, device=device) if gradient else None
    dL_drendered = torch.empty_like(rendered) if gradient else None
    run_pass(
        native.photometric,
        current_queue(device),
        n,
        height,
        width,
        checked("rendered", rendered, (n, height, width, 3)),
        checked("target", target, (n, height, width, 3)),
        checked("mask", mask, (n, height, width)),
        ssim_weight,
        sums.data_ptr(),
        loss.data_ptr(),
        squared_error.data_ptr(),
        address_of(terms),
        address_of(dL_drendered),
    )
    return Photometric(loss, squared_error, sums[:, 1], dL_drendered)


def alpha_difference(rendered: Tensor, target: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """`scale * sum(mask * |rendered - target|)` of alphas (C, H, W), and its gradient; nobody waits for the device."""
    device = rendered.device
    checked = Checked(device)
    loss, dL_drendered = torch.empty((), device=device), torch.empty_like(rendered)
    run_pass(
        native.alpha_difference,
        current_queue(device),
        rendered.numel(),
        checked("rendered", rendered, rendered.shape),
        checked("target", target, rendered.shape),
        checked("mask", mask, rendered.shape),
        scale,
        loss.data_ptr(),
        dL_drendered.data_ptr(),
    )
    return loss, dL_drendered


def compose_target(
    pixels: Sequence[Tensor], masks: Sequence[Tensor | None], background: Tensor, masks_cut_out: bool, target: Target
) -> None:
    """Write `target` (render/target.py)."""
    n_pixels = target.rgb.shape[1] * target.rgb.shape[2]
    checked, queue = Checked(background.device), current_queue(background.device)
    rgb, alpha, weight = (address_of(tensor) for tensor in (target.rgb, target.alpha, target.weight))
    for i, (picture, mask) in enumerate(zip(pixels, masks, strict=True)):
        bytes_before = 4 * i * n_pixels  # of one channel
        run_pass(
            native.compose_target,
            queue,
            n_pixels,
            picture.shape[2],
            checked("pixels", picture, picture.shape, torch.uint8, 1),
            checked("masks", mask, picture.shape[:2], torch.uint8, 1),
            masks_cut_out,
            checked("background", background, (3,)),
            rgb + 3 * bytes_before,
            alpha and alpha + bytes_before,
            weight and weight + bytes_before,
        )


def expose(rgb: Tensor, sensor: Sensor) -> Tensor:
    """Pictures (C, H, W, 3) as cameras show them (render/exposure.py)."""
    shown = torch.empty_like(rgb)
    run_pass(native.expose, *_exposure_arguments(rgb, sensor), shown.data_ptr())
    return shown


def expose_backward(rgb: Tensor, sensor: Sensor, dL_dshown: Tensor) -> tuple[Tensor, Tensor | None]:
    """Gradients of colours and exposures from that of what is shown."""
    dL_drgb = torch.empty_like(rgb)
    dL_dexposures = None if sensor.exposures is None else torch.empty_like(sensor.exposures)
    run_pass(
        native.expose_backward,
        *_exposure_arguments(rgb, sensor),
        Checked(rgb.device)("the gradient of what is shown", dL_dshown, rgb.shape),
        dL_drgb.data_ptr(),
        address_of(dL_dexposures),
    )
    return dL_drgb, dL_dexposures


def _exposure_arguments(rgb: Tensor, sensor: Sensor) -> tuple[Any, ...]:
    n_images, height, width, _ = rgb.shape
    checked = Checked(rgb.device)
    return (
        current_queue(rgb.device),
        n_images,
        height * width,
        checked("rgb", rgb, rgb.shape),
        checked("exposures", sensor.exposures, (n_images, 3, 4)),
        checked("target", sensor.target, rgb.shape),
        sensor.saturated,
    )


class AdamTable:
    """The tensors of one row set, for `kinosplat.render.adam`, which has checked their shapes."""

    def __init__(self, n_rows: int, tensors: Sequence[AdamTensor], sparse: bool) -> None:
        if len(tensors) > native.MAX_ADAM_TENSORS:
            raise InputError(f"a row set must have at most {native.MAX_ADAM_TENSORS} tensors, got {len(tensors)}.")
        self._device = tensors[0].parameter.device
        self._table = native.AdamTable(n_rows, sparse)
        checked = Checked(self._device)
        for tensor in tensors:
            named = {"parameter": tensor.parameter, "exp_avg": tensor.exp_avg, "exp_avg_sq": tensor.exp_avg_sq}
            self._table.add(
                tensor.parameter[0].numel() if n_rows > 0 else 0,
                *(checked(name, value, value.shape, alignment=16) for name, value in named.items()),
                *tensor.betas,
                tensor.eps,
            )

    def step(
        self,
        gradients: Sequence[Tensor | None],
        rates: Sequence[float],
        step: int,
        visible: Tensor | None,
        dropped: Tensor | None,
    ) -> None:
        """One update in place; `dropped` (3,) int64 counts the rows and steps lost, and has the last such step."""
        addresses = [address_of(gradient) for gradient in gradients]
        if any(address % 16 for address in addresses):
            raise InputError("gradient must start at a multiple of 16 bytes; call .clone() on it first.")
        run_pass(
            self._table.step,
            current_queue(self._device),
            addresses,
            rates,
            step,
            0 if visible is None else Checked(self._device)("visible", visible, visible.shape, torch.bool, 1),
            address_of(dropped),
        )


def shake(gaussians: Gaussians, strength: float, key: int) -> None:
    """Add noise to the means, in place (render/mcmc.py)."""
    n, device = len(gaussians), gaussians.device
    checked = Checked(device)
    run_pass(
        native.shake,
        current_queue(device),
        n,
        checked("means", gaussians.means, (n, 3)),
        checked("quats", gaussians.quats, (n, 4), alignment=16),
        checked("log_scales", gaussians.log_scales, (n, 3)),
        checked("opacity_logits", gaussians.opacity_logits, (n,)),
        strength,
        key,
    )


def penalties(inputs: PenaltyInputs, add_to: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Weighted sums of opacities and of scales in view, two scalars; their gradients by opacity logits and log-scales
    are added to those in `add_to` (render/mcmc.py).
    """
    device = inputs.log_scales.device
    sums = torch.empty(2, device=device)
    run_pass(
        native.penalties,
        current_queue(device),
        _penalty_arrays(inputs),
        sums.data_ptr(),
        *((0, 0) if add_to is None else (gradient.data_ptr() for gradient in add_to)),
    )
    opacity, scale = sums.unbind()
    return opacity, scale


def penalties_backward(inputs: PenaltyInputs, dL_dopacity: Tensor, dL_dscale: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the opacity logits and the log-scales from those of the two sums."""
    device, arrays = inputs.log_scales.device, _penalty_arrays(inputs)
    dL_dopacity_logits = torch.empty_like(inputs.opacity_logits)
    dL_dlog_scales = torch.empty_like(inputs.log_scales)
    checked = Checked(device)
    run_pass(
        native.penalties_backward,
        current_queue(device),
        arrays,
        checked("the gradient of the opacity penalty", dL_dopacity, ()),
        checked("the gradient of the scale penalty", dL_dscale, ()),
        dL_dopacity_logits.data_ptr(),
        dL_dlog_scales.data_ptr(),
    )
    return dL_dopacity_logits, dL_dlog_scales


def _penalty_arrays(inputs: PenaltyInputs) -> Any:
    n = inputs.log_scales.shape[0]
    if len(inputs.times) > native.MAX_CAMERAS:
        raise InputError(f"times must be at most {native.MAX_CAMERAS} in one call, got {len(inputs.times)}.")
    checked = Checked(inputs.log_scales.device)
    return native.PenaltyArrays(
        n,
        checked("opacity_logits", inputs.opacity_logits, (n,)),
        checked("log_scales", inputs.log_scales, (n, 3)),
        checked("visible", inputs.visible, (n,), torch.bool, 1),
        checked("time_centres", inputs.time_centres, (n,)),
        checked("log_durations", inputs.log_durations, (n,)),
        list(inputs.times),
        *inputs.weights,
    )
