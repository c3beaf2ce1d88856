"""Photometric loss and the picture metrics of the common protocol.

SSIM has an 11 x 11 Gaussian window of sigma 1.5 over zero padding, as in the INRIA code. Pictures of different shapes
are refused with ValueError.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kinosplat.render.backend import step_passes_for
from kinosplat.render.output import Photometric


def photometric_loss(
    rendered: Tensor, target: Tensor, *, mask: Tensor | None = None, ssim_weight: float = 0.2
) -> Tensor:
    """Scalar `(1 - w) * mean |rendered - target| + w * (1 - mean SSIM)` with w = ssim_weight; gradient by `rendered`.

    rendered, target: (C, H, W, 3), values in [0, 1]. mask: (C, H, W) in [0, 1]; both pictures are multiplied by it and
    pixels count as much as it says, so what it hides has no influence and no gradient; 0 when it hides everything.
    """
    return photometric_comparison(rendered, target, mask=mask, ssim_weight=ssim_weight)[0]


def photometric_comparison(
    rendered: Tensor, target: Tensor, *, mask: Tensor | None = None, ssim_weight: float = 0.2
) -> tuple[Tensor, Tensor]:
    """`photometric_loss`, and the mean squared error of the pixels that count, without gradient, from one pass."""
    _check(rendered, target, mask)
    loss, squared_error = _PhotometricLoss.apply(rendered, target.detach(), mask, ssim_weight)
    return loss, squared_error


def compare(rendered: Tensor, target: Tensor, *, mask: Tensor | None, ssim_weight: float) -> Photometric:
    """`photometric_loss` with its gradient by `rendered` at once, which then needs no history."""
    _check(rendered, target, mask)
    compared: Photometric = step_passes_for(rendered.device).photometric(
        rendered, target, mask, ssim_weight, gradient=True
    )
    return compared


def alpha_difference(rendered: Tensor, target: Tensor, *, mask: Tensor | None, weight: float) -> tuple[Tensor, Tensor]:
    """`alpha_loss` with its gradient by `rendered` at once, which then needs no history."""
    for name, tensor in (("target", target), ("mask", mask)):
        if tensor is not None and tensor.shape != rendered.shape:
            raise ValueError(f"{name} must have shape {tuple(rendered.shape)}, got {tuple(tensor.shape)}.")
    scale = weight / max(rendered.numel(), 1)
    loss, dL_drendered = step_passes_for(rendered.device).alpha_difference(rendered, target, mask, scale)
    return loss, dL_drendered


def alpha_loss(rendered: Tensor, target: Tensor, *, mask: Tensor | None = None, weight: float = 1.0) -> Tensor:
    """Scalar `weight * mean(mask * |rendered - target|)` of alphas (C, H, W); gradient by `rendered`."""
    loss: Tensor = _AlphaLoss.apply(rendered, target.detach(), mask, weight)
    return loss


def _check(rendered: Tensor, target: Tensor, mask: Tensor | None) -> None:
    check_pictures(rendered, target)
    if mask is not None and mask.shape != rendered.shape[:3]:
        raise ValueError(f"mask must have shape {tuple(rendered.shape[:3])}, got {tuple(mask.shape)}.")


class _PhotometricLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rendered: Tensor, target: Tensor, mask: Tensor | None, ssim_weight: float
    ) -> tuple[Tensor, Tensor]:
        rendered = rendered.detach()
        result = step_passes_for(rendered.device).photometric(
            rendered, target, mask, ssim_weight, gradient=ctx.needs_input_grad[0]
        )
        ctx.dL_drendered = result.dL_drendered
        ctx.mark_non_differentiable(result.squared_error)
        ctx.set_materialize_grads(False)
        return result.loss, result.squared_error

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dL_dloss: Tensor | None, _: Any) -> Any:
        if dL_dloss is None:
            return None, None, None, None
        # The usual case of weight one saves a pass over the picture; on a GPU asking would cost more than it saves.
        if dL_dloss.device.type == "cpu" and dL_dloss.item() == 1.0:
            return ctx.dL_drendered, None, None, None
        return ctx.dL_drendered * dL_dloss, None, None, None


class _AlphaLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rendered: Tensor, target: Tensor, mask: Tensor | None, weight: float) -> Tensor:
        loss, ctx.dL_drendered = alpha_difference(rendered.detach(), target, mask=mask, weight=weight)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dL_dloss: Tensor) -> Any:
        return ctx.dL_drendered * dL_dloss, None, None, None


def quantize8(picture: Tensor) -> Tensor:
    """Values clamped to [0, 1] and rounded to the 256 steps of an 8-bit file."""
    return (picture.clamp(0, 1) * 255).round() / 255


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """(C,) peak signal-to-noise ratio in dB of (C, H, W, 3) pictures rounded to 8 bits; inf where they are equal."""
    check_pictures(a, b)
    square = (quantize8(a) - quantize8(b)).double().square().mean(dim=(1, 2, 3))
    return (-10 * torch.log10(square)).to(a.dtype)


def ssim(a: Tensor, b: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """(C,) mean structural similarity of (C, H, W, 3) pictures rounded to 8 bits; no gradient.

    mask: (C, H, W) in [0, 1], as of `photometric_loss`; what it hides entirely is alike.
    """
    _check(a, b, mask)
    with torch.no_grad():
        result = step_passes_for(a.device).photometric(quantize8(a), quantize8(b), mask, 1.0, gradient=False)
        if mask is None:
            return (result.similarities / a[0].numel()).to(a.dtype)
        count = 3.0 * mask.double().sum(dim=(1, 2))
        return (1.0 - (count - result.similarities) / count.clamp_min(1e-8)).to(a.dtype)


def check_pictures(a: Tensor, b: Tensor) -> None:
    """Refuse what is not two equal stacks of RGB pictures."""
    if a.ndim != 4 or a.shape[3] != 3:
        raise ValueError(f"pictures must have shape (C, H, W, 3), got {tuple(a.shape)}.")
    if a.shape != b.shape:
        raise ValueError(f"pictures must have equal shapes, got {tuple(a.shape)} and {tuple(b.shape)}.")
