"""Checkpoints are whole or absent, and say what is wrong with them."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from kinosplat.errors import InputError
from kinosplat.trainers import checkpoint as module
from kinosplat.trainers.callbacks import Callbacks, StepProgress
from kinosplat.trainers.checkpoint import DTYPES, Checkpoint, checkpoint_path, load_checkpoint, save_checkpoint
from kinosplat.trainers.config import CheckpointConfig
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.run import read_config, resume, train
from kinosplat.trainers.serialize import write_config

from .toys import Toy, tiny_config

ONE = Checkpoint({"means": torch.arange(6.0).reshape(2, 3)}, {"method": "3dgs", "step": 1})
TWO = Checkpoint({"means": torch.zeros(2, 3)}, {"method": "3dgs", "step": 2})


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, ONE)
    loaded = load_checkpoint(path, "3dgs")
    assert loaded.tensors["means"].equal(ONE.tensors["means"])
    assert loaded.metadata["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]


def test_others_can_read_what_is_saved(tmp_path: Path) -> None:
    """The file is written without the library, which must find every type of number, and tensors without any."""
    tensors = {f"of {name}": torch.arange(-3, 3).reshape(2, 3).to(dtype) for dtype, name in DTYPES.items()}
    tensors |= {"number": torch.tensor(2.5), "empty": torch.zeros(0, 3), "turned": torch.arange(6.0).reshape(2, 3).T}
    save_checkpoint(tmp_path / "a", Checkpoint(tensors, {"step": 1, "name": "é"}))
    found = safetensors.torch.load_file(tmp_path / "a")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].equal(tensor), name
    assert load_checkpoint(tmp_path / "a").metadata["name"] == "é"


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, ONE)

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "fsync", no_space)
        with pytest.raises(InputError) as error:
            save_checkpoint(path, TWO)
    assert str(error.value) == (
        f"{path} could not be written (No space left on device), the file that was there is kept; "
        "make room there or choose another --out-dir."
    )
    assert load_checkpoint(path).metadata["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]


def test_a_disk_that_fills_up_while_training_loses_nothing(
    still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(ThreeDGS(), still_toy, steps=15)
    original = module.write_atomically
    saved: list[Path] = []

    def full_after_the_first(path: Path, *parts: bytes | memoryview) -> None:
        if path.name == "last.safetensors" and path in saved:
            with monkeypatch.context() as patched:
                patched.setattr(module.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
                original(path, *parts)
        saved.append(path)
        original(path, *parts)

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_atomically", full_after_the_first)
        with pytest.raises(InputError, match=r"could not be written \(full\), the file that was there is kept"):
            train(config, still_toy.scene(), tmp_path / "run")
    assert load_checkpoint(checkpoint_path(tmp_path / "run")).metadata["step"] == 10
    assert resume(tmp_path / "run").steps == 15


def test_a_checkpoint_of_another_method_is_refused(still_toy: Toy, tmp_path: Path) -> None:
    train(tiny_config(ThreeDGS(), still_toy, steps=2), still_toy.scene(), tmp_path)
    write_config(tmp_path, tiny_config(FourDGS(), still_toy, steps=2))
    with pytest.raises(InputError) as error:
        resume(tmp_path)
    assert str(error.value) == (
        f"{checkpoint_path(tmp_path)} is a checkpoint of method 3dgs, not of 4dgs; "
        "resume with --method 3dgs or start a new run."
    )


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, ONE)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError) as error:
        load_checkpoint(path)
    assert str(error.value) == f"{path} is not a whole safetensors file; use the other checkpoint of the run."


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError) as error:
        load_checkpoint(path)
    assert str(error.value) == f"{path} is not a checkpoint of kinosplat; give the folder of a run."


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_checkpoint(tmp_path / "last.safetensors")
    assert str(error.value) == (
        f"{tmp_path / 'last.safetensors'} does not exist; give the folder of a run that has saved a checkpoint."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ('{"schedule": {"stepps": 3}}', "schedule.stepps is not an option of this version"),
        ('{"schedule": {"steps": "many"}}', "schedule.steps cannot be 'many'"),
        ('{"method": {"name": "5dgs"}}', "method cannot be {'name': '5dgs'}"),
        ("[]", "the file must be an object"),
    ],
)
def test_an_ill_formed_config_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError) as error:
        read_config(tmp_path)
    assert str(tmp_path / "config.json") in str(error.value)
    assert message in str(error.value)


def test_a_config_is_read_back_as_it_was(still_toy: Toy, tmp_path: Path) -> None:
    config = tiny_config(FourDGS(), still_toy)
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config


def test_without_a_number_of_steps_a_run_is_saved_every_half_minute(
    still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("kinosplat.trainers.clock.time.monotonic", lambda: now)
    saved: list[int] = []

    class TenSecondsAStep(Callbacks):
        def stepped(self, progress: StepProgress) -> None:
            nonlocal now
            now += 10.0

        def saved(self, step: int, path: Path) -> None:
            saved.append(step)

    config = tiny_config(ThreeDGS(densify="none"), still_toy, steps=8)
    config = replace(config, checkpoints=CheckpointConfig(log_every=1))
    train(config, still_toy.scene(), tmp_path, TenSecondsAStep())
    assert saved == [3, 6, 8]
