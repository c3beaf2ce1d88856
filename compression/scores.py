"""How much each Gaussian matters, summed over all training views and times; one picture in memory at a time.

Blend weight is what a Gaussian adds to pictures. The two gradient sums are those of OMG4 (2025): how much the loss
depends on where it stands on the screen, and on when it is seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kinosplat.compression.surroundings import Surroundings
from kinosplat.render import Gaussians, GaussianStatistics, rasterize
from kinosplat.render.losses import photometric_loss


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


def score(gaussians: Gaussians, surroundings: Surroundings, n_views: int | None = None) -> Scores:
    """Scores over all training views, or over `n_views` evenly spread ones."""
    gaussians = gaussians.detach()
    statistics = GaussianStatistics.zeros(len(gaussians), gaussians.device)
    temporal = None if gaussians.time_centres is None else torch.zeros_like(gaussians.time_centres)
    for batch in surroundings.views(n_views):
        means = gaussians.means.clone().requires_grad_()
        centres = None if gaussians.time_centres is None else gaussians.time_centres.clone().requires_grad_()
        output = rasterize(
            replace(gaussians, means=means, time_centres=centres),
            batch.cameras,
            background=surroundings.background,
            settings=surroundings.settings,
            statistics=statistics,
        )
        photometric_loss(batch.expose(output.rgb), batch.images, mask=batch.masks).backward()
        if temporal is not None and centres is not None and centres.grad is not None:
            temporal += torch.nan_to_num(centres.grad.abs())
    return Scores(statistics.blend_weight, statistics.screen_gradient, temporal)
