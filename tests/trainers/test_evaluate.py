"""Numbers of held-out views follow the common protocol, and the run folder holds what it promises."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kinosplat.render.camera import Camera
from kinosplat.render.output import RenderOutput
from kinosplat.scenes import View
from kinosplat.scenes.lenses import Delivery
from kinosplat.trainers.batch import MaskUse
from kinosplat.trainers.callbacks import Callbacks, RunStart, StepProgress
from kinosplat.trainers.checkpoint import checkpoint_path, load_checkpoint
from kinosplat.trainers.config import CheckpointConfig, EvaluationConfig
from kinosplat.trainers.evaluate import Evaluation, evaluate, masked_psnr, measure_fps, spread
from kinosplat.trainers.method import Losses, MethodState
from kinosplat.trainers.methods.config import ThreeDGS
from kinosplat.trainers.recorder import read_metrics
from kinosplat.trainers.report import Report
from kinosplat.trainers.run import new_run_dir, train

from .toys import HEIGHT, WIDTH, Toy, tiny_config


class Constant:
    """A method that draws one gray, and is no set of Gaussians."""

    name = "constant"
    n_primitives = 1
    n_bytes = 4

    def __init__(self, value: float) -> None:
        self.value = value

    def render(self, cameras: Sequence[Camera], background: torch.Tensor) -> RenderOutput:
        shape = (len(cameras), cameras[0].height, cameras[0].width)
        return RenderOutput(torch.full((*shape, 3), self.value), torch.ones(shape))

    def groups(self) -> list[Any]:
        return []

    def loss(self, batch: object, moment: object) -> Losses:
        raise NotImplementedError

    def touched(self) -> Mapping[str, torch.Tensor]:
        return {}

    def after_step(self, moment: object) -> None:
        raise NotImplementedError

    def state(self) -> MethodState:
        return MethodState({}, {})

    def load(self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def summary(self) -> dict[str, float]:
        return {}


def test_psnr_is_the_mean_over_pictures_after_rounding_to_8_bits(still_toy: Toy) -> None:
    views = still_toy.scene().test
    result = evaluate(Constant(0.3004), views, torch.zeros(3), mask_use="ignore-outside")
    expected = []
    for view in views:
        truth = view.image.load().astype(np.float64) / 255.0
        expected.append(-10.0 * math.log10(np.mean((77.0 / 255.0 - truth) ** 2)))
    assert [view.psnr for view in result.views] == pytest.approx(expected, rel=1e-4)
    assert result.psnr == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert result.region == "whole picture"
    assert result.psnr_masked is None


def test_psnr_inside_a_mask_does_not_see_the_rest() -> None:
    a, b = torch.zeros(2, 4, 4, 3), torch.full((2, 4, 4, 3), 0.1)
    mask = torch.zeros(2, 4, 4)
    mask[0, 1, 1] = 1.0
    b[0, 3, 3] = 1.0
    # The second mask hides everything, so that nothing differs.
    assert masked_psnr(a, b, mask).tolist() == pytest.approx([20.0, 100.0], abs=1e-4)


@pytest.mark.parametrize("mask_use", ["ignore-outside", "object-only"])
def test_views_that_are_measured_together_are_measured_as_alone(
    mask_use: MaskUse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes and masks change on the way, as in a scene of several cameras."""
    monkeypatch.setattr("kinosplat.trainers.evaluate.VIEWS_TOGETHER", 3)
    sizes = [(32, 24)] * 5 + [(24, 32)] * 2 + [(32, 24)] * 2
    views = [noisy_view(i, width, height, with_mask=i in (2, 3, 6)) for i, (width, height) in enumerate(sizes)]
    drawn: list[int] = []

    class Counted(Constant):
        def render(self, cameras: Sequence[Camera], background: torch.Tensor) -> RenderOutput:
            drawn.append(len(cameras))
            return super().render(cameras, background)

    together = evaluate(Counted(0.4), views, torch.zeros(3), mask_use=mask_use)
    assert drawn == [2, 2, 1, 1, 1, 2]
    alone = [evaluate(Constant(0.4), [view], torch.zeros(3), mask_use=mask_use).views[0] for view in views]
    assert list(together.views) == alone
    assert [view.psnr_masked is None for view in together.views] == [view.mask is None for view in views]


def noisy_view(seed: int, width: int, height: int, *, with_mask: bool) -> View:
    """A view of noise; its mask has noise as well."""
    delivery = Delivery(width, height, width, height)
    image, mask = Noise(seed, delivery), Noise(100 + seed, delivery.as_mask()) if with_mask else None
    return View(f"view {seed}", Camera(torch.eye(4), torch.eye(3), width, height), 0, image, mask)


@dataclass(frozen=True)
class Noise:
    """A picture, or a mask, that needs no file."""

    seed: int
    delivery: Delivery
    description: str = "noise"

    def load(self) -> NDArray[np.uint8]:
        shape = (self.delivery.height, self.delivery.width, 3)[: 3 if self.delivery.role == "picture" else 2]
        return np.random.default_rng(self.seed).integers(0, 256, shape, np.uint8)


def test_views_are_spread_evenly(still_toy: Toy) -> None:
    views = still_toy.scene().train
    assert spread(views, None) == list(views)
    assert spread(views, 3) == [views[0], views[4], views[7]]


def test_frames_a_second_are_measured(still_toy: Toy) -> None:
    cameras = [view.camera for view in still_toy.scene().test]
    assert measure_fps(Constant(0.5), cameras, torch.zeros(3)) > 0.0


def test_a_run_leaves_what_its_folder_promises(still_toy: Toy, tmp_path: Path) -> None:
    config = tiny_config(ThreeDGS(), still_toy, steps=10)
    config = replace(config, evaluation=EvaluationConfig(evaluate_every=4))
    events: list[str] = []

    class Listener(Callbacks):
        def started(self, start: RunStart) -> None:
            events.append(f"started {start.first_step}/{start.steps} {start.n_train}+{start.n_test}")

        def evaluated(self, step: int, evaluation: Evaluation) -> None:
            events.append(f"evaluated {step}")

        def saved(self, step: int, path: Path) -> None:
            events.append(f"saved {step} {path.name}")

        def finished(self, report: Report) -> None:
            events.append("finished")

    run = tmp_path / "run"
    report = train(config, still_toy.scene(), run, Listener())
    assert events == [
        "started 0/10 8+2", "evaluated 4", "evaluated 8", "saved 10 last.safetensors", "evaluated 10", "finished",
    ]  # fmt: skip
    assert json.loads((run / "report.json").read_text()) == asdict(report)
    assert report.bytes == report.n_primitives * 4 * (3 + 4 + 3 + 1 + 3 + 9)
    assert report.resolution.startswith(f"{WIDTH}x{HEIGHT}")
    rows = list(csv.DictReader((run / "test.csv").open()))
    assert [row["name"] for row in rows] == [*(view.name for view in still_toy.scene().test), "mean"]
    assert float(rows[-1]["psnr"]) == pytest.approx(report.psnr)
    name = still_toy.scene().test[0].name
    assert iio.imread(run / "test" / f"{name}.png").shape == (HEIGHT, WIDTH, 3)
    assert iio.imread(run / "test" / f"{name}_compare.png").shape == (HEIGHT, 2 * WIDTH, 3)
    best = load_checkpoint(checkpoint_path(run, "best")).metadata
    measured = [line for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "test"]
    assert [line["step"] for line in measured] == [4, 8, 10]
    assert best["best_psnr"] == max(line["psnr"] for line in measured)


def test_a_viewer_may_hold_training_and_that_time_does_not_count(
    still_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    steps: list[int] = []

    class Hold(Callbacks):
        def pause(self, method: object, step: int) -> None:
            nonlocal now
            now += 100.0
            steps.append(step)

    report = train(tiny_config(ThreeDGS(), still_toy, steps=3), still_toy.scene(), tmp_path / "run", Hold())
    assert steps == [0, 1, 2]
    assert report.seconds == 0.0


def test_tensorboard_events_are_written_when_asked_for(still_toy: Toy, tmp_path: Path) -> None:
    config = tiny_config(ThreeDGS(), still_toy, steps=2)
    config = replace(config, checkpoints=CheckpointConfig(log_every=1, tensorboard=True))
    train(config, still_toy.scene(), tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_run_folders_are_named_by_scene_method_and_time_and_never_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fixed:
        @staticmethod
        def now() -> Fixed:
            return Fixed()

        def strftime(self, form: str) -> str:
            return "2026-01-02_030405"

    monkeypatch.setattr("kinosplat.trainers.run.datetime", Fixed)
    first = new_run_dir(tmp_path, "fox", "3dgs")
    assert first == tmp_path / "fox" / "3dgs" / "2026-01-02_030405"
    first.mkdir(parents=True)
    assert new_run_dir(tmp_path, "fox", "3dgs").name == "2026-01-02_030405_2"


def test_progress_reports_say_how_long_it_will_take(still_toy: Toy, tmp_path: Path) -> None:
    seen: list[StepProgress] = []

    class Listener(Callbacks):
        def stepped(self, progress: StepProgress) -> None:
            seen.append(progress)

    config = tiny_config(ThreeDGS(), still_toy, steps=6)
    config = replace(config, checkpoints=CheckpointConfig(log_every=2))
    train(config, still_toy.scene(), tmp_path / "run", Listener())
    assert [progress.step for progress in seen] == [2, 4, 6]
    assert seen[-1].remaining == 0.0
    assert seen[-1].progress == 1.0
    assert seen[0].remaining > 0.0
    assert 5.0 < seen[-1].psnr < 60.0
