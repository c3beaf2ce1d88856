"""Memory that cannot suffice is noticed before training; when it ends meanwhile, half the batch goes, not the run."""

from __future__ import annotations

import ctypes
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kinosplat.errors import InputError
from kinosplat.trainers import memory
from kinosplat.trainers.callbacks import Callbacks
from kinosplat.trainers.checkpoint import checkpoint_path, load_checkpoint
from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.memory import needs_of
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.methods.gaussians import GaussianMethod
from kinosplat.trainers.methods.presets import resolve
from kinosplat.trainers.recorder import read_metrics
from kinosplat.trainers.run import resume, train
from kinosplat.trainers.utilisation import Utilisation

from .toys import Toy, tiny_config, with_options


def with_batch(config: TrainConfig, batch_size: int) -> TrainConfig:
    return replace(config, schedule=replace(config.schedule, batch_size=batch_size))


class Listener(Callbacks):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warned(self, text: str) -> None:
        self.warnings.append(text)


def fail_in(monkeypatch: pytest.MonkeyPatch, name: str, calls: set[int]) -> None:
    """Let these calls of a method of GaussianMethod, counted from 1, find no memory."""
    original = getattr(GaussianMethod, name)
    n_calls = 0

    def sometimes(self: GaussianMethod, *arguments: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls in calls:
            raise torch.OutOfMemoryError("injected")
        return original(self, *arguments)

    monkeypatch.setattr(GaussianMethod, name, sometimes)


def test_the_estimate_counts_parameters_gradients_and_moments(still_toy: Toy, moving_toy: Toy) -> None:
    for method, toy, n_numbers in (
        (ThreeDGS(), still_toy, 59),
        (FourDGS(), still_toy, 59),
        (FourDGS(), moving_toy, 64),
    ):
        config = resolve(TrainConfig(method=method))
        needs = needs_of(config, toy.scene())
        assert needs.a_gaussian == 16 * n_numbers + 80
        assert needs.of(10) == 10 * needs.a_gaussian + 112 * 48 * 36
    assert needs_of(with_batch(config, 3), toy.scene()).a_gaussian == 16 * 64 + 3 * 80


@pytest.mark.parametrize(
    ("batch_size", "free", "text"),
    [
        (
            1,
            10**9,
            "--max-gaussians 10000000 needs 9.5 GiB, but this machine has 0.9 GiB free; lower it to 976373 or less.",
        ),
        (
            2,
            10**9,
            "--max-gaussians 10000000 needs 10.3 GiB, but this machine has 0.9 GiB free; "
            "lower it to 905446 or less, or lower --batch-size from 2.",
        ),
        (
            1,
            10**5,
            "--max-gaussians 10000000 needs 9.5 GiB, but this machine has 0.0 GiB free; "
            "make the pictures smaller with --downscale.",
        ),
    ],
)
def test_a_cap_that_cannot_fit_is_refused_before_anything_is_written(
    batch_size: int, free: int, text: str, still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory_bytes", lambda: free)
    config = with_batch(tiny_config(ThreeDGS(), still_toy), batch_size)
    config = replace(config, method=with_options(ThreeDGS(), max_gaussians=10_000_000))
    with pytest.raises(InputError) as caught:
        train(config, still_toy.scene(), tmp_path / "run")
    assert str(caught.value) == text
    assert not (tmp_path / "run").exists()


def test_a_step_without_memory_is_done_again_with_half_the_batch(
    still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_in(monkeypatch, "loss", {5})
    listener = Listener()
    config = with_batch(tiny_config(ThreeDGS(), still_toy, steps=8), 4)
    report = train(config, still_toy.scene(), tmp_path, listener)
    assert report.steps == 8
    assert listener.warnings == [
        "Step 4: there is no memory left for 49 Gaussians and batches of 4; going on with batches of 2."
    ]
    assert json.loads((tmp_path / "config.json").read_text())["schedule"]["batch_size"] == 2
    steps = [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "train"]
    assert steps == list(range(1, 9))


@pytest.mark.parametrize(("batch_size", "calls", "left"), [(1, {5}, 1), (4, {5, 7}, 2)])
def test_when_that_does_not_help_the_run_is_saved_and_ends_with_a_sentence(
    batch_size: int, calls: set[int], left: int, still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_in(patch, "loss", calls)
        config = with_batch(tiny_config(ThreeDGS(densify="none"), still_toy, steps=8), batch_size)
        with pytest.raises(InputError) as caught:
            train(config, still_toy.scene(), tmp_path)
    step = max(calls) - len(calls)
    assert str(caught.value) == (
        f"There is no memory left for 40 Gaussians and batches of {left} at step {step}, which is saved in {tmp_path}; "
        "start again with a lower --max-gaussians, --batch-size or --resolution."
    )
    assert load_checkpoint(checkpoint_path(tmp_path)).metadata["step"] == step
    assert resume(tmp_path).steps == 8


def test_memory_that_ends_while_gaussians_change_leaves_the_last_checkpoint_alone(
    still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_in(monkeypatch, "after_step", {15})
    config = tiny_config(ThreeDGS(densify="none"), still_toy, steps=20)
    with pytest.raises(InputError) as caught:
        train(config, still_toy.scene(), tmp_path)
    assert str(caught.value) == (
        f"There is no memory left to change 40 Gaussians at step 14; the last checkpoint in {tmp_path} is whole, "
        "start again with a lower --max-gaussians."
    )
    assert load_checkpoint(checkpoint_path(tmp_path)).metadata["step"] == 10


class FakeNvml:
    """Says 50, then 100 percent."""

    def __init__(self, known: bool = True) -> None:
        self.answers = [50, 100]
        self.known = known

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        assert uuid == b"GPU-1234"
        return 0 if self.known else 6

    def nvmlDeviceGetUtilizationRates(self, handle: Any, rates: Any) -> int:
        if not self.answers:
            return 3
        ctypes.cast(rates, ctypes.POINTER(ctypes.c_uint))[0] = self.answers.pop(0)
        return 0


def test_utilisation_is_the_mean_of_what_the_driver_says_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("kinosplat.trainers.utilisation.time.monotonic", lambda: now)

    class Properties:
        uuid = "1234"

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    utilisation = Utilisation(torch.device("cuda"), FakeNvml())
    assert utilisation.mean is None
    for _ in range(40):
        utilisation.sample()
        now += 0.1
    assert utilisation.mean == pytest.approx(0.75)
    assert Utilisation(torch.device("cuda"), FakeNvml(known=False)).mean is None


def test_nothing_is_said_of_the_utilisation_of_a_processor(still_toy: Toy, tmp_path: Path) -> None:
    report = train(tiny_config(ThreeDGS(), still_toy, steps=1), still_toy.scene(), tmp_path)
    assert report.device_utilisation is None
