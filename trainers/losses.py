"""The loss that every method that renders whole pictures shares."""

from __future__ import annotations

from torch import Tensor

from kinosplat.render.exposure import Sensor, expose
from kinosplat.render.losses import alpha_loss, photometric_comparison
from kinosplat.render.output import RenderOutput
from kinosplat.trainers.batch import Batch
from kinosplat.trainers.config import ImageConfig

SATURATED = 250 / 255
"""A channel at least this bright in the picture may have been any brighter in the scene; JPEG leaves lamps a few levels
short of white.
"""


def sensor_of(batch: Batch, config: ImageConfig) -> Sensor:
    """How the batch's cameras show the scene's colours.

    With `saturation` a lamp can be as bright as it has to be for its edge to be sharp after clipping, and in the
    pictures of cameras with differing exposures; where the target is not saturated, a colour beyond 1 is still pulled
    back.
    """
    return Sensor(batch.exposures, batch.target if config.saturation else None, SATURATED)


def image_loss(output: RenderOutput, batch: Batch, config: ImageConfig) -> tuple[dict[str, Tensor], Tensor]:
    """Terms to sum, and the mean squared error of the pictures (detached, for progress).

    Pixels outside the mask have no influence: not on L1, and not on the SSIM of their neighbours.
    """
    rgb = expose(output.rgb, sensor_of(batch, config))
    loss, squared_error = photometric_comparison(rgb, batch.target, mask=batch.mask, ssim_weight=config.ssim_weight)
    terms = {"image": loss}
    if batch.alpha is not None and config.alpha_weight > 0.0:
        terms["alpha"] = alpha_loss(output.alpha, batch.alpha, mask=batch.mask, weight=config.alpha_weight)
    return terms, squared_error
