"""What a step of Gaussians costs and by which gradients, from the native passes called one by one.

The same loss as `image_loss` and the strategy's penalties after `rasterize`, and the same gradients (a test compares
them); torch's autograd would spend as long on its history as the host needs for everything else. What is in front of
the pictures (poses, exposures, a learned background) is left to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.render import Gaussians, GaussianStatistics, RasterSettings, rasterize
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


@dataclass(frozen=True)
class Step:
    """What pictures cost."""

    losses: Losses
    """Terms, to which others may be added, and gradients."""
    gradients: dict[str, Tensor] | None
    """Of the Gaussians by parameter name, which are among those of `losses`; None where only torch knows them."""


class PictureStep:
    """Pictures of sets of Gaussians compared with a batch, by the rasterizer that settings name; what is known of a set
    is kept for the next time.
    """

    def __init__(self, config: ImageConfig) -> None:
        self._config = config
        self._set: GaussianSet | None = None

    def take(
        self,
        gaussians: Gaussians,
        batch: Batch,
        settings: RasterSettings,
        *,
        statistics: GaussianStatistics | None = None,
        visible: Tensor | None = None,
    ) -> Step:
        """Draw and compare; the tensors of `gaussians` may have a history, the rest is as of `rasterize`."""
        if visible is None:
            visible = torch.empty(len(gaussians), dtype=torch.bool, device=gaussians.device)
        if not settings.is_native:
            output = rasterize(
                gaussians,
                batch.cameras,
                background=batch.background,
                settings=settings,
                statistics=statistics,
                visible=visible,
            )
            return Step(Losses(*image_loss(output, batch, self._config)), None)
        if self._set is None or self._set.gaussians is not gaussians:
            self._set = GaussianSet(gaussians)
        drawing = draw(
            self._set,
            batch.cameras,
            background=batch.background,
            settings=settings,
            statistics=statistics,
            visible=visible,
        )
        losses, gradients = compare_and_differentiate(drawing, batch, self._config)
        return Step(losses, gradients.gaussians)


def picture_loss(gaussians: Gaussians, batch: Batch, settings: RasterSettings, config: ImageConfig) -> Losses:
    """What pictures of a set cost that is drawn only once."""
    return PictureStep(config).take(gaussians, batch, settings).losses
