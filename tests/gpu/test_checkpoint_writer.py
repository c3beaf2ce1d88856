"""A checkpoint of a GPU's tensors is what they were when it was asked for, whatever the stream does to them next."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kinosplat.trainers.checkpoint import Checkpoint, load_checkpoint
from kinosplat.trainers.checkpoint_writer import CheckpointWriter

pytestmark = pytest.mark.gpu


def test_steps_that_follow_do_not_reach_into_the_copy(tmp_path: Path) -> None:
    means = torch.zeros(4_000_000, device="cuda")
    counts = torch.arange(3)
    with CheckpointWriter() as writer:
        for step in range(1, 4):
            means.add_(1.0)
            counts += 1
            writer.begin(tmp_path / f"{step}", Checkpoint({"means": means, "counts": counts}, {"step": step}))
            means.mul_(1.0)
            means[::2] += 0.25
            means[::2] -= 0.25
    for step in range(1, 4):
        loaded = load_checkpoint(tmp_path / f"{step}")
        assert (loaded.tensors["means"] == step).all()
        assert loaded.tensors["counts"].tolist() == [step, step + 1, step + 2]
