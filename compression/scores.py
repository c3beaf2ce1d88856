"""How much each Gaussian matters, summed over training views and times; one picture in memory at a time.

Blend weight is what a Gaussian adds to pictures. The two gradient sums are those of OMG4 (2025): how much the loss
depends on where it stands on the screen, and on when it is seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.compression.surroundings import Surroundings
from kinosplat.render import Gaussians, GaussianStatistics
from kinosplat.render.drawing import GaussianSet, draw
from kinosplat.render.exposure import gradients_through, shown_by
from kinosplat.render.losses import compare

SSIM_WEIGHT = 0.2
"""Part of the loss that is 1 - SSIM, as in training."""


@dataclass(frozen=True)
class Scores:
    """(N,) each, non-negative; larger is more important."""

    blend_weight: Tensor
    """Sum of alpha * transmittance over the pixels of all views."""
    spatial: Tensor
    """Sum over views of the norm of the loss's gradient by the position on the screen."""
    temporal: Tensor | None
    """Sum over views of the size of the loss's gradient by the time centre; None in a static set."""

    def select(self, index: Tensor) -> Scores:
        """Scores of the Gaussians that `index` picks."""
        temporal = None if self.temporal is None else self.temporal[index]
        return Scores(self.blend_weight[index], self.spatial[index], temporal)

    def normalised(self) -> list[Tensor]:
        """The scores there are, each from 0 to 1 over the set."""
        given = [score for score in (self.blend_weight, self.spatial, self.temporal) if score is not None]
        return [(score - score.min()) / (score.max() - score.min()).clamp_min(1e-30) for score in given]


@torch.no_grad()
def score(gaussians: Gaussians, surroundings: Surroundings, n_views: int | None = None) -> Scores:
    """Scores over all training views, or over `n_views` evenly spread ones.

    Drawn by the native rasterizer, whichever the run trains with: others keep no blend weight.
    """
    gaussian_set, n = GaussianSet(gaussians.detach()), len(gaussians)
    statistics = GaussianStatistics.zeros(n, gaussians.device)
    visible = torch.empty(n, dtype=torch.bool, device=gaussians.device)
    temporal = None if gaussians.time_centres is None else torch.zeros_like(gaussians.time_centres)
    for batch in surroundings.views(n_views):
        drawing = draw(
            gaussian_set,
            batch.cameras,
            background=surroundings.background,
            settings=surroundings.settings,
            statistics=statistics,
            visible=visible,
        )
        shown = shown_by(batch.sensor, drawing.rgb)
        compared = compare(shown, batch.images, mask=batch.masks, ssim_weight=SSIM_WEIGHT)
        assert compared.dL_drendered is not None
        dL_drgb, _ = gradients_through(batch.sensor, drawing.rgb, compared.dL_drendered)
        gradients = drawing.gradients(dL_drgb, None).gaussians
        if temporal is not None:
            temporal += torch.nan_to_num(gradients["time_centres"].abs())
    return Scores(statistics.blend_weight, statistics.screen_gradient, temporal)
