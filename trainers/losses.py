"""The loss that every method that renders whole pictures shares."""

from __future__ import annotations

from torch import Tensor

from kinosplat.render.losses import photometric_loss
from kinosplat.render.output import RenderOutput
from kinosplat.trainers.batch import Batch
from kinosplat.trainers.config import ImageConfig


def image_loss(output: RenderOutput, batch: Batch, config: ImageConfig) -> tuple[dict[str, Tensor], Tensor]:
    """Terms to sum, and the mean squared error of the pictures (detached, for progress).

    Pixels outside the mask have no influence: not on L1, and not on the SSIM of their neighbours.
    """
    rgb = batch.expose(output.rgb)
    terms = {"image": photometric_loss(rgb, batch.target, mask=batch.mask, ssim_weight=config.ssim_weight)}
    if batch.alpha is not None and config.alpha_weight > 0.0:
        error = (output.alpha - batch.alpha).abs()
        weighted = error if batch.mask is None else error * batch.mask
        terms["alpha"] = config.alpha_weight * weighted.mean()
    squared = (rgb.detach() - batch.target.detach()) ** 2
    if batch.mask is None:
        return terms, squared.mean()
    return terms, (squared * batch.mask[..., None]).sum() / (3.0 * batch.mask.sum()).clamp_min(1.0)
