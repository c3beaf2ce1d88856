"""Toy scenes, made once for all tests of the room."""

from __future__ import annotations

import pytest
import torch

from kinosplat.trainers import evaluate

from .toys import Toy, write_toy


@pytest.fixture(scope="session")
def still_toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Eight pictures of blobs that do not move, two held out."""
    return write_toy(tmp_path_factory.mktemp("still") / "scene")


@pytest.fixture(scope="session")
def moving_toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Six cameras, four moments, half of the blobs circling."""
    return write_toy(tmp_path_factory.mktemp("moving") / "scene", n_train=6, times=(0.0, 0.5, 1.0, 1.5))


@pytest.fixture(autouse=True)
def gpu_where_needed(request: pytest.FixtureRequest) -> None:
    """Cases of a CUDA device are skipped where there is none."""
    if request.node.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device.")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Pictures are tiny: threads would only get in each other's way."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames a second are measured for a moment only."""
    monkeypatch.setattr(evaluate, "TIMED_SECONDS", 0.02)
