"""What rays of a field cost and by which gradients, from the native passes called one by one.

The same numbers as those of `field_loss.py`, where torch's autograd differentiates (a test compares them): its history,
and a dozen of its operations where one pass does, took the host as long as nerfacc's loop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinosplat.render.field import native, native_step
from kinosplat.render.field.field import Field
from kinosplat.render.field.learning import Vision, see
from kinosplat.render.field.occupancy import OccupancyGrid
from kinosplat.render.field.sight import Room, look
from kinosplat.trainers.methods.field_loss import LossWeights, RayCost, is_within, mean_of
from kinosplat.trainers.ray_batch import RayBatch


def can_do_by_hand(field: Field, batch: RayBatch) -> bool:
    """Whether nothing but the field's tensors is learned from the batch, and native passes do it all."""
    others = (batch.rays.origins, batch.rays.directions, batch.background)
    return field.backend == "native" and batch.exposures is None and not any(t.requires_grad for t in others)


@torch.no_grad()
def cost_and_gradients(
    field: Field,
    grid: OccupancyGrid,
    near: float,
    batch: RayBatch,
    weights: LossWeights,
    bounds: Tensor | None,
    room: Room,
) -> RayCost:
    """See along the rays, compare, and differentiate; arguments as of `cost_of_rays`."""
    sight = look(field, grid, batch.rays, batch.jitter, near, room)
    vision = see(field, sight)
    difference = native_step.ray_difference(
        vision.seen,
        batch.background,
        batch.target,
        weight=batch.weight,
        huber=weights.huber,
        distortion_weight=weights.distortion,
        counts=sight.counts,
    )
    dL_ddensity, dL_drgb = vision.sample_gradients(difference.dL_drgb, difference.dL_dalpha, difference.dL_ddistortion)
    terms = {"image": difference.image}
    if weights.distortion > 0.0:
        terms["distortion"] = difference.distortion
    if bounds is not None:
        terms["depth"] = add_depth_gradient(vision, bounds, weights.depth, batch.weight, dL_ddensity)
    return RayCost(
        terms=terms,
        squared_error=difference.squared_error,
        gradients=vision.gradients(dL_ddensity, dL_drgb),
        counted=sight.counted,
        samples=sight.samples,
        positions=sight.positions,
        density=vision.density,
    )


def add_depth_gradient(
    vision: Vision, bounds: Tensor, depth_weight: float, weight: Tensor | None, dL_ddensity: Tensor
) -> Tensor:
    """What is seen elsewhere than within the (R, 2) bounds costs; its gradient is added to `dL_ddensity`."""
    samples, density = vision.sight.samples, vision.density
    arguments = (density, is_within(bounds, samples), samples.t, samples.dt, samples.offsets)
    seen = native.composite_forward(*arguments)
    known = torch.isfinite(bounds[:, 1]).to(density)
    share = known / len(known) if weight is None else known * weight / weight.sum().clamp_min(1e-8)
    dL_dwithin = torch.zeros_like(seen.rgb)
    dL_dwithin[:, 0] = -depth_weight * share
    of_density, _ = native.composite_backward(dL_dwithin, None, None, None, *arguments, seen)
    dL_ddensity.add_(of_density)
    return depth_weight * mean_of(((1 - seen.rgb[:, 0]) * known)[:, None], weight)
