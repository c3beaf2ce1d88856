"""When memory ends, pictures on the device go first, then half the work of a step, and never what was learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kinosplat.cli import main, train_main
from kinosplat.commands import train as train_command
from kinosplat.errors import InputError
from kinosplat.trainers import run as runs
from kinosplat.trainers.callbacks import Callbacks
from kinosplat.trainers.checkpoint import checkpoint_path, load_checkpoint
from kinosplat.trainers.config import EvaluationConfig
from kinosplat.trainers.feed import PictureFeed
from kinosplat.trainers.methods.config import ThreeDGS
from kinosplat.trainers.methods.gaussians import GaussianMethod
from kinosplat.trainers.methods.hash_grid import FieldMethod
from kinosplat.trainers.recorder import read_metrics
from kinosplat.trainers.run import resume, train

from .test_fields import field_config
from .toys import Toy, tiny_config, with_batch

NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Listener(Callbacks):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warned(self, text: str) -> None:
        self.warnings.append(text)


def fail_in(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: set[int], error: Exception = NO_MEMORY
) -> None:
    """Let these calls of something, counted from 1, find no memory."""
    original = getattr(owner, name)
    n_calls = 0

    def sometimes(*arguments: Any, **options: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls in calls:
            raise error
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, sometimes)


def test_a_step_without_memory_is_done_again_with_half_the_batch(
    still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_in(monkeypatch, GaussianMethod, "loss", {5})
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
        fail_in(patch, GaussianMethod, "loss", calls)
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
    fail_in(monkeypatch, GaussianMethod, "after_step", {15})
    config = tiny_config(ThreeDGS(densify="none"), still_toy, steps=20)
    with pytest.raises(InputError) as caught:
        train(config, still_toy.scene(), tmp_path)
    assert str(caught.value) == (
        f"There is no memory left to change 40 Gaussians at step 14; the last checkpoint in {tmp_path} is whole, "
        "start again with a lower --max-gaussians, --batch-size or --resolution."
    )
    assert load_checkpoint(checkpoint_path(tmp_path)).metadata["step"] == 10


@pytest.mark.parametrize(
    "error",
    [
        NO_MEMORY,
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_field_without_memory_goes_on_with_half_the_samples(
    error: Exception, still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_in(patch, FieldMethod, "loss", {3, 5}, error)
        listener = Listener()
        with pytest.raises(InputError) as caught:
            train(field_config(still_toy, steps=8), still_toy.scene(), tmp_path, listener)
    n_entries = 6 * 2**12
    assert listener.warnings == [
        f"Step 2: there is no memory left for {n_entries} table entries and steps of 4096 samples; "
        "going on with steps of 2048 samples."
    ]
    assert str(caught.value) == (
        f"There is no memory left for {n_entries} table entries and steps of 2048 samples at step 3, which is saved in "
        f"{tmp_path}; start again with a lower --samples or --log2-table-size."
    )
    assert json.loads((tmp_path / "config.json").read_text())["method"]["training"]["samples"] == 2048
    assert resume(tmp_path).steps == 8


def test_other_errors_of_a_step_are_not_taken_for_a_lack_of_memory(
    still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_in(monkeypatch, GaussianMethod, "loss", {2}, RuntimeError("a fault of ours"))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        train(tiny_config(ThreeDGS(), still_toy), still_toy.scene(), tmp_path)


def test_pictures_on_the_device_go_before_half_of_the_batch(
    still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_device = [3 * 2**20, 0]
    monkeypatch.setattr(PictureFeed, "make_room", lambda feed: on_device.pop(0))
    fail_in(monkeypatch, GaussianMethod, "loss", {3, 5})
    listener = Listener()
    config = with_batch(tiny_config(ThreeDGS(densify="none"), still_toy, steps=6), 2)
    assert train(config, still_toy.scene(), tmp_path, listener).steps == 6
    assert listener.warnings == [
        "Step 2: there is no memory left for 40 Gaussians and batches of 2; "
        "going on without the 3 MiB of pictures that lay ready on the device.",
        "Step 3: there is no memory left for 40 Gaussians and batches of 2; going on with batches of 1.",
    ]


@pytest.mark.parametrize(
    ("owner", "name", "sentence"),
    [
        (
            runs,
            "first_points",
            "There is no memory left to find first points; make the pictures smaller with --downscale, or make room on "
            "the device.",
        ),
        (
            GaussianMethod,
            "create",
            "There is no memory left for the first Gaussians; start with a lower --max-gaussians, --batch-size or "
            "--resolution.",
        ),
    ],
)
def test_without_memory_for_a_beginning_nothing_is_written(
    owner: Any, name: str, sentence: str, still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_in(monkeypatch, owner, name, {1})
    with pytest.raises(InputError) as caught:
        train(tiny_config(ThreeDGS(), still_toy), still_toy.scene(), tmp_path / "run")
    assert str(caught.value) == sentence
    assert not (tmp_path / "run").exists()


def test_without_memory_for_pictures_the_run_can_be_resumed(
    still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_in(patch, PictureFeed, "__init__", {1}, MemoryError())
        with pytest.raises(InputError) as caught:
            train(tiny_config(ThreeDGS(), still_toy, steps=3), still_toy.scene(), tmp_path)
    assert str(caught.value) == (
        f"There is no memory left for the pictures; take {tmp_path} up again with --resume and a lower --cache-memory."
    )
    assert resume(tmp_path).steps == 3


def test_an_evaluation_without_memory_costs_nothing_that_was_learned(
    still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_in(monkeypatch, GaussianMethod, "render", {1})
    config = replace(
        tiny_config(ThreeDGS(), still_toy), evaluation=EvaluationConfig(evaluate_every=5, save_test_renders=False)
    )
    with pytest.raises(InputError) as caught:
        train(config, still_toy.scene(), tmp_path)
    assert str(caught.value) == (
        f"There is no memory left to measure held-out views at step 5, which is saved in {tmp_path}; "
        "start again with a lower --max-gaussians, --batch-size or --resolution."
    )
    assert load_checkpoint(checkpoint_path(tmp_path)).metadata["step"] == 5


def test_what_could_not_be_measured_in_the_end_can_be_measured_elsewhere(
    still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_in(patch, GaussianMethod, "render", {1})
        with pytest.raises(InputError) as caught:
            train(tiny_config(ThreeDGS(), still_toy, steps=4), still_toy.scene(), tmp_path)
    assert str(caught.value) == (
        f"There is no memory left to measure the held-out views; the trained run is saved in {tmp_path}, and --resume "
        "with --device cpu measures it."
    )
    assert resume(tmp_path).psnr is not None


def test_commands_without_memory_end_in_a_sentence(
    still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    train(tiny_config(ThreeDGS(), still_toy, steps=2), still_toy.scene(), folder)
    capsys.readouterr()

    def refused(command: list[str]) -> str:
        fail_in(monkeypatch, GaussianMethod, "render", {1})
        fail_in(monkeypatch, GaussianMethod, "gaussians", {1})
        assert main(command) == 2
        return capsys.readouterr().err.removeprefix("kinosplat: ").strip()

    smaller = "make the pictures smaller with --resolution, or use another device with --device cpu."
    elsewhere = "use another device with --device cpu."
    assert refused(["render", str(folder)]) == f"There is not enough memory for `kinosplat render`; {smaller}"
    assert refused(["eval", str(folder)]) == f"There is not enough memory for `kinosplat eval`; {elsewhere}"
    assert refused(["compress", str(folder)]) == f"There is not enough memory for `kinosplat compress`; {elsewhere}"


def test_a_run_that_could_not_be_compressed_is_complete(
    still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_in(monkeypatch, train_command, "compress_run", {1})
    folder = tmp_path / "run"
    command = ["--scene", str(still_toy.folder), "--method", "3dgs", "--run-dir", str(folder), "--quiet"]
    command += ["--steps", "2", "--max-gaussians", "80", "--device", "cpu", "--compress", "small"]
    assert train_main(command) == 2
    assert capsys.readouterr().err == (
        f"kinosplat: There is no memory left to compress the run, which is complete in {folder}; "
        f"`kinosplat compress {folder} --device cpu` makes its file.\n"
    )
    assert (folder / "report.json").exists()
