"""Whole runs on a GPU: trained, stopped, resumed, hardened, measured, and taking the memory that was foretold."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trainers.test_fields import field_config
from trainers.test_resume import StopAt
from trainers.toys import Toy, tiny_config, with_options, write_toy

from kinosplat.errors import InputError
from kinosplat.render.timing import device_words
from kinosplat.scenes import PointCloud, Scene
from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.evaluate import evaluate
from kinosplat.trainers.interrupt import RunInterrupted
from kinosplat.trainers.memory import free_bytes, needs_of
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.methods.presets import resolve
from kinosplat.trainers.recorder import read_metrics
from kinosplat.trainers.run import load_run, resume, train
from kinosplat.trainers.utilisation import Utilisation

pytestmark = pytest.mark.gpu


def config_of(method: str, toy: Toy, device: str) -> TrainConfig:
    if method in ("3dgs", "4dgs"):
        config = tiny_config(ThreeDGS() if method == "3dgs" else FourDGS(), toy, steps=10)
    else:
        config = field_config(toy, steps=10, hollow=method == "hollownerf")
    return replace(config, device=device)


@pytest.mark.parametrize("method", ["3dgs", "4dgs", "hashgrid", "hollownerf"])
def test_ten_steps_are_saved_resumed_and_finished(method: str, tmp_path: Path) -> None:
    is_field = method in ("hashgrid", "hollownerf")
    times = (0.0, 0.5, 1.0) if method == "4dgs" else None
    toy = write_toy(tmp_path / "scene", n_train=6, n_test=1, times=times, with_alpha=is_field)
    with pytest.raises(RunInterrupted):
        train(config_of(method, toy, "cuda"), toy.scene(), tmp_path / "run", StopAt(4))
    report = resume(tmp_path / "run")
    assert report.steps == 10
    assert report.device == device_words(torch.device("cuda"))
    assert report.n_dropped_gradients == 0
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert all(math.isfinite(line["loss"]) for line in lines)
    # The pictures before the first step are those of the CPU; the field's have features of 16 bits.
    train(config_of(method, toy, "cpu"), toy.scene(), tmp_path / "cpu")
    first = read_metrics(tmp_path / "cpu" / "metrics.jsonl")[0]
    assert lines[0]["loss/image"] == pytest.approx(first["loss/image"], rel=0.05 if is_field else 1e-4)
    if method == "hollownerf":
        assert report.facts["parameters_after"] < report.facts["parameters"]
        assert math.isfinite(report.facts["psnr_after_hardening"])
    # What is saved is what was measured, wherever it is drawn.
    test = load_run(tmp_path / "run").scene().test
    for device, tolerance in (("cuda", 1e-3), ("cpu", 0.1)):
        run = load_run(tmp_path / "run", device=device)
        measured = evaluate(run.method, test, run.background, mask_use="ignore-outside")
        assert measured.psnr == pytest.approx(report.psnr, abs=tolerance)


def test_numbers_about_the_device_are_plausible(tmp_path: Path, cuda_device: torch.device) -> None:
    total = torch.cuda.get_device_properties(cuda_device).total_memory
    free = free_bytes(cuda_device)
    assert 0 < free <= total
    taken = torch.empty(2**28, dtype=torch.uint8, device=cuda_device)
    # The allocator takes memory from the driver by 2 MiB.
    assert free - free_bytes(cuda_device) == pytest.approx(taken.numel(), abs=2**22)
    toy = write_toy(tmp_path / "scene", n_train=4, n_test=1)
    torch.cuda.reset_peak_memory_stats(cuda_device)
    report = train(config_of("3dgs", toy, "cuda"), toy.scene(), tmp_path / "run")
    written = json.loads((tmp_path / "run" / "report.json").read_text())
    assert taken.numel() / 2**20 < written["peak_memory_mib"] < total / 2**20
    assert report.device == written["device"]
    assert report.fps > 1.0


def test_a_busy_device_is_said_to_be_busy(cuda_device: torch.device) -> None:
    utilisation = Utilisation(cuda_device)
    matrix = torch.randn(4096, 4096, device=cuda_device)
    until = time.monotonic() + 3.5
    while time.monotonic() < until:
        matrix = torch.nn.functional.normalize(matrix @ matrix)
        torch.cuda.synchronize(cuda_device)
        utilisation.sample()
    if utilisation.mean is None:
        pytest.skip("The driver does not say how busy the device is.")
    # Measured: 0.22 on an H200 whose host ran seven other test processes.
    assert 0.1 < utilisation.mean <= 1.0


def many_points(n: int, tmp_path: Path, sh_degree: int, device: torch.device) -> tuple[TrainConfig, Scene, int]:
    """A run of `n` Gaussians on tiny pictures, and the bytes it is foretold to take."""
    toy = write_toy(tmp_path / "scene", n_train=4, n_test=1)
    draws = torch.Generator().manual_seed(0)
    points = PointCloud(torch.randn(n, 3, generator=draws), torch.randint(256, (n, 3), generator=draws).byte())
    scene = replace(toy.scene(), points=points)
    method = with_options(ThreeDGS(), max_gaussians=n, sh_degree=sh_degree, near=0.05, sh_warm_up=0.0)
    config = replace(tiny_config(method, toy, steps=6), method=method, device="cuda")
    return config, scene, needs_of(resolve(config), scene.train, device).of(n)


@pytest.mark.parametrize("sh_degree", [0, 3])
def test_a_run_takes_the_memory_that_was_foretold(sh_degree: int, tmp_path: Path, cuda_device: torch.device) -> None:
    config, scene, foretold = many_points(1_000_000, tmp_path, sh_degree, cuda_device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(cuda_device)
    before = torch.cuda.memory_allocated(cuda_device)
    report = train(config, scene, tmp_path / "run")
    measured = report.peak_memory_mib * 2**20 - before
    # Not a bound but the size to be expected: too little makes runs fail late, too much refuses what would fit. Counted
    # by hand: 1.03 with degree 3, up to 1.24 without harmonics, where 32 MiB for products of matrices weigh most.
    assert 0.8 < foretold / measured < 1.3, f"foretold {foretold / 2**20:.0f} MiB, measured {measured / 2**20:.0f}"


def test_memory_that_somebody_else_took_ends_a_run_in_a_sentence(tmp_path: Path, cuda_device: torch.device) -> None:
    config, scene, foretold = many_points(200_000, tmp_path, 3, cuda_device)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(cuda_device).total_memory
    allowed = torch.cuda.memory_reserved(cuda_device) + 0.6 * foretold
    torch.cuda.set_per_process_memory_fraction(allowed / total, cuda_device)
    try:
        with pytest.raises(InputError, match="There is no memory left for the first Gaussians; start with a lower "):
            train(config, scene, tmp_path / "run")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, cuda_device)
    assert not (tmp_path / "run").exists()
    assert train(config, scene, tmp_path / "run").steps == 6
