"""The loss that every method that renders whole pictures shares."""

from __future__ import annotations

from torch import Tensor

from kinosplat.render.losses import photometric_comparison
from kinosplat.render.output import RenderOutput
from kinosplat.trainers.batch import Batch
from kinosplat.trainers.config import ImageConfig


def image_loss(output: RenderOutput, batch: Batch, config: ImageConfig) -> tuple[dict[str, Tensor], Tensor]:
    """Terms to sum, and the mean squared error of the pictures (detached, for progress).

    Pixels outside the mask have no influence: not on L1, and not on the SSIM of their neighbours.
    """
    rgb = batch.expose(output.rgb)
    loss, squared_error = photometric_comparison(rgb, batch.target, mask=batch.mask, ssim_weight=config.ssim_weight)
    terms = {"image": loss}
    if batch.alpha is not None and config.alpha_weight > 0.0:
        error = (output.alpha - batch.alpha).abs()
        weighted = error if batch.mask is None else error * batch.mask
        terms["alpha"] = config.alpha_weight * weighted.mean()
    return terms, squared_error
