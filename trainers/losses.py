"""The loss that every method that renders whole pictures shares."""

from __future__ import annotations

import torch
from torch import Tensor

from kinosplat.render.losses import photometric_comparison
from kinosplat.render.output import RenderOutput
from kinosplat.trainers.batch import Batch
from kinosplat.trainers.config import ImageConfig

SATURATED = 250 / 255
"""A channel at least this bright in the picture may have been any brighter in the scene; JPEG leaves lamps a few levels
short of white.
"""


def clipped(rgb: Tensor, target: Tensor) -> Tensor:
    """Colours (C, H, W, 3) as a sensor that ends at 1 shows them, where the target (same shape) has reached its end.

    There, and only there, brighter than 1 is no error and has no gradient; where the target is not saturated, a colour
    beyond 1 is still pulled back. A lamp can so be as bright as it has to be for its edge to be sharp after clipping,
    and in the pictures of cameras with differing exposures.
    """
    return torch.where((target >= SATURATED) & (rgb > 1.0), 1.0, rgb)


def image_loss(output: RenderOutput, batch: Batch, config: ImageConfig) -> tuple[dict[str, Tensor], Tensor]:
    """Terms to sum, and the mean squared error of the pictures (detached, for progress).

    Pixels outside the mask have no influence: not on L1, and not on the SSIM of their neighbours.
    """
    rgb = batch.expose(output.rgb)
    if config.saturation:
        rgb = clipped(rgb, batch.target)
    loss, squared_error = photometric_comparison(rgb, batch.target, mask=batch.mask, ssim_weight=config.ssim_weight)
    terms = {"image": loss}
    if batch.alpha is not None and config.alpha_weight > 0.0:
        error = (output.alpha - batch.alpha).abs()
        weighted = error if batch.mask is None else error * batch.mask
        terms["alpha"] = config.alpha_weight * weighted.mean()
    return terms, squared_error
