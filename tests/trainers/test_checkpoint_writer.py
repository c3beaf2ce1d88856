"""Checkpoints are written beside training: a slow disk stops no step, and what goes wrong is said where training is."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
import torch

from kinosplat.errors import InputError
from kinosplat.trainers import checkpoint, checkpoint_writer
from kinosplat.trainers.callbacks import Callbacks, StepProgress
from kinosplat.trainers.checkpoint import Checkpoint, checkpoint_path, load_checkpoint
from kinosplat.trainers.checkpoint_writer import CheckpointWriter
from kinosplat.trainers.methods.config import ThreeDGS
from kinosplat.trainers.run import Overrides, resume, train

from .toys import Toy, tiny_config

PATIENCE = 20.0
"""Seconds after which a test that waits for something has failed."""


class SlowDisk:
    """Holds every file up until it is let go; each thread that comes first says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_busy, self.is_free = threading.Event(), threading.Event()
        self.is_alone = True
        monkeypatch.setattr(checkpoint.os, "fsync", self._fsync)

    def _fsync(self, descriptor: int) -> None:
        self.is_alone &= not self.is_busy.is_set() or self.is_free.is_set()
        self.is_busy.set()
        assert self.is_free.wait(PATIENCE), "nobody let go of the disk"


def no_space(descriptor: int) -> None:
    """What a full disk says when a file is flushed to it."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def one(step: int) -> Checkpoint:
    return Checkpoint({"means": torch.full((5, 3), float(step))}, {"method": "3dgs", "step": step})


def test_steps_go_on_while_a_disk_is_slow(still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Watch(Callbacks):
        disk: SlowDisk | None = None

        def stepped(self, progress: StepProgress) -> None:
            if progress.step == 9:
                self.disk = SlowDisk(monkeypatch)
            elif progress.step == 14:
                assert self.disk is not None
                assert self.disk.is_busy.wait(PATIENCE)
                told.append("four steps later it is still being written")
                self.disk.is_free.set()

        def saved(self, step: int, path: Path) -> None:
            told.append(f"step {step} is saved")

    config = tiny_config(ThreeDGS(), still_toy, steps=16)
    train(config, still_toy.scene(), tmp_path / "run", Watch())
    assert told == ["four steps later it is still being written", "step 10 is saved", "step 16 is saved"]


def test_a_disk_that_fails_stops_training_in_one_sentence(
    still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullAfterStep(Callbacks):
        last = 0

        def stepped(self, progress: StepProgress) -> None:
            self.last = progress.step
            if progress.step == 15:
                monkeypatch.setattr(checkpoint.os, "fsync", no_space)

    run, watch = tmp_path / "run", FullAfterStep()
    config = tiny_config(ThreeDGS(), still_toy, steps=5000)
    with pytest.raises(InputError) as error:
        train(config, still_toy.scene(), run, watch)
    assert str(error.value) == (
        f"{checkpoint_path(run)} could not be written (No space left on device), the file that was there is kept; "
        "make room there or choose another --out-dir."
    )
    assert 20 <= watch.last <= 30  # at the latest when the next one is due
    assert load_checkpoint(checkpoint_path(run)).metadata["step"] == 10
    monkeypatch.undo()
    assert resume(run, Overrides(steps=24)).steps == 24


def test_what_changes_afterwards_is_not_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, written = SlowDisk(monkeypatch), []
    state = one(1)
    with CheckpointWriter() as writer:
        writer.begin(tmp_path / "a", state, lambda: written.append(1))
        state.tensors["means"].zero_()
        state.metadata["step"] = 7
        writer.poll()
        assert written == []
        disk.is_free.set()
    assert written == [1]
    loaded = load_checkpoint(tmp_path / "a")
    assert loaded.metadata["step"] == 1
    assert (loaded.tensors["means"] == 1).all()


def test_the_second_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(monkeypatch)
    with CheckpointWriter() as writer:
        writer.begin(tmp_path / "a", one(1))
        assert disk.is_busy.wait(PATIENCE)
        threading.Timer(0.1, disk.is_free.set).start()
        writer.begin(tmp_path / "a", one(2))
    assert disk.is_alone
    assert load_checkpoint(tmp_path / "a").metadata["step"] == 2


def test_without_memory_for_a_copy_it_is_written_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_writer, "free_memory_bytes", lambda: 100)
    written: list[int] = []
    writer = CheckpointWriter()
    writer.begin(tmp_path / "a", one(1), lambda: written.append(1))
    assert written == [1]
    assert load_checkpoint(tmp_path / "a").metadata["step"] == 1


def test_an_error_of_training_is_not_hidden_by_one_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint.os, "fsync", no_space)

    def save_and_raise(*errors: Exception) -> None:
        with CheckpointWriter() as writer:
            writer.begin(tmp_path / "a", one(1))
            for error in errors:
                raise error

    with pytest.raises(RuntimeError, match="power cut"):
        save_and_raise(RuntimeError("power cut"))
    with pytest.raises(InputError, match="nothing was kept"):
        save_and_raise()
