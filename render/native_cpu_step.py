"""How the CPU backend's passes of a training step are called, besides those of the frame: loss, target, exposure, Adam
and what MCMC asks of every Gaussian.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinosplat._native import cpu as native
from kinosplat.render.backend import call_cpu
from kinosplat.render.native_cpu import of_camera
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
    """The photometric loss of pictures (C, H, W, 3) and what belongs to it."""
    n, height, width, _ = rendered.shape
    count = 3.0 * (float(mask.sum()) if mask is not None else n * height * width)
    inverse_count = 1.0 / count if count > 0 else 0.0
    band_sums = torch.empty(n, native.photometric_bands(height), 3, dtype=torch.float64)
    dL_drendered = torch.empty_like(rendered) if gradient else None
    call_cpu(
        "photometric",
        rendered=rendered,
        target=target,
        mask=mask,
        ssim_weight=ssim_weight,
        inverse_count=inverse_count,
        scratch=torch.empty(torch.get_num_threads(), native.photometric_scratch(width), dtype=rendered.dtype),
        band_sums=band_sums,
        dL_drendered=dL_drendered,
    )
    sums = band_sums.sum(dim=1)
    difference, similarity, squared = (sums.sum(dim=0) * inverse_count).to(rendered.dtype)
    loss = (1 - ssim_weight) * difference + ssim_weight * (1 - similarity)
    return Photometric(
        loss=loss if count > 0 else torch.zeros_like(loss),
        squared_error=squared,
        similarities=sums[:, 1],
        dL_drendered=dL_drendered,
    )


def alpha_difference(rendered: Tensor, target: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """`scale * sum(mask * |rendered - target|)` of alphas (C, H, W), and its gradient."""
    dL_drendered = torch.empty_like(rendered)
    loss = call_cpu(
        "alpha_difference",
        rendered=rendered,
        target=target,
        mask=mask,
        scale=scale,
        dL_drendered=dL_drendered,
    )
    return rendered.new_tensor(loss), dL_drendered


def compose_target(
    pixels: Sequence[Tensor], masks: Sequence[Tensor | None], background: Tensor, masks_cut_out: bool, target: Target
) -> None:
    """Write `target` (render/target.py)."""
    for i, (picture, mask) in enumerate(zip(pixels, masks, strict=True)):
        call_cpu(
            "compose_target",
            pixels=picture,
            mask=mask,
            mask_cuts_out=masks_cut_out,
            background=background,
            rgb=target.rgb[i],
            alpha=of_camera(target.alpha, i),
            weight=of_camera(target.weight, i),
        )


def expose(rgb: Tensor, sensor: Sensor) -> Tensor:
    """Pictures (C, H, W, 3) as cameras show them (render/exposure.py)."""
    shown = torch.empty_like(rgb)
    call_cpu("expose", **_exposure_arguments(rgb, sensor), shown=shown)
    return shown


def expose_backward(rgb: Tensor, sensor: Sensor, dL_dshown: Tensor) -> tuple[Tensor, Tensor | None]:
    """Gradients of colours and exposures from that of what is shown."""
    dL_drgb = torch.empty_like(rgb)
    dL_dexposures = None if sensor.exposures is None else torch.empty_like(sensor.exposures)
    call_cpu(
        "expose_backward",
        **_exposure_arguments(rgb, sensor),
        dL_dshown=dL_dshown,
        dL_drgb=dL_drgb,
        dL_dexposures=dL_dexposures,
    )
    return dL_drgb, dL_dexposures


def _exposure_arguments(rgb: Tensor, sensor: Sensor) -> dict[str, Any]:
    return {
        "rgb": rgb,
        "exposures": sensor.exposures,
        "target": sensor.target,
        "saturated": sensor.saturated,
    }


class AdamTable:
    """The tensors of one row set, for `kinosplat.render.adam`, which has checked them."""

    def __init__(self, n_rows: int, tensors: Sequence[AdamTensor], sparse: bool) -> None:
        self._n_rows = n_rows
        self._tensors = tensors
        self._sparse = sparse

    def step(
        self,
        gradients: Sequence[Tensor | None],
        rates: Sequence[float],
        step: int,
        visible: Tensor | None,
        dropped: Tensor | None,
    ) -> None:
        """One update in place; `dropped` (3,) int64 counts the rows and steps lost, and has the last such step."""
        given = [
            (tensor, self._as_rows(gradient), rate)
            for tensor, gradient, rate in zip(self._tensors, gradients, rates, strict=True)
            if gradient is not None and gradient.numel() > 0
        ]
        # Found and counted by passes of ours: torch would wake threads of its own, and they would spin beside ours.
        rows, asked, n_lost = torch.empty(self._n_rows, dtype=torch.bool), visible, 0
        for _, gradient, _ in given:
            n_lost += call_cpu(
                "keep_finite_rows",
                numbers=gradient,
                asked=asked,
                sparse=self._sparse,
                rows=rows,
            )
            asked = rows
        if dropped is not None and n_lost > 0:
            dropped[0] += n_lost
            dropped[1] += dropped[2] != step
            dropped[2] = step
        for tensor, gradient, rate in given:
            beta1, beta2 = tensor.betas
            call_cpu(
                "adam_step",
                parameter=self._as_rows(tensor.parameter),
                gradient=gradient,
                exp_avg=self._as_rows(tensor.exp_avg),
                exp_avg_sq=self._as_rows(tensor.exp_avg_sq),
                visible=rows,
                beta1=beta1,
                beta2=beta2,
                eps=tensor.eps,
                step_size=rate / (1 - beta1**step),
                inverse_sqrt_second_correction=(1 - beta2**step) ** -0.5,
            )

    def _as_rows(self, tensor: Tensor) -> Tensor:
        return tensor.detach().view(self._n_rows, -1)


def shake(gaussians: Gaussians, strength: float, key: int) -> None:
    """Add noise to the means, in place (render/mcmc.py)."""
    call_cpu(
        "shake",
        means=gaussians.means,
        quats=gaussians.quats,
        log_scales=gaussians.log_scales,
        opacity_logits=gaussians.opacity_logits,
        strength=strength,
        key=key,
    )


def penalties(inputs: PenaltyInputs, add_to: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Weighted sums of opacities and of scales in view, two scalars; their gradients by opacity logits and log-scales
    are added to those in `add_to` (render/mcmc.py).
    """
    sums = inputs.log_scales.new_empty(2)
    # Added where they are worked out: torch would wake threads of its own for a sum, and they would spin beside ours.
    opacity_logits, log_scales = (None, None) if add_to is None else add_to
    call_cpu(
        "penalties",
        **_penalty_arguments(inputs),
        sums=sums,
        dL_dopacity=inputs.weights[0],
        dL_dscale=inputs.weights[1],
        add_to_opacity_logits=opacity_logits,
        add_to_log_scales=log_scales,
    )
    opacity, scale = (weight * total for weight, total in zip(inputs.weights, sums.tolist(), strict=True))
    return sums.new_tensor(opacity), sums.new_tensor(scale)


def penalties_backward(inputs: PenaltyInputs, dL_dopacity: Tensor, dL_dscale: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the opacity logits and the log-scales from those of the two sums."""
    dL_dopacity_logits = torch.empty_like(inputs.opacity_logits)
    dL_dlog_scales = torch.empty_like(inputs.log_scales)
    call_cpu(
        "penalties_backward",
        **_penalty_arguments(inputs),
        dL_dopacity=inputs.weights[0] * dL_dopacity.item(),
        dL_dscale=inputs.weights[1] * dL_dscale.item(),
        dL_dopacity_logits=dL_dopacity_logits,
        dL_dlog_scales=dL_dlog_scales,
    )
    return dL_dopacity_logits, dL_dlog_scales


def _penalty_arguments(inputs: PenaltyInputs) -> dict[str, Any]:
    return {
        "opacity_logits": inputs.opacity_logits,
        "log_scales": inputs.log_scales,
        "visible": inputs.visible,
        "time_centres": inputs.time_centres,
        "log_durations": inputs.log_durations,
        "times": inputs.log_scales.new_tensor(inputs.times),
    }
