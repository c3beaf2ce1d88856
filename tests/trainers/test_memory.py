"""Memory that cannot suffice is noticed before training, and pictures take what training leaves."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kinosplat.errors import InputError
from kinosplat.trainers import memory
from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.memory import needs_of
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.methods.field_config import FieldConfig, HashGrid
from kinosplat.trainers.methods.presets import resolve
from kinosplat.trainers.run import train
from kinosplat.trainers.utilisation import Utilisation

from .toys import Toy, tiny_config, with_batch, with_options

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_the_estimate_counts_what_is_there_at_the_moments_with_most(still_toy: Toy, moving_toy: Toy) -> None:
    n_pixels = 48 * 36
    for method, toy, n_numbers in (
        (ThreeDGS(), still_toy, 59),
        (FourDGS(), still_toy, 59),
        (FourDGS(), moving_toy, 64),
    ):
        config = resolve(TrainConfig(method=method, device="cpu"))
        # Parameter, gradient and moments; a record of 14 numbers and three hits; of each hit, what it keeps and its
        # gradients.
        needs = needs_of(config, toy.scene().train, CPU)
        assert needs.of(10_000) == 10_000 * (16 * n_numbers + 1 + 56 + 3 * 44) + 40 * n_pixels
        # With hardly any Gaussians it is the loss that takes most.
        assert needs.of(1) == 12 * n_numbers + 1 + 56 + 3 * 8 + 76 * n_pixels
        on_gpu = needs_of(config, toy.scene().train, GPU)
        assert on_gpu.of(10_000) == 10_000 * (16 * n_numbers + 1) + 40 * n_pixels + 2**25
        pairs = needs_of(with_batch(config, 3), toy.scene().train, GPU).of(10_000)
        assert pairs == 10_000 * (16 * n_numbers + 1 + 3 * 40) + 3 * 40 * n_pixels + 2**25
    exposed = replace(config, corrections=replace(config.corrections, exposure=True))
    assert needs_of(exposed, moving_toy.scene().train, CPU).of(0) == 88 * n_pixels


@pytest.mark.parametrize(
    ("method", "n_gaussians", "size", "measured"),
    [
        (ThreeDGS(), 1_000_000, (1920, 1080), 305),
        (ThreeDGS(), 300_000, (800, 600), 86),
        (FourDGS(), 400_000, (640, 360), 53),
    ],
)
def test_the_estimate_is_near_what_steps_were_measured_to_take(
    method: ThreeDGS | FourDGS, n_gaussians: int, size: tuple[int, int], measured: int, moving_toy: Toy, still_toy: Toy
) -> None:
    """MiB above parameters, moments and target, of docs/performance.md; Panoptic has harmonics of degree 1."""
    moving = isinstance(method, FourDGS)
    scene = (moving_toy if moving else still_toy).scene()
    view = replace(scene.train[0], camera=scene.train[0].camera.resized(*size))
    config = resolve(TrainConfig(method=with_options(method, sh_degree=1 if moving else 3), device="cpu"))
    needs = needs_of(config, (view,), GPU)
    kept = 12 * (28 if moving else 59) * n_gaussians + 12 * size[0] * size[1] + 2**25
    # Measured with torch's autograd, which holds one more gradient of the picture: 0.92 to 0.93.
    assert 0.88 < (needs.of(n_gaussians) - kept) / 2**20 / measured < 1.05


@pytest.mark.parametrize(
    ("free", "allocated", "room"), [(10**10, 0, 2_500_000_000), (10**9, 0, 20), (10**9, 5, 25), (1, 0, 0)]
)
def test_pictures_stay_on_a_gpu_as_far_as_the_run_leaves_room(
    free: int, allocated: int, room: int, still_toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolve(tiny_config(ThreeDGS(), still_toy))
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    monkeypatch.setattr(memory, "needs_of", lambda *_: memory.Needs((memory.Peak(0, 10**9 - 20),)))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
    assert memory.room_for_pictures(config, still_toy.scene().train, GPU) == room


@pytest.mark.parametrize(
    ("batch_size", "free", "text"),
    [
        (
            1,
            10**9,
            "--max-gaussians 10000000 needs 10.6 GiB, but this machine has 0.9 GiB free; lower it to 882551 or less.",
        ),
        (
            2,
            10**9,
            "--max-gaussians 10000000 needs 11.3 GiB, but this machine has 0.9 GiB free; "
            "lower it to 824288 or less, or lower --batch-size from 2.",
        ),
        (
            1,
            10**5,
            "--max-gaussians 10000000 needs 10.6 GiB, but this machine has 0.0 GiB free; "
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


def test_a_table_that_cannot_fit_is_refused(still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory_bytes", lambda: 10**9)
    grid = FieldConfig(log2_table_size=24, levels=16, features=2, finest_resolution=4096)
    config = replace(tiny_config(ThreeDGS(), still_toy), method=HashGrid(grid))
    with pytest.raises(InputError) as caught:
        train(config, still_toy.scene(), tmp_path / "run")
    assert str(caught.value) == ("--log2-table-size 24 needs 4.4 GiB, but this machine has 0.9 GiB free; lower it.")
    assert not (tmp_path / "run").exists()


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
