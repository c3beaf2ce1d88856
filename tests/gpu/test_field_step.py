"""A training step of a field on a GPU: each pass is what the CPU's says, and the step is that of torch's autograd."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from native.field.rays import ragged_samples, rays, sparse_bits
from native.field.test_field_step import SPACES as VISITED_SPACES
from native.field.test_field_step import N, check_rays, grid_of_cells, normal, pictures
from torch import Tensor
from trainers.test_field_step import NEAR, SPACES, batch_of, bounds_along, field_of
from trainers.test_fields import field_config, training_of
from trainers.toys import write_toy

from kinosplat.render.adam import AdamTensor, DroppedRows, RowAdam
from kinosplat.render.field import native, native_step, reference
from kinosplat.render.field.composite import visible_part
from kinosplat.render.field.layout import Space, StepRule
from kinosplat.render.field.march import ray_range
from kinosplat.render.field.marching import OccupiedCells, RayParts
from kinosplat.render.field.occupancy import OccupancyGrid
from kinosplat.render.field.rays import Rays
from kinosplat.render.field.samples import Composited, Samples
from kinosplat.render.field.sight import DeviceCounts, Room, SampleCounts, look
from kinosplat.trainers.feed import RayFeed
from kinosplat.trainers.loop import train_step
from kinosplat.trainers.methods.field_loss import LossWeights, cost_of_rays
from kinosplat.trainers.methods.field_step import cost_and_gradients
from kinosplat.trainers.methods.hash_grid import FieldMethod
from kinosplat.trainers.ray_batch import RayBatch

pytestmark = pytest.mark.gpu

ROOM = Room(met=1 << 17, kept=1 << 16)
MARCHED = [
    (Space(center=(1.0, 2.0, 3.0), half_extent=2.0), StepRule(200), 64),
    (Space(n_cascades=4, contract=True), StepRule(128, 1 / 64), 32),
]


def close(value: Tensor, expected: Tensor, share: float) -> None:
    """Within `share` of the largest expected value."""
    value, expected = value.detach().cpu().double(), expected.detach().cpu().double()
    torch.testing.assert_close(value, expected, rtol=0, atol=share * float(expected.abs().max()))


def moved(batch: RayBatch, device: torch.device) -> RayBatch:
    tensors = {name: value.to(device) for name, value in vars(batch).items() if name != "rays" and value is not None}
    return replace(batch, rays=Rays(batch.rays.origins.to(device), batch.rays.directions.to(device)), **tensors)


@pytest.mark.parametrize("random_background", [False, True])
def test_the_rays_drawn_are_those_of_the_cpu(random_background: bool, cuda_device: torch.device) -> None:
    background = None if random_background else torch.tensor([0.2, 0.5, 0.9])
    held = pictures()
    on_device = native_step.Pictures(**{name: value.to(cuda_device) for name, value in vars(held).items()})
    drawn = native_step.draw_rays(
        on_device, N, 7, background=None if background is None else background.to(cuda_device), with_weight=True
    )
    drawn = native_step.DrawnRays(**{name: value.cpu() for name, value in vars(drawn).items()})
    expected = native_step.draw_rays(held, N, 7, background=background, with_weight=True)
    for name in ("views", "places", "jitter", "weight", "background"):
        assert torch.equal(getattr(drawn, name), getattr(expected, name))
    check_rays(drawn, held, background)


@pytest.mark.parametrize(("space", "rule", "resolution"), MARCHED)
@pytest.mark.parametrize("share", [0.0, 0.05, 1.1])
def test_marching_together_finds_what_marching_alone_finds(
    space: Space, rule: StepRule, resolution: int, share: float, cuda_device: torch.device
) -> None:
    from kinosplat.render.field import native_cuda_buffers as passes

    n = 1003
    bundle = rays(n, torch.float32, space)
    origins, directions, jitter = (t.to(cuda_device) for t in (bundle.origins, bundle.directions, bundle.jitter))
    directions[17] = 0.0
    cells = OccupiedCells(sparse_bits(space.n_cascades, resolution, share).to(cuda_device), space, rule, resolution)
    near, far = ray_range(origins, directions, space, 0.3)
    expected = native.march(RayParts(origins, directions, near, far, jitter), cells)
    marching, blocks = native.native_marching(space, rule, resolution), native.occupied_blocks(cells)
    marched = passes.MarchedRays(origins, directions, jitter, 0.3)
    total = len(expected)
    assert total > 100

    def into(capacity: int) -> tuple[Samples, Tensor, list[int]]:
        scratch = passes.StepScratch(n, cuda_device)
        samples, positions = passes.march_into(marched, cells.bits, blocks, marching, capacity, scratch)
        return samples, positions, scratch.counts.tolist()

    samples, positions, counts = into(2 * total)
    n_wanted, n_rows, n_whole = counts[:3]
    assert n_wanted == n_rows == int(samples.offsets[-1])
    assert n_whole == n
    # Where the part of a ray begins is rounded once more or less: now and then a midpoint lands in the next cell.
    different = (samples.offsets.diff() - expected.offsets.diff()).abs()
    assert int(different.sum()) <= 1 + total // 500
    same = different == 0
    ours, theirs = (torch.repeat_interleave(same, offsets.diff()) for offsets in (samples.offsets, expected.offsets))
    for name in ("t", "dt"):
        values = getattr(samples, name)[:n_rows][ours]
        torch.testing.assert_close(values, getattr(expected, name)[theirs], rtol=0, atol=1e-5 * 2.0 * space.reach * 2)
    stored = Samples(samples.offsets, samples.t[:n_rows], samples.dt[:n_rows])
    points, _ = native.sample_points(origins, directions, stored, space)
    torch.testing.assert_close(positions[:n_rows], points, rtol=0, atol=1e-6)

    # With half the room the first rays have theirs, one has a part of its, and the rest nothing.
    capacity = n_wanted // 2
    short, short_positions, counts = into(capacity)
    assert torch.equal(short.offsets, samples.offsets.clamp(max=capacity))
    assert counts[:3] == [n_wanted, capacity, int((samples.offsets[1:] <= capacity).sum())]
    assert torch.equal(short.t, samples.t[:capacity])
    assert torch.equal(short_positions, positions[:capacity])


@pytest.mark.parametrize("gated", [False, True])
def test_what_is_kept_is_what_can_be_seen(gated: bool, cuda_device: torch.device) -> None:
    from kinosplat.render.field import native_cuda_buffers as passes

    counts = [0, 1, 5, 200, 0, 64, 65, 17] * 41
    met = ragged_samples(counts, torch.float32)
    met = Samples(*(tensor.to(cuda_device) for tensor in vars(met).values()))
    n = len(met)
    outputs = normal(n, 16, dtype=torch.float32).to(cuda_device)
    outputs[:, 0] += 1.0
    gate = torch.rand(n, device=cuda_device) if gated else None
    directions = torch.nn.functional.normalize(normal(len(counts), 3, dtype=torch.float32, seed=1), dim=1)
    directions = directions.to(cuda_device)
    rows, numbers = torch.rand(n, 6, device=cuda_device), torch.rand(n, device=cuda_device)
    density = 0.9 * outputs[:, 0].exp() * (1.0 if gate is None else gate)
    expected = visible_part(density, met, "native")
    assert len(expected) < 0.7 * n

    def keep(capacity: int, n_rays_met: int) -> tuple[passes.Kept, list[int]]:
        scratch = passes.StepScratch(len(counts), cuda_device)
        scratch.counts[2] = n_rays_met
        kept = passes.keep_visible(
            met, outputs, gate, 0.9, reference.STOP, directions, 4, capacity, [rows, numbers], scratch
        )
        return kept, scratch.kept_counts.tolist()

    kept, (n_wanted, n_rows, n_whole, _) = keep(n, len(counts))
    # Products in another order: a ray may end one sample earlier or later.
    assert n_wanted == n_rows == int(kept.samples.offsets[-1])
    assert n_whole == len(counts)
    assert (kept.samples.offsets.diff() - expected.offsets.diff()).abs().sum() <= 2
    places = torch.cat(
        [
            torch.arange(first, first + n_kept, device=cuda_device)
            for first, n_kept in zip(met.offsets.tolist(), kept.samples.offsets.diff().tolist(), strict=False)
        ]
    )
    assert torch.equal(kept.samples.t[:n_rows], met.t[places])
    assert torch.equal(kept.samples.dt[:n_rows], met.dt[places])
    assert torch.equal(kept.rows[0][:n_rows], rows[places])
    assert torch.equal(kept.rows[1][:n_rows], numbers[places])
    assert torch.equal(kept.colour_inputs[:n_rows, :16], outputs[places])
    harmonics = native.sh_forward(directions, 4)[torch.repeat_interleave(kept.samples.offsets.diff())]
    torch.testing.assert_close(kept.colour_inputs[:n_rows, 16:], harmonics, rtol=0, atol=1e-6)

    capacity = n_rows // 3
    short, numbers_of = keep(capacity, 50)
    assert torch.equal(short.samples.offsets, kept.samples.offsets.clamp(max=capacity))
    fitting = int((kept.samples.offsets[1:] <= capacity).sum())
    assert numbers_of[:3] == [n_wanted, capacity, min(fitting, 50)]
    assert torch.equal(short.colour_inputs, kept.colour_inputs[:capacity])


@pytest.mark.parametrize("gated", [False, True])
def test_heads_are_those_of_the_cpu_and_leave_alone_what_is_not_in_use(gated: bool, cuda_device: torch.device) -> None:
    in_use, scale = N - 100, 0.3
    count = torch.tensor(in_use, dtype=torch.int32, device=cuda_device)
    outputs = 6.0 * normal(N, 5, dtype=torch.float32)
    logits, colour_inputs = normal(N, 3, dtype=torch.float32, seed=1), normal(N, 9, dtype=torch.float32, seed=2)
    gate = torch.rand(N, generator=torch.Generator().manual_seed(3)) if gated else None
    dL_ddensity, features = normal(N, dtype=torch.float32, seed=4), normal(N, 6, dtype=torch.float32, seed=5)

    def all_of(device: torch.device | str, used: Tensor | None) -> list[Tensor | None]:
        def at(tensor: Tensor) -> Tensor:
            return tensor.to(device)

        on_gate = None if gate is None else at(gate)
        density, rgb = native_step.activate(at(outputs), at(logits), scale, on_gate, used)
        of_logits = native_step.colour_gradients(rgb, at(logits), used)
        of_outputs = native_step.output_gradients(
            at(outputs), at(colour_inputs), at(dL_ddensity), scale, on_gate, 5, used
        )
        gated_features = native_step.gate_features(at(features), at(dL_ddensity), 0.7, used)
        of_gate = native_step.gate_gradients(
            at(features), at(dL_ddensity), 0.7, at(features) + 1.0, at(dL_ddensity), used
        )
        return [density, rgb, of_logits, *of_outputs, *gated_features, *of_gate]

    for found, expected in zip(all_of(cuda_device, count), all_of("cpu", None), strict=True):
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            # Exponentials of up to 15 in 32 bits.
            torch.testing.assert_close(found[:in_use].cpu(), expected[:in_use], rtol=2e-5, atol=1e-6)
    features_behind = features.to(cuda_device) + 1.0
    native_step.gate_gradients(
        features.to(cuda_device),
        dL_ddensity.to(cuda_device),
        0.7,
        features_behind,
        dL_ddensity.to(cuda_device),
        count,
    )
    assert torch.equal(features_behind[in_use:].cpu(), features[in_use:] + 1.0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("huber", "distortion_weight"), [(0.0, 0.0), (0.4, 0.3)])
def test_rays_cost_what_they_cost_on_the_cpu(
    weighted: bool, huber: float, distortion_weight: float, cuda_device: torch.device
) -> None:
    rgb, background, target = (normal(N, 3, dtype=torch.float32, seed=seed) for seed in range(3))
    alpha, distortion = (normal(N, dtype=torch.float32, seed=seed) for seed in (3, 4))
    weight = torch.rand(N, generator=torch.Generator().manual_seed(5)) if weighted else None

    def cost(device: torch.device | str, n: int, counts: Tensor | None) -> native_step.RayDifference:
        seen = Composited(
            *(tensor[:n].to(device) for tensor in (rgb, alpha, alpha, distortion)),
            torch.zeros(n, dtype=torch.int32, device=device),
        )
        return native_step.ray_difference(
            seen,
            background[:n].to(device),
            target[:n].to(device),
            weight=None if weight is None else weight[:n].to(device),
            huber=huber,
            distortion_weight=distortion_weight,
            counts=counts,
        )

    for n_whole in (N, N - 1000):
        counts = torch.tensor([0, 0, n_whole, 0], dtype=torch.int32, device=cuda_device)
        found, expected = cost(cuda_device, N, counts), cost("cpu", n_whole, None)
        # Of weights those of all rays are counted, of which rays that did not fit are a random part.
        share = 1e-5 if weight is None or n_whole == N else 0.05
        for name, value in vars(found).items():
            truth = getattr(expected, name)
            if value is None:
                assert truth is None
                continue
            close(value if value.ndim == 0 else value[:n_whole], truth, share)
            if value.ndim > 0:
                assert (value[n_whole:] == 0).all()


@pytest.mark.parametrize("hollow", [False, True], ids=["hashgrid", "hollownerf"])
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("all_losses", [False, True])
def test_gradients_by_hand_are_those_of_autograd(
    hollow: bool, name: str, all_losses: bool, cuda_device: torch.device
) -> None:
    space = SPACES[name]
    field = field_of(space, hollow, torch.float32).mapped(lambda t: t.detach().to(cuda_device).requires_grad_())
    batch = moved(batch_of(space, all_losses, torch.float32), cuda_device)
    grid = OccupancyGrid(space, StepRule(64, 1 / 64 if space.contract else 0.0), 16, cuda_device)
    weights = LossWeights(huber=0.1, distortion=0.3 if all_losses else 0.0, depth=0.2)
    bounds = bounds_along().to(cuda_device) if all_losses else None
    cost = cost_and_gradients(field, grid, NEAR, batch, weights, bounds, ROOM)
    expected = cost_of_rays(field, grid, NEAR, batch, weights, bounds)
    torch.stack(list(expected.terms.values())).sum().backward()
    assert isinstance(cost.counted, DeviceCounts)
    assert isinstance(expected.counted, SampleCounts)
    counts = cost.counted.read()
    assert counts.met == pytest.approx(expected.counted.met, rel=2e-3)
    assert counts.kept == pytest.approx(expected.counted.kept, rel=2e-3)
    for term, value in expected.terms.items():
        close(cost.terms[term], value, 1e-3)
    close(cost.squared_error, expected.squared_error, 1e-3)
    for parameter, leaf in field.parameters().items():
        assert leaf.grad is not None
        # 16 bits in the networks, in other groups of samples where a ray ends one earlier.
        close(cost.gradients[parameter], leaf.grad, 1e-2)


def test_rays_that_find_no_room_are_left_out(cuda_device: torch.device) -> None:
    space = SPACES["bounded"]
    field = field_of(space, False, torch.float32).mapped(lambda t: t.detach().to(cuda_device))
    batch = moved(batch_of(space, False, torch.float32), cuda_device)
    grid = OccupancyGrid(space, StepRule(64), 16, cuda_device)
    weights = LossWeights(0.1, 0.0, 0.0)
    whole = look(field, grid, batch.rays, batch.jitter, NEAR, ROOM)
    assert whole.counts is not None
    room = Room(met=ROOM.met, kept=int(whole.samples.offsets[100]) + 3)
    first = {name: value[:100] for name, value in vars(batch).items() if isinstance(value, Tensor)}
    part = replace(batch, rays=batch.rays.part(slice(100)), **first)
    cost = cost_and_gradients(field, grid, NEAR, batch, weights, None, room)
    expected = cost_and_gradients(field, grid, NEAR, part, weights, None, ROOM)
    close(cost.terms["image"], expected.terms["image"], 1e-5)
    for name, gradient in expected.gradients.items():
        close(cost.gradients[name], gradient, 5e-3)
    assert isinstance(cost.counted, DeviceCounts)
    assert isinstance(whole.counted, DeviceCounts)
    assert cost.counted.read() == whole.counted.read()


@pytest.mark.parametrize("space", VISITED_SPACES)
def test_the_cells_visited_are_those_of_the_cpu(space: Space, cuda_device: torch.device) -> None:
    cells, learnable = grid_of_cells(space)
    on_device = replace(cells, bits=cells.bits.to(cuda_device))
    occupied, found = native_step.occupied_cells(cells), native_step.occupied_cells(on_device)
    assert found[1] is not None
    assert torch.equal(found[0][: int(found[1])].cpu(), occupied[0])
    for n_visits in (len(learnable), 1000):
        part = range(100, n_visits)
        expected = native_step.visit_cells(cells, learnable, occupied, 5, n_visits=n_visits, part=part)
        visited = native_step.visit_cells(on_device, learnable.to(cuda_device), found, 5, n_visits=n_visits, part=part)
        assert torch.equal(visited[0].cpu(), expected[0])
        torch.testing.assert_close(visited[1].cpu(), expected[1], rtol=0, atol=1e-6)


def test_sparse_rows_without_a_gradient_stay_as_on_the_cpu(cuda_device: torch.device) -> None:
    shape = (5003, 2)
    parameter, gradient = normal(*shape, dtype=torch.float32), normal(*shape, dtype=torch.float32, seed=1)
    gradient[torch.rand(5003, generator=torch.Generator().manual_seed(2)) > 0.3] = 0.0
    gradient[9] = torch.tensor([0.0, 1e-30])
    gradient[10] = torch.tensor([torch.nan, 0.0])
    moved_to = {}
    for device in ("cpu", cuda_device):
        value = parameter.to(device, copy=True)
        tensor = AdamTensor(value, torch.ones_like(value), torch.ones_like(value))
        dropped = DroppedRows(device)
        RowAdam([tensor], sparse=True).step([gradient.to(device)], [0.01], 2, dropped=dropped)
        assert int(dropped.n_rows) == 1
        moved_to[str(device)] = value.cpu()
    cpu, cuda = moved_to.values()
    assert torch.equal(cuda != parameter, cpu != parameter)
    torch.testing.assert_close(cuda, cpu, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hollow", [False, True], ids=["hashgrid", "hollownerf"])
def test_a_field_learns_as_many_samples_as_it_was_asked_for(hollow: bool, tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy", n_train=12, with_alpha=True)
    config = replace(field_config(toy, steps=80, hollow=hollow), device="cuda")
    training = training_of(config, toy, tmp_path / "run")
    method = training.method
    assert isinstance(method, FieldMethod)
    with RayFeed(training, method) as feed:
        errors = [float(train_step(training, feed).squared_error) for _ in range(80)]
    assert method.n_samples == pytest.approx(method.config.training.samples, rel=0.3)
    assert sum(errors[-10:]) < 0.5 * sum(errors[:10])
    assert int(training.optimizer.n_dropped_rows) == 0
