"""A step of a field by the native passes one by one is the step that torch's autograd would do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kinosplat.render.field.field import Field, FieldShape
from kinosplat.render.field.layout import GridLayout, Space, StepRule
from kinosplat.render.field.learning import see
from kinosplat.render.field.occupancy import OccupancyGrid
from kinosplat.render.field.rays import Rays
from kinosplat.render.field.samples import Samples
from kinosplat.render.field.sight import Room, look
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.config import CorrectionConfig
from kinosplat.trainers.feed import RayFeed
from kinosplat.trainers.methods.field_loss import LossWeights, RayCost, cost_of_rays
from kinosplat.trainers.methods.field_step import add_depth_gradient, can_do_by_hand, cost_and_gradients
from kinosplat.trainers.methods.hash_grid import FieldMethod
from kinosplat.trainers.ray_batch import RayBatch

from .test_fields import HOLLOW, field_config, training_of
from .toys import write_toy

N_RAYS = 200
NEAR = 0.05
ROOM = Room(met=1 << 20, kept=1 << 20)
SPACES = {"bounded": Space((0.5, 0.0, -0.5), 1.5), "contracted": Space(n_cascades=3, contract=True)}


def field_of(space: Space, hollow: bool, dtype: torch.dtype) -> Field:
    """Random features, dense enough that some rays end within it."""
    layout = GridLayout(n_levels=4, n_features=2, finest_resolution=40, log2_table_size=12)
    shape = FieldShape(layout, space, n_hidden=16, hollow=hollow)
    draws = torch.Generator().manual_seed(0)
    field = Field.create(shape, "native", draws).mapped(lambda tensor: tensor.to(dtype))
    field = replace(field, table=torch.randn(field.table.shape, generator=draws, dtype=dtype), sharpness=2.0)
    field.density_weights[-1][0] *= 5.0
    if hollow:
        assert field.saliency is not None
        field = replace(field, saliency=3.0 + torch.randn(field.saliency.shape, generator=draws, dtype=dtype))
    return field.mapped(lambda tensor: tensor.detach().requires_grad_())


def batch_of(space: Space, with_weight: bool, dtype: torch.dtype) -> RayBatch:
    """Rays that look at the space's centre from around it, and the bounds of a surface along some."""
    draws = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws, dtype=dtype)

    outside = 2.0 * torch.nn.functional.normalize(normal(N_RAYS, 3), dim=1)
    directions = torch.nn.functional.normalize(0.5 * normal(N_RAYS, 3) - outside, dim=1)
    uniform = torch.rand(N_RAYS, 8, generator=draws, dtype=dtype)
    return RayBatch(
        rays=Rays(torch.tensor(space.center, dtype=dtype) + space.half_extent * outside, directions),
        target=uniform[:, :3].contiguous(),
        background=uniform[:, 3:6].contiguous(),
        views=torch.zeros(N_RAYS, dtype=torch.int64),
        places=torch.zeros(N_RAYS, 2),
        jitter=uniform[:, 6].contiguous(),
        weight=uniform[:, 7].contiguous() if with_weight else None,
    )


def bounds_along() -> Tensor:
    """(R, 2), nothing known of every third ray."""
    bounds = torch.tensor([1.0, 2.5]).repeat(N_RAYS, 1)
    bounds[::3] = torch.tensor([0.0, torch.inf])
    return bounds


def close(value: Tensor, expected: Tensor, share: float) -> None:
    """Within `share` of the largest expected value."""
    torch.testing.assert_close(value, expected, rtol=0, atol=share * float(expected.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("hollow", [False, True], ids=["hashgrid", "hollownerf"])
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("all_losses", [False, True])
def test_gradients_by_hand_are_those_of_autograd(dtype: torch.dtype, hollow: bool, name: str, all_losses: bool) -> None:
    space = SPACES[name]
    field, batch = field_of(space, hollow, dtype), batch_of(space, all_losses, dtype)
    grid = OccupancyGrid(space, StepRule(64, 1 / 64 if space.contract else 0.0), 16, torch.device("cpu"))
    weights = LossWeights(huber=0.1, distortion=0.3 if all_losses else 0.0, depth=0.2)
    bounds = bounds_along() if all_losses else None
    assert can_do_by_hand(field, batch)
    cost: RayCost = cost_and_gradients(field, grid, NEAR, batch, weights, bounds, ROOM)
    expected = cost_of_rays(field, grid, NEAR, batch, weights, bounds)
    sum(expected.terms.values()).backward()  # type: ignore[union-attr]
    # Some rays must have met so much that what is behind it is left out.
    assert expected.counted.kept < 0.98 * expected.counted.met  # type: ignore[union-attr]
    assert cost.counted == expected.counted
    # Measured of the largest value: float64 3e-13, float32 3e-4, where densities are in the thousands.
    share = 1e-12 if dtype == torch.float64 else 1e-3
    assert cost.terms.keys() == expected.terms.keys()
    for term in cost.terms:
        close(cost.terms[term], expected.terms[term].detach(), share)
    close(cost.squared_error, expected.squared_error, share)
    leaves = field.parameters()
    assert cost.gradients.keys() == leaves.keys()
    for parameter, gradient in cost.gradients.items():
        of_leaf = leaves[parameter].grad
        assert of_leaf is not None
        assert of_leaf.abs().max() > 0
        close(gradient, of_leaf, share)


def test_what_else_is_learned_from_rays_is_left_to_autograd() -> None:
    space = SPACES["bounded"]
    field, batch = field_of(space, False, torch.float32), batch_of(space, False, torch.float32)
    moved = Rays(batch.rays.origins.clone().requires_grad_(), batch.rays.directions)
    assert can_do_by_hand(field, batch)
    assert not can_do_by_hand(field, replace(batch, rays=moved))
    assert not can_do_by_hand(field, replace(batch, background=batch.background.clone().requires_grad_()))
    assert not can_do_by_hand(field, replace(batch, exposures=torch.eye(3, 4).expand(N_RAYS, 3, 4)))
    assert not can_do_by_hand(replace(field, backend="reference"), batch)


def test_rays_that_see_nothing_cost_their_background() -> None:
    space = SPACES["bounded"]
    field, batch = field_of(space, False, torch.float64), batch_of(space, False, torch.float64)
    away = replace(batch, rays=Rays(batch.rays.origins, -batch.rays.directions))
    grid = OccupancyGrid(space, StepRule(64), 16, torch.device("cpu"))
    cost = cost_and_gradients(field, grid, NEAR, away, LossWeights(0.0, 0.0, 0.0), None, ROOM)
    assert cost.counted.kept == 0  # type: ignore[union-attr]
    assert all((gradient == 0).all() for gradient in cost.gradients.values())
    error = batch.background - batch.target
    torch.testing.assert_close(cost.terms["image"], 0.5 * error.square().mean())
    torch.testing.assert_close(cost.squared_error, error.square().mean())


@pytest.mark.parametrize("by_hand", [True, False])
def test_the_pruner_pulls_at_the_mask_beside_the_rays(by_hand: bool, tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy", n_train=4, with_alpha=True)
    config = field_config(toy, steps=10, hollow=True)
    if not by_hand:
        config = replace(config, corrections=CorrectionConfig(exposure=True))
    found, moment = [], Moment(5, 0.5, 0.6)
    # The same rays before the pruner starts and after that.
    for now in (Moment(0, 0.01, 0.02), moment):
        training = training_of(config, toy, tmp_path / "run")
        method = training.method
        assert isinstance(method, FieldMethod)
        assert method.hollow is not None
        mask = method.live_field().saliency
        assert mask is not None
        with torch.no_grad():
            mask += torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
        method.hollow.after_step(moment)
        with RayFeed(training, method) as feed:
            losses = feed.losses(now)
        assert ("mask" in losses.terms) == (now is moment)
        value = losses.terms.get("mask")
        losses.backward()
        assert mask.grad is not None
        found.append(mask.grad)
        mask.grad = None
    rho = HOLLOW.pruning_strength * 0.1
    excess = torch.sigmoid(mask).mean() - HOLLOW.mask_target
    dual = method.hollow.tensors()["hollow.dual"]
    assert dual > 0
    expected = 0.5 * rho * excess.clamp_min(0).square() + dual * excess
    expected.backward()
    assert value is not None
    assert mask.grad is not None
    torch.testing.assert_close(value, expected.detach())
    # Measured of the largest: 5e-6, what is left of rounding sums that are larger.
    close(found[1] - found[0], mask.grad, 5e-5)


def test_depth_costs_the_same_in_a_buffer_that_is_not_full() -> None:
    space = SPACES["bounded"]
    field, batch = field_of(space, False, torch.float64), batch_of(space, True, torch.float64)
    batch.rays.directions[:9:3] *= -1.0  # away from the cube
    grid = OccupancyGrid(space, StepRule(64), 16, torch.device("cpu"))
    vision = see(field, look(field, grid, batch.rays, batch.jitter, NEAR, ROOM))
    samples, n = vision.sight.samples, len(vision.density)

    def roomy(values: Tensor) -> Tensor:
        return torch.cat([values, torch.full((7,), torch.nan, dtype=values.dtype)])

    buffers = Samples(samples.offsets, roomy(samples.t), roomy(samples.dt))
    in_buffers = replace(vision, sight=replace(vision.sight, samples=buffers), density=roomy(vision.density))
    assert (samples.offsets.diff() == 0).sum() >= 3
    gradient, of_buffers = torch.zeros(n, dtype=torch.float64), torch.zeros(n + 7, dtype=torch.float64)
    cost = add_depth_gradient(vision, bounds_along(), 0.2, batch.weight, gradient)
    assert add_depth_gradient(in_buffers, bounds_along(), 0.2, batch.weight, of_buffers) == cost
    assert gradient.abs().max() > 0
    assert torch.equal(of_buffers[:n], gradient)
