"""What rays of a field cost, differentiated by torch's autograd: for fields of any backend, with gradients to poses,
exposures and backgrounds.

`field_step.py` says the same by hand, which is what a run without those does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.render.field.backend import FieldBackend
from kinosplat.render.field.composite import composite, visible_part
from kinosplat.render.field.field import Field
from kinosplat.render.field.in_sight import density_in_sight
from kinosplat.render.field.march import sample_points
from kinosplat.render.field.occupancy import OccupancyGrid
from kinosplat.render.field.render import march_rays
from kinosplat.render.field.samples import Samples
from kinosplat.render.field.sight import FIRST_MET, DeviceCounts, SampleCounts
from kinosplat.trainers.ray_batch import RayBatch


@dataclass(frozen=True)
class LossWeights:
    """What counts how much."""

    huber: float
    """Colour errors above this count by their size; 0 squares all."""
    distortion: float
    """Weight of the distortion, 1 / world units; 0 leaves it out."""
    depth: float
    """Weight of what rays see elsewhere than within their bounds; 0 leaves it out."""


@dataclass(frozen=True)
class RayCost:
    """What a batch of rays costs, and what was seen on the way."""

    terms: dict[str, Tensor]
    """() each; with a history, unless there are gradients."""
    squared_error: Tensor
    """() mean squared error of the colours, detached."""
    gradients: dict[str, Tensor]
    """Of the field's tensors by name, where they are known already."""
    counted: SampleCounts | DeviceCounts
    """Samples of the batch."""
    samples: Samples
    """Those learned from, detached, like the following; or the first rows of these tensors."""
    positions: Tensor
    """(S, 3) grid positions."""
    density: Tensor
    """(S,) in 1 / world units."""

    def in_use(self) -> tuple[Samples, Tensor, Tensor]:
        """Samples, positions and densities in use; on a GPU this waits for their number."""
        samples, n = self.samples, self.counted.n_stored()
        return Samples(samples.offsets, samples.t[:n], samples.dt[:n]), self.positions[:n], self.density[:n]


def cost_of_rays(
    field: Field, grid: OccupancyGrid, near: float, batch: RayBatch, weights: LossWeights, bounds: Tensor | None
) -> RayCost:
    """See along the rays and compare; `bounds` (R, 2) are those of the surface along each ray, where there are any."""
    rays, device = batch.rays, field.device
    samples = march_rays(grid, rays, near, batch.jitter, field.backend)
    n_first = FIRST_MET if device.type == "cpu" else None
    samples, met = density_in_sight(
        lambda positions: field.density(positions)[0], rays, samples, grid.space, field.backend, n_first
    )
    n_met = len(samples)
    samples = visible_part(met, samples, field.backend)
    positions, directions = sample_points(rays.origins, rays.directions, samples, grid.space, field.backend)
    density, outputs = field.density(positions)
    seen = composite(density, field.colour(outputs, directions), samples, field.backend)
    rgb = batch.expose(seen.rgb + (1 - seen.alpha)[:, None] * batch.background)
    terms = {"image": mean_of(huber(rgb - batch.target, weights.huber), batch.weight)}
    if weights.distortion > 0.0:
        terms["distortion"] = weights.distortion * mean_of(seen.distortion[:, None], batch.weight)
    if bounds is not None:
        elsewhere = _seen_elsewhere(bounds, density, samples, field.backend)
        terms["depth"] = weights.depth * mean_of(elsewhere[:, None], batch.weight)
    return RayCost(
        terms=terms,
        squared_error=mean_of((rgb - batch.target).detach().square(), batch.weight),
        gradients={},
        counted=SampleCounts(n_met, len(samples)),
        samples=samples,
        positions=positions.detach(),
        density=density.detach(),
    )


def huber(error: Tensor, delta: float) -> Tensor:
    """Half the square of errors up to `delta`, and beyond it the tangent there."""
    if delta == 0.0:
        return 0.5 * error.square()
    return torch.nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta)


def mean_of(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of (R, C) values, rays counting as much as the (R,) weights say."""
    if weight is None:
        return values.mean()
    return (values.mean(dim=1) * weight).sum() / weight.sum().clamp_min(1e-8)


def is_within(bounds: Tensor, samples: Samples) -> Tensor:
    """(S, 3) 1 where the midpoint of a sample lies within the (R, 2) bounds of its ray, else 0, three times each."""
    middle = samples.t + samples.dt / 2
    nearest, farthest = bounds[samples.ray].unbind(-1)
    within = (middle > nearest) & (middle < farthest)
    return within.to(middle)[:, None].expand(-1, 3).contiguous()


def _seen_elsewhere(bounds: Tensor, density: Tensor, samples: Samples, backend: FieldBackend) -> Tensor:
    """(R,) how much of each ray is seen outside of its (R, 2) bounds, or not at all; 0 where nothing is known.

    The loss of lines of sight (Rematas et al. 2022): what is before the surface is to be empty, the surface opaque.
    """
    within = composite(density, is_within(bounds, samples), samples, backend).rgb[:, 0]
    return (1 - within) * torch.isfinite(bounds[:, 1])
