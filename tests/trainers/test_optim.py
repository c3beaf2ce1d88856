"""Adam over rows: what is skipped, what is dropped, and what moves along when rows are edited."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kinosplat.trainers import training as training_module
from kinosplat.trainers.clock import Clock, Moment
from kinosplat.trainers.methods.config import ThreeDGS
from kinosplat.trainers.optim import Group, Optimizer, append_rows, assign_rows, exponential_decay, keep_rows
from kinosplat.trainers.recorder import read_metrics
from kinosplat.trainers.run import train

from .toys import Toy, tiny_config

START = Moment(0, 0.0, 0.1)


def two_groups() -> list[Group]:
    """Three rows in two tensors of one row set, with moments that name their row."""
    groups = [
        Group("a", torch.zeros(3, 2), exponential_decay(0.1, 0.1), rows="things"),
        Group("b", torch.zeros(3), exponential_decay(0.1, 0.1), rows="things"),
    ]
    for group in groups:
        for row in range(3):
            group.exp_avg[row] = row + 1.0
            group.exp_avg_sq[row] = 10.0 * (row + 1.0)
    return groups


def test_adam_takes_steps_of_the_learning_rate_at_first() -> None:
    group = Group("a", torch.zeros(2, 3), exponential_decay(0.1, 0.1), rows="things")
    group.parameter.grad = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
    Optimizer([group]).step(START, {})
    # Adam's first step is lr * sign(gradient); measured difference 1e-8.
    assert group.parameter.detach().allclose(-0.1 * torch.tensor([[1.0, -1, 1], [1, 1, -1]]), atol=1e-6)


def test_rows_that_were_not_touched_keep_value_and_moments() -> None:
    groups = two_groups()
    for group in groups:
        group.parameter.grad = torch.ones_like(group.parameter)
    other = Group("c", torch.zeros(3), exponential_decay(0.1, 0.1), rows="others")
    other.parameter.grad = torch.ones(3)
    Optimizer([*groups, other]).step(START, {"things": torch.tensor([True, False, True])})
    for group in groups:
        assert (group.parameter.detach().reshape(3, -1) != 0).all(dim=1).tolist() == [True, False, True]
    assert groups[0].exp_avg[1].tolist() == [2.0, 2.0]
    assert (other.parameter.detach() != 0).all()


def test_a_gradient_that_is_not_finite_drops_its_row_in_all_tensors_and_is_counted() -> None:
    groups = two_groups()
    for group in groups:
        group.parameter.grad = torch.ones_like(group.parameter)
    groups[0].parameter.grad[1, 0] = float("nan")
    groups[1].parameter.grad[2] = float("inf")
    optimizer = Optimizer(groups)
    optimizer.step(START, {})
    for group in groups:
        assert torch.isfinite(group.parameter).all()
        assert (group.parameter.detach().reshape(3, -1) != 0).all(dim=1).tolist() == [True, False, False]
    assert int(optimizer.n_dropped_rows) == 2
    assert int(optimizer.n_dropped_steps) == 1


def test_a_gradient_of_another_row_set_does_not_drop_rows() -> None:
    groups = [*two_groups(), Group("camera", torch.zeros(3, 6), exponential_decay(0.1, 0.1), rows="cameras")]
    for group in groups:
        group.parameter.grad = torch.ones_like(group.parameter)
    groups[2].parameter.grad[0] = float("nan")
    Optimizer(groups).step(START, {})
    assert (groups[0].parameter.detach() != 0).all()
    assert (groups[2].parameter.detach()[0] == 0).all()


def test_appended_rows_start_without_moments() -> None:
    groups = two_groups()
    append_rows(groups, {"a": torch.full((2, 2), 7.0), "b": torch.full((2,), 8.0)})
    assert groups[0].parameter.tolist()[3:] == [[7.0, 7.0], [7.0, 7.0]]
    assert groups[1].exp_avg.tolist() == [1.0, 2.0, 3.0, 0.0, 0.0]
    assert groups[1].parameter.is_leaf
    assert groups[1].parameter.requires_grad


def test_moments_follow_their_rows_when_others_go() -> None:
    groups = two_groups()
    keep_rows(groups, torch.tensor([True, False, True]))
    assert groups[0].exp_avg[:, 0].tolist() == [1.0, 3.0]
    assert groups[1].exp_avg_sq.tolist() == [10.0, 30.0]


def test_rows_that_get_new_values_forget_their_moments_and_others_do_not() -> None:
    groups = two_groups()
    assign_rows(groups, torch.tensor([2]), {"b": torch.tensor([5.0])})
    assert groups[1].parameter.tolist() == [0.0, 0.0, 5.0]
    assert groups[1].exp_avg.tolist() == [1.0, 2.0, 0.0]
    assert groups[0].exp_avg[2].tolist() == [3.0, 3.0]


def test_rates_decay_geometrically_after_a_linear_warm_up() -> None:
    rate = exponential_decay(1.0, 0.01, warm_up=0.1)
    assert rate(0.0) == 0.0
    assert rate(0.05) == pytest.approx(0.5 * 0.01**0.05)
    assert rate(0.5) == pytest.approx(0.1)
    assert rate(1.0) == pytest.approx(0.01)
    held = exponential_decay(1.0, 0.01, warm_up=0.1, hold=0.6)
    assert [held(progress) for progress in (0.1, 0.6, 0.8, 1.0)] == pytest.approx([1.0, 1.0, 0.1, 0.01])


def test_names_of_groups_must_differ() -> None:
    with pytest.raises(ValueError, match="distinct names"):
        Optimizer([*two_groups(), *two_groups()])


def test_dropped_gradients_reach_metrics_warnings_and_report(
    still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kinosplat.trainers.callbacks import Callbacks
    from kinosplat.trainers.methods import gaussian_step as module

    original = module.compare_and_differentiate
    calls = 0

    def sometimes_broken(drawing, batch, config):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        losses, gradients = original(drawing, batch, config)
        if calls == 3:
            gradients.gaussians["means"].fill_(float("nan"))
        return losses, gradients

    class Listener(Callbacks):
        warnings: list[str] = []  # noqa: RUF012

        def warned(self, text: str) -> None:
            self.warnings.append(text)

    monkeypatch.setattr(module, "compare_and_differentiate", sometimes_broken)
    config = replace(tiny_config(ThreeDGS(densify="none"), still_toy, steps=6))
    report = train(config, still_toy.scene(), tmp_path / "run", Listener())
    assert report.n_steps_with_dropped_gradients == 1
    assert 0 < report.n_dropped_gradients <= 40
    counts = [
        line["n_dropped_rows"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"
    ]
    assert counts == [0, 0] + 4 * [report.n_dropped_gradients]
    assert Listener.warnings == [
        f"Step 3: gradients that are not finite were dropped for {report.n_dropped_gradients} rows so far; "
        "the report will have the total."
    ]
    assert report.psnr is not None
    assert report.psnr > 10.0


def test_progress_follows_steps_alone_without_a_time_limit() -> None:
    clock = Clock(10, None)
    moments = [clock.moment(step) for step in range(10)]
    assert [moment.progress for moment in moments] == [step / 10 for step in range(10)]
    assert [moment.step for moment in moments if moment.crosses(5)] == [1, 3, 5, 7, 9]
    assert clock.is_over(10)
    assert not clock.is_over(9)


def test_short_runs_learn_faster_and_time_limits_count_the_steps_they_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Clock(30_000, None).moment(0).haste == 1.0
    assert Clock(60_000, None).moment(0).haste == 1.0
    assert Clock(7_500, None).moment(0).haste == pytest.approx(2.0)
    assert Clock(10, None).moment(0).haste == 8.0
    now = 0.0
    monkeypatch.setattr("kinosplat.trainers.clock.time.monotonic", lambda: now)
    clock = Clock(30_000, 1000.0)
    hastes = []
    for step in range(100):
        hastes.append(clock.moment(step).haste)
        now += 0.5
    # Until the speed is known the number of steps is; then a thousand seconds hold 2000 of them.
    assert hastes[:20] == [1.0] * 20
    assert hastes[20:] == pytest.approx([math.sqrt(15.0)] * 80)
    group = Group("a", torch.zeros(1, 1), exponential_decay(0.1, 0.1), rows="things", hastens=True)
    group.parameter.grad = torch.ones(1, 1)
    Optimizer([group]).step(Moment(0, 0.0, 0.1, haste=2.0), {})
    assert group.parameter.item() == pytest.approx(-0.2)


def test_progress_follows_the_clock_when_time_is_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("kinosplat.trainers.clock.time.monotonic", lambda: now)
    clock = Clock(1000, 10.0)
    clock.moment(0)
    now += 5.0
    assert clock.moment(1).following == pytest.approx(0.5)
    now += 5.0
    assert clock.is_over(2)
    clock.exclude(4.0)
    assert not clock.is_over(2)
    assert clock.elapsed == pytest.approx(6.0)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="--device cuda needs a CUDA device"):
        training_module.choose_device("cuda")
    with pytest.raises(ValueError, match="--device abacus is no device"):
        training_module.choose_device("abacus")
    assert training_module.choose_device("auto").type == "cpu"
