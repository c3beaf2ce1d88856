"""The passes of a field's training step are what plain torch says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kinosplat.render.field import native_step
from kinosplat.render.field.field import truncated_exp
from kinosplat.render.field.layout import Space, StepRule
from kinosplat.render.field.marching import OccupiedCells
from kinosplat.render.field.native_step import DrawnRays, Pictures
from kinosplat.render.field.rays import rays_through
from kinosplat.render.field.reference import occupancy_cells, pack_bits, unpack_bits, world_points
from kinosplat.render.field.samples import Composited

DTYPES = [torch.float64, torch.float32]
N = 3001  # several tasks


def tolerance(dtype: torch.dtype) -> float:
    """Share of the largest value; measured at most 1.3e-15 and 6.4e-7."""
    return 1e-14 if dtype == torch.float64 else 3e-6


def close(value: Tensor, expected: Tensor) -> None:
    bound = tolerance(value.dtype) * float(expected.detach().abs().max())
    torch.testing.assert_close(value, expected.detach(), rtol=0, atol=bound)


def normal(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def pictures() -> Pictures:
    """Three views of unequal sizes, two of which lie on the device."""
    draws = torch.Generator().manual_seed(0)
    sizes = torch.tensor([[7, 5], [40, 30], [16, 50]])
    K = torch.tensor([[30.0, 0.0, 8.0], [0.0, 31.0, 15.0], [0.0, 0.0, 1.0]])
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, :3, :3] = torch.linalg.qr(torch.randn(3, 3, 3, generator=draws))[0]
    poses[:, :3, 3] = torch.randn(3, 3, generator=draws)
    return Pictures(
        data=torch.randint(256, (2, 1200, 5), generator=draws, dtype=torch.uint8),
        view_of_slot=torch.tensor([1, 2]),
        sizes=sizes,
        inverse_K=torch.linalg.inv(K).repeat(3, 1, 1),
        world_to_camera=poses,
    )


def check_rays(rays: DrawnRays, held: Pictures, background: Tensor | None) -> None:
    """What is drawn fits together, whatever was drawn."""
    x, y = rays.places.long().unbind(1)
    assert torch.equal(rays.places, torch.stack([x, y], dim=1) + 0.5)
    width, height = held.sizes[rays.views].unbind(1)
    assert ((x >= 0) & (x < width) & (y >= 0) & (y < height)).all()
    slots = rays.views - 1
    pixels = held.data[slots, y * width + x].double() / 255
    alpha = pixels[:, 3:4]
    expected = pixels[:, :3] * alpha + rays.background.double() * (1 - alpha)
    # float32; measured 1.2e-7, like the rays below.
    torch.testing.assert_close(rays.target.double(), expected, rtol=0, atol=3e-7)
    assert rays.weight is not None
    torch.testing.assert_close(rays.weight.double(), pixels[:, 4], rtol=0, atol=1e-7)
    through = rays_through(rays.places, held.inverse_K[rays.views], held.world_to_camera[rays.views])
    torch.testing.assert_close(rays.origins, through.origins, rtol=0, atol=1e-6)
    torch.testing.assert_close(rays.directions, through.directions, rtol=0, atol=1e-6)
    if background is not None:
        assert torch.equal(rays.background, background.expand_as(rays.background))


@pytest.mark.parametrize("random_background", [False, True])
def test_rays_go_through_the_pixels_drawn_and_aim_at_their_colours(random_background: bool) -> None:
    background = None if random_background else torch.tensor([0.2, 0.5, 0.9])
    rays = native_step.draw_rays(pictures(), N, 12345, background=background, with_weight=True)
    check_rays(rays, pictures(), background)
    again = native_step.draw_rays(pictures(), N, 12345, background=background, with_weight=False)
    other = native_step.draw_rays(pictures(), N, 12346, background=background, with_weight=False)
    assert again.weight is None
    assert torch.equal(again.places, rays.places)
    assert not torch.equal(other.places, rays.places)


def test_pixels_are_drawn_evenly_from_all_pictures() -> None:
    n = 200_000
    rays = native_step.draw_rays(pictures(), n, 1, background=None, with_weight=False)
    share = (rays.views == 1).float().mean().item()
    assert share == pytest.approx(0.5, abs=0.005)  # a standard deviation is 0.0011
    x, y = rays.places[rays.views == 1].long().unbind(1)
    counts = torch.bincount(y * 40 + x, minlength=1200).double()
    expected = len(x) / 1200
    # Chi squared of 1199 degrees of freedom has a standard deviation of 49; measured 1138.
    assert ((counts - expected).square() / expected).sum().item() == pytest.approx(1199, abs=250)
    for numbers in (rays.jitter, *rays.background.unbind(1)):
        assert ((numbers >= 0) & (numbers < 1)).all()
        assert numbers.mean().item() == pytest.approx(0.5, abs=0.004)  # a standard deviation is 0.00065
    assert torch.corrcoef(torch.cat([rays.jitter[None], rays.background.T])).fill_diagonal_(0).abs().max() < 0.01


def test_a_slot_without_a_view_is_refused() -> None:
    held = pictures()
    held.view_of_slot[0] = 3
    with pytest.raises(ValueError, match=r"^view_of_slot must name views whose pictures fit into data\.$"):
        native_step.draw_rays(held, 4, 0, background=None, with_weight=False)


def heads(outputs: Tensor, logits: Tensor, gate: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    density = truncated_exp(outputs[:, 0]) * scale
    return density if gate is None else density * gate, torch.sigmoid(logits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gated", [False, True])
def test_density_and_colour_and_their_gradients(dtype: torch.dtype, gated: bool) -> None:
    # The first outputs lie beyond where the exponent is cut off, on both sides.
    outputs = (8.0 * normal(N, 5, dtype=dtype)).requires_grad_()
    colour_inputs, logits = normal(N, 9, dtype=dtype, seed=1), normal(N, 3, dtype=dtype, seed=2).requires_grad_()
    gate = torch.rand(N, generator=torch.Generator().manual_seed(3), dtype=dtype).requires_grad_() if gated else None
    density, rgb = native_step.activate(outputs.detach(), logits.detach(), 0.3, None if gate is None else gate.detach())
    expected = heads(outputs, logits, gate, 0.3)
    close(density, expected[0])
    close(rgb, expected[1])
    dL_ddensity, dL_drgb = normal(N, dtype=dtype, seed=4), normal(N, 3, dtype=dtype, seed=5)
    torch.autograd.backward(expected, (dL_ddensity, dL_drgb))
    assert logits.grad is not None
    assert outputs.grad is not None
    close(native_step.colour_gradients(rgb, dL_drgb), logits.grad)
    dL_doutputs, dL_dgate = native_step.output_gradients(
        outputs.detach(), colour_inputs, dL_ddensity, 0.3, None if gate is None else gate.detach(), 4
    )
    close(dL_doutputs, (outputs.grad + colour_inputs[:, :5])[:, :4])
    assert (dL_dgate is None) == (gate is None)
    if dL_dgate is not None and gate is not None and gate.grad is not None:
        close(dL_dgate, gate.grad)


@pytest.mark.parametrize("dtype", DTYPES)
def test_saliency_gates_features_and_density(dtype: torch.dtype) -> None:
    features, logits = normal(N, 6, dtype=dtype).requires_grad_(), normal(N, dtype=dtype, seed=1).requires_grad_()
    gated, gate = native_step.gate_features(features.detach(), logits.detach(), 0.7)
    saliency = torch.sigmoid(logits)
    expected_gated = features * saliency[:, None]
    # The gate's gradient reaches the saliency alone (field.py).
    expected_gate = torch.tanh(0.7 * saliency * torch.linalg.vector_norm(features.detach(), dim=1))
    close(gated, expected_gated)
    close(gate, expected_gate)
    dL_dgated, dL_dgate = normal(N, 6, dtype=dtype, seed=2), normal(N, dtype=dtype, seed=3)
    torch.autograd.backward((expected_gated, expected_gate), (dL_dgated, dL_dgate))
    dL_dfeatures, dL_dlogits = native_step.gate_gradients(
        features.detach(), logits.detach(), 0.7, dL_dgated.clone(), dL_dgate
    )
    assert features.grad is not None
    assert logits.grad is not None
    close(dL_dfeatures, features.grad)
    close(dL_dlogits, logits.grad)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("huber", "distortion_weight"), [(0.0, 0.0), (0.4, 0.3)])
def test_rays_cost_their_difference(dtype: torch.dtype, weighted: bool, huber: float, distortion_weight: float) -> None:
    rgb, background, target = (normal(N, 3, dtype=dtype, seed=seed) for seed in range(3))
    alpha, distortion = normal(N, dtype=dtype, seed=3), normal(N, dtype=dtype, seed=4)
    weight = torch.rand(N, generator=torch.Generator().manual_seed(5), dtype=dtype) if weighted else None
    leaves = [tensor.requires_grad_() for tensor in (rgb, alpha, distortion)]
    share = torch.full((N,), 1 / N, dtype=dtype) if weight is None else weight / weight.sum()
    error = rgb + (1 - alpha)[:, None] * background - target
    losses = torch.nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=huber or 1e9)
    image = (losses.mean(dim=1) * share).sum()
    spread = distortion_weight * (distortion * share).sum()
    (image + spread).backward()
    seen = Composited(
        *(tensor.detach() for tensor in (rgb, alpha, alpha, distortion)), torch.zeros(N, dtype=torch.int32)
    )
    found = native_step.ray_difference(
        seen, background, target, weight=weight, huber=huber, distortion_weight=distortion_weight
    )
    close(found.image, image)
    close(found.squared_error, (error.square().mean(dim=1) * share).sum())
    gradients = [found.dL_drgb, found.dL_dalpha]
    if distortion_weight > 0.0:
        close(found.distortion, spread)
        assert found.dL_ddistortion is not None
        gradients.append(found.dL_ddistortion)
    else:
        assert found.distortion == 0
        assert found.dL_ddistortion is None
    for gradient, leaf in zip(gradients, leaves, strict=False):
        assert leaf.grad is not None
        close(gradient, leaf.grad)


SPACES = [Space((1.0, 2.0, 3.0), 0.5), Space((1.0, 2.0, 3.0), 0.5, n_cascades=3, contract=True)]


def grid_of_cells(space: Space) -> tuple[OccupiedCells, Tensor]:
    """Some occupied cells, and which may be looked into."""
    draws = torch.Generator().manual_seed(0)
    n_cells = space.n_cascades * 16**3
    bits = pack_bits(torch.rand(n_cells, generator=draws) < 0.05)
    return OccupiedCells(bits, space, StepRule(), 16), torch.rand(n_cells, generator=draws) < 0.8


@pytest.mark.parametrize("space", SPACES)
def test_cells_are_visited_where_they_lie(space: Space) -> None:
    cells, learnable = grid_of_cells(space)
    n_cells = len(learnable)
    occupied = native_step.occupied_cells(cells)
    assert torch.equal(occupied[0].long(), unpack_bits(cells.bits).nonzero()[:, 0])
    for n_visits in (n_cells, n_cells // 3):
        visited, positions = native_step.visit_cells(
            cells, learnable, occupied, 5, n_visits=n_visits, part=range(n_visits)
        )
        looked = visited >= 0
        assert learnable[visited[looked]].all()
        # The inner half of an outer cascade belongs to the one within it.
        found = occupancy_cells(world_points(positions[looked].double(), space), space, 16)
        assert (found <= visited[looked]).all()
        innermost = visited[looked] < 16**3
        assert torch.equal(found[innermost], visited[looked][innermost])
        parts = [
            native_step.visit_cells(cells, learnable, occupied, 5, n_visits=n_visits, part=part)
            for part in (range(1000), range(1000, n_visits))
        ]
        assert torch.equal(torch.cat([part[0] for part in parts]), visited)
        assert torch.equal(torch.cat([part[1] for part in parts]), positions)
        if n_visits == n_cells:
            assert torch.equal(visited, torch.where(learnable, torch.arange(n_cells), -1))
            continue
        others = visited[n_visits // 2 :]
        assert unpack_bits(cells.bits)[others[others >= 0]].all()
        assert len(visited[: n_visits // 2].unique()) > 0.7 * (n_visits // 2)
    empty = OccupiedCells(torch.zeros_like(cells.bits), space, cells.rule, 16)
    nothing = native_step.occupied_cells(empty)
    visited, _ = native_step.visit_cells(empty, learnable, nothing, 5, n_visits=1000, part=range(1000))
    assert (visited[500:] == -1).all()
