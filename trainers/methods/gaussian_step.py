"""What a step of Gaussians costs and by which gradients, from the native passes called one by one.

The same loss as `image_loss` and the strategy's penalties after `rasterize`, and the same gradients (a test compares
them); torch's autograd would spend as long on its history as the host needs for everything else. What is in front of
the pictures (poses, exposures, a learned background) is left to it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinosplat.render import Gaussians, RasterSettings, rasterize
from kinosplat.render.drawing import Drawing, GaussianSet, draw
from kinosplat.render.exposure import gradients_through, shown_by
from kinosplat.render.frame import InputGradients
from kinosplat.render.losses import alpha_difference, compare
from kinosplat.trainers.batch import Batch
from kinosplat.trainers.config import ImageConfig
from kinosplat.trainers.losses import image_loss, sensor_of
from kinosplat.trainers.method import Losses


@torch.no_grad()
def compare_and_differentiate(drawing: Drawing, batch: Batch, config: ImageConfig) -> tuple[Losses, InputGradients]:
    """The terms of `image_loss` with the gradients of their sum, and those by everything that was drawn."""
    sensor = sensor_of(batch, config)
    compared = compare(shown_by(sensor, drawing.rgb), batch.target, mask=batch.mask, ssim_weight=config.ssim_weight)
    terms, dL_dalpha = {"image": compared.loss}, None
    if batch.alpha is not None and config.alpha_weight > 0.0:
        terms["alpha"], dL_dalpha = alpha_difference(
            drawing.alpha, batch.alpha, mask=batch.mask, weight=config.alpha_weight
        )
    assert compared.dL_drendered is not None
    dL_drgb, dL_dexposures = gradients_through(sensor, drawing.rgb, compared.dL_drendered)
    gradients = drawing.gradients(dL_drgb, dL_dalpha)
    pairs: list[tuple[Tensor | None, Tensor | None]] = [(batch.exposures, dL_dexposures)]
    pairs += zip(drawing.inputs.tensors, gradients.tensors, strict=True)
    wanted = [(t, g) for t, g in pairs if t is not None and t.requires_grad and g is not None]
    return Losses(terms, compared.squared_error, wanted), gradients


def picture_loss(gaussians: Gaussians, batch: Batch, settings: RasterSettings, config: ImageConfig) -> Losses:
    """What pictures of any set cost, by the rasterizer that the settings name; its tensors may have a history."""
    if settings.is_native:
        visible = torch.empty(len(gaussians), dtype=torch.bool, device=gaussians.device)
        drawing = draw(
            GaussianSet(gaussians),
            batch.cameras,
            background=batch.background,
            settings=settings,
            statistics=None,
            visible=visible,
        )
        return compare_and_differentiate(drawing, batch, config)[0]
    output = rasterize(gaussians, batch.cameras, background=batch.background, settings=settings)
    return Losses(*image_loss(output, batch, config))
