"""Runs from beginning to end: what the command line, a viewer and compression call.

A run is a folder: config.json, metrics.jsonl, checkpoints/{last,best}.safetensors, and at the end test/ (pictures),
test.csv and report.json. Nothing is written before the scene, the first points and the config have proved usable.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch
from torch import Tensor

from kinosplat.errors import InputError, refusing_out_of_memory
from kinosplat.render import RasterSettings
from kinosplat.render.timing import device_words
from kinosplat.scenes import PointCloud, Scene, first_points, load_scene
from kinosplat.trainers.callbacks import Callbacks, RunStart
from kinosplat.trainers.checkpoint import LAST, checkpoint_path, load_checkpoint
from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.evaluate import WHOLE, Evaluation, evaluate, measure_fps, spread
from kinosplat.trainers.feed import cache_bytes
from kinosplat.trainers.interrupt import RunInterrupted
from kinosplat.trainers.loop import evaluate_now, record_evaluation, train_to_the_end
from kinosplat.trainers.memory import refuse_what_cannot_fit
from kinosplat.trainers.method import Method
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.methods.presets import resolve
from kinosplat.trainers.methods.registry import (
    n_first_points,
    restore_method,
    takes_points_for_evidence,
    with_near,
    words_of,
)
from kinosplat.trainers.recorder import Recorder
from kinosplat.trainers.report import Report, peak_memory_mib
from kinosplat.trainers.serialize import from_json, write_config
from kinosplat.trainers.training import Training, choose_device, restore, scene_for, settle, start
from kinosplat.trainers.utilisation import Utilisation


@dataclass(frozen=True)
class Overrides:
    """What may change when a run resumes; None keeps what it was."""

    steps: int | None = None
    """New number of steps of the whole run; the schedule becomes that of a run of this length."""
    time_limit: float | None = None
    """New limit in seconds for the whole run, earlier sessions included."""
    device: str | None = None
    """Train on another device."""
    cache_memory: float | None = None
    """GiB of pictures kept in memory."""


@dataclass(frozen=True)
class LoadedRun:
    """A trained run, ready to be looked at."""

    config: TrainConfig
    """As it was trained, resolved."""
    method: Method
    """With its parameters; `GaussianMethod.gaussians()` gives the set."""
    background: Tensor
    """(3,) colour that held-out views are drawn over."""
    step: int
    """Steps done."""
    run_dir: Path
    """Folder of the run."""

    def scene(self) -> Scene:
        """The scene it was trained on, read again, as the method sees it."""
        return scene_for(self.config, load_scene(self.config.scene, self.config.data))


def new_run_dir(out_dir: Path, scene: str, method: str) -> Path:
    """A name that is free: `<out_dir>/<scene>/<method>/<time>`; not made yet."""
    folder = out_dir / scene / method
    name = datetime.now().strftime("%Y-%m-%d_%H%M%S")
    taken = 1
    path = folder / name
    while path.exists():
        taken += 1
        path = folder / f"{name}_{taken}"
    return path


def train(
    config: TrainConfig,
    scene: Scene,
    run_dir: Path,
    callbacks: Callbacks | None = None,
    *,
    overwrite: bool = False,
) -> Report:
    """Train a new run in `run_dir` to its end, evaluate it, and write its report.

    With `overwrite` a run that is there already is deleted once the new one is ready for its first step. Raises
    InputError for whatever the user gave that cannot be used, RunInterrupted (after saving) on Ctrl-C.
    """
    holds_a_run = (run_dir / "config.json").exists()
    if holds_a_run and not overwrite:
        raise InputError(f"{run_dir} holds a run already; resume it or choose another folder.")
    config = resolve(config)
    began = time.monotonic()
    seen = scene_for(config, scene)
    config = settle(config, seen)
    refuse_what_cannot_fit(config, seen, choose_device(config.device))
    training = _begin(config, seen, run_dir, began)
    if holds_a_run:
        shutil.rmtree(run_dir)
    write_config(run_dir, config)
    return _finish(training, callbacks or Callbacks())


def resume(run_dir: Path, overrides: Overrides | None = None, callbacks: Callbacks | None = None) -> Report:
    """Go on with a run from its last checkpoint, or from its beginning if it was stopped before the first one.

    With steps alone as the bound, the CPU goes on bitwise as if it had never stopped.
    """
    config = read_config(run_dir)
    overrides = overrides or Overrides()
    schedule = dataclasses.replace(
        config.schedule,
        steps=overrides.steps or config.schedule.steps,
        time_limit=overrides.time_limit or config.schedule.time_limit,
    )
    config = resolve(
        dataclasses.replace(
            config,
            schedule=schedule,
            device=overrides.device or config.device,
            cache_memory=overrides.cache_memory or config.cache_memory,
        )
    )
    began = time.monotonic()
    scene = scene_for(config, load_scene(config.scene, config.data))
    config = settle(config, scene)
    refuse_what_cannot_fit(config, scene, choose_device(config.device))
    if checkpoint_path(run_dir).exists():
        training = restore(config, scene, run_dir)
    else:
        training = _begin(config, scene, run_dir, began)
    _refuse_what_is_done(overrides, training)
    write_config(run_dir, config)
    return _finish(training, callbacks or Callbacks())


def _refuse_what_is_done(overrides: Overrides, training: Training) -> None:
    """Refuse bounds that the run is past already: it would be written down as a shorter one than it was."""
    run_dir, elapsed = training.run_dir, training.clock.elapsed
    if overrides.steps is not None and overrides.steps < training.step:
        raise InputError(
            f"--steps {overrides.steps} is less than the {training.step} that {run_dir} has done; give more, or leave "
            "it out."
        )
    if overrides.time_limit is not None and overrides.time_limit < elapsed:
        raise InputError(
            f"--time-limit {overrides.time_limit:g} is less than the {elapsed:.0f} s that {run_dir} has taken; give "
            "more, or leave it out."
        )


def load_run(run_dir: Path, which: str = LAST, device: str = "auto") -> LoadedRun:
    """A run's `last` or `best` checkpoint, without its scene."""
    config = read_config(run_dir)
    checkpoint = load_checkpoint(checkpoint_path(run_dir, which), config.method.name)
    place = choose_device(device)
    try:
        method = restore_method(config, checkpoint.tensors, checkpoint.metadata["state"], place)
        background = torch.tensor(checkpoint.metadata["background"], device=place)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{checkpoint_path(run_dir, which)} is incomplete ({error}); use the other checkpoint."
        ) from error
    return LoadedRun(config, method, background, checkpoint.metadata["step"], run_dir)


def read_config(run_dir: Path) -> TrainConfig:
    """The config of a run; a folder that holds none, or an ill-formed one, is an InputError."""
    path = run_dir / "config.json"
    if not path.exists():
        raise InputError(f"{run_dir} is not the folder of a run: it has no config.json; give one that has.")
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); restore it or train anew.") from error
    return _as_trained(from_json(TrainConfig, value, str(path)))


def _as_trained(config: TrainConfig) -> TrainConfig:
    """The config of a run that was saved before there was a near plane to choose, with the one it was trained with."""
    method = config.method
    if not isinstance(method, (ThreeDGS, FourDGS)) or method.gaussians.near is not None:
        return config
    return dataclasses.replace(config, method=with_near(method, RasterSettings().near))


def _begin(config: TrainConfig, scene: Scene, run_dir: Path, began: float) -> Training:
    """A run at step 0; `began` is the time.monotonic() at which work on it started."""
    n_points = n_first_points(config.method)
    points, source = no_points(), "none needed"
    if n_points > 0:
        with refusing_out_of_memory(
            "There is no memory left to find first points; make the pictures smaller with --downscale, or make room on "
            "the device."
        ):
            points, source = first_points(
                scene,
                n_points,
                config.schedule.seed,
                device=choose_device(config.device),
                cache_bytes=cache_bytes(config),
                only_agreed=takes_points_for_evidence(config.method),
            )
    words = words_of(config)
    with refusing_out_of_memory(
        f"There is no memory left for the first {words.primitives}; start with a lower {words.lower}."
    ):
        return start(config, scene, points, source, run_dir, time.monotonic() - began)


def no_points() -> PointCloud:
    """What a method that starts without points is given."""
    return PointCloud(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8))


def _finish(training: Training, callbacks: Callbacks) -> Report:
    """Train to the end, measure held-out views, write the report; Ctrl-C is raised as RunInterrupted."""
    try:
        return _train_and_measure(training, callbacks)
    except KeyboardInterrupt as interrupt:
        raise RunInterrupted(training.run_dir) from interrupt


def _train_and_measure(training: Training, callbacks: Callbacks) -> Report:
    schedule = training.config.schedule
    callbacks.started(
        RunStart(
            scene=training.scene.name,
            method=training.method.name,
            run_dir=training.run_dir,
            first_step=training.step,
            steps=training.clock.steps,
            time_limit=schedule.time_limit,
            n_train=len(training.scene.train),
            n_test=len(training.scene.test),
            n_primitives=training.method.n_primitives,
            points_source=training.points_source,
            background=training.background.evaluation_color,
            mask_use=training.config.image.settled_mask_use,
        )
    )
    utilisation = Utilisation(training.device)
    finished = train_to_the_end(training, callbacks, utilisation)
    with refusing_out_of_memory(
        f"There is no memory left to measure the held-out views; the trained run is saved in {training.run_dir}, and "
        "--resume with --device cpu measures it."
    ):
        return _measure(training, callbacks, finished, utilisation.mean)


def _measure(training: Training, callbacks: Callbacks, finished: str, utilisation: float | None) -> Report:
    """Finish the method, measure it on the held-out views, write the report."""
    seconds = training.clock.elapsed
    facts = training.method.finish(lambda: evaluate_now(training).psnr if training.scene.test else None)
    evaluation = None
    if training.scene.test:
        evaluation = _final_evaluation(training)
        with Recorder(training.run_dir, training.step, training.config.checkpoints.tensorboard) as recorder:
            record_evaluation(training, evaluation, recorder, callbacks)
    # The method may be another than the one that was saved when training ended.
    training.save()
    report = _report(training, evaluation, seconds, finished, utilisation, facts)
    report.write(training.run_dir / "report.json")
    callbacks.finished(report)
    return report


def _final_evaluation(training: Training) -> Evaluation:
    options = training.config.evaluation
    evaluation = evaluate(
        training.method,
        spread(training.scene.test, options.max_test_views),
        training.background.evaluation_color(),
        mask_use=training.config.image.settled_mask_use,
        cache_bytes=cache_bytes(training.config),
        renders_dir=training.run_dir / "test" if options.save_test_renders else None,
    )
    evaluation.write_table(training.run_dir / "test.csv")
    return evaluation


def _report(
    training: Training,
    evaluation: Evaluation | None,
    seconds: float,
    finished: str,
    utilisation: float | None,
    facts: dict[str, float],
) -> Report:
    scene = training.scene
    cameras = [view.camera for view in scene.test or scene.train]
    first = cameras[0]
    return Report(
        scene=scene.name,
        method=training.method.name,
        split=scene.split,
        resolution=f"{first.width}x{first.height} ({scene.resolution_note})",
        n_train=len(scene.train),
        n_test=0 if evaluation is None else len(evaluation.views),
        steps=training.step,
        seconds=round(seconds, 2),
        psnr=None if evaluation is None else evaluation.psnr,
        ssim=None if evaluation is None else evaluation.ssim,
        psnr_region=WHOLE if evaluation is None else evaluation.region,
        psnr_masked=None if evaluation is None else evaluation.psnr_masked,
        psnr_whole=None if evaluation is None else evaluation.psnr_whole,
        n_primitives=training.method.n_primitives,
        bytes=training.method.n_bytes,
        fps=round(measure_fps(training.method, cameras, training.background.evaluation_color()), 2),
        device=device_words(training.device),
        peak_memory_mib=round(peak_memory_mib(training.device), 1),
        device_utilisation=None if utilisation is None else round(utilisation, 3),
        n_dropped_gradients=int(training.optimizer.n_dropped_rows),
        n_steps_with_dropped_gradients=int(training.optimizer.n_dropped_steps),
        first_points=training.points_source,
        seed=training.config.schedule.seed,
        steps_per_second=round(training.step / max(seconds, 1e-6), 3),
        finished=finished,
        facts=facts,
    )
