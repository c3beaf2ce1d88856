"""Compresses a trained run: gives the stages of `kinosplat.compression` the run's pictures, its optimiser and its
measurement.

Fine-tuning is what training was: the same sampler, loader, corrections of cameras, loss and Adam, without
densification. Exposure and pose corrections stay as they were learned. The run itself is not changed; the file and its
report are written into its folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from kinosplat.compression.config import CompressConfig
from kinosplat.compression.pipeline import compress
from kinosplat.compression.report import CompressReport, WallTime
from kinosplat.compression.surroundings import Surroundings
from kinosplat.errors import InputError
from kinosplat.scenes import Scene, load_scene
from kinosplat.trainers.checkpoint import write_atomically
from kinosplat.trainers.compress_field import compress_field
from kinosplat.trainers.compress_pictures import RunPictures, StagePictures
from kinosplat.trainers.file_metadata import metadata_of
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.methods.gaussians import GaussianMethod
from kinosplat.trainers.methods.hash_grid import FieldMethod
from kinosplat.trainers.report import Compressed, refer_to_file
from kinosplat.trainers.run import read_config
from kinosplat.trainers.stopwatch import Stopwatch
from kinosplat.trainers.training import Training, choose_device, restore, scene_for

FILE, REPORT = "scene.kino", "compression.json"


def compress_run(
    run_dir: Path,
    config: CompressConfig,
    *,
    path: Path | None = None,
    device: str | None = None,
    say: Callable[[str], None] = lambda line: None,
    began: float | None = None,
) -> CompressReport:
    """Compress the last checkpoint of a run into `path` (default: scene.kino in its folder) and report every stage.

    `began` is the time.monotonic() from which the report counts, by default now. A field is rounded, Gaussians go
    through the stages. Raises InputError when the run is of another method, or has no held-out views to measure on.
    """
    began = time.monotonic() if began is None else began
    run_config = read_config(run_dir)
    if device is not None:
        run_config = replace(run_config, device=device)
    scene = scene_for(run_config, load_scene(run_config.scene, run_config.data))
    _need_held_out_views(scene)
    with ExitStack() as stack:
        pictures = None
        if isinstance(run_config.method, (ThreeDGS, FourDGS)):
            # The checkpoint and the device are got ready while pictures are decoded.
            pictures = stack.enter_context(RunPictures(run_config, scene, choose_device(run_config.device)))
        training = restore(run_config, scene, run_dir)
        return compress_training(training, config, path=path, say=say, pictures=pictures, began=began)


def compress_training(
    training: Training,
    config: CompressConfig,
    *,
    path: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    pictures: RunPictures | None = None,
    began: float | None = None,
) -> CompressReport:
    """Compress a run that is in memory; `training` is left as it was.

    `pictures` of the run that are on their way stay open; without them, they are opened for this call.
    """
    method, measuring = training.method, Stopwatch()
    _need_held_out_views(training.scene)
    path = path or training.run_dir / FILE
    background = training.background.evaluation_color()
    metadata = metadata_of(training.scene, method, background, training.step)
    loaded = time.monotonic()
    if isinstance(method, FieldMethod):
        report = compress_field(training, method, path, config, metadata, say, measuring)
    elif isinstance(method, GaussianMethod):
        with surroundings_of(training, say, pictures) as surroundings:
            watched = replace(surroundings, evaluate=measuring.timed(surroundings.evaluate))
            report = compress(method.gaussians(), path, config, watched, metadata)
    else:
        raise InputError(f"{training.run_dir} was trained with {method.name}, which cannot be compressed.")
    loading = 0.0 if began is None else loaded - began
    wall = WallTime(loading, measuring.seconds, time.monotonic() - loaded - measuring.seconds)
    report = replace(report, wall=wall)
    document = {
        **asdict(report),
        "loss": report.loss,
        "ratio": report.ratio,
        "config": asdict(config),
        "file": str(path),
    }
    write_atomically(training.run_dir / REPORT, (json.dumps(document, indent=1) + "\n").encode())
    refer_to_file(training.run_dir / "report.json", summary(report, path, training.run_dir))
    return report


def _need_held_out_views(scene: Scene) -> None:
    if not scene.test:
        raise InputError(f"{scene.name} has no held-out views to measure a loss on; train with a split.")


@contextmanager
def surroundings_of(
    training: Training, say: Callable[[str], None] = lambda line: None, pictures: RunPictures | None = None
) -> Iterator[Surroundings]:
    """What the stages of compression need from a run of Gaussians, which is afterwards as it was; `pictures` as of
    `compress_training`.
    """
    method, first_step = training.method, training.step
    assert isinstance(method, GaussianMethod)
    with ExitStack() as stack:
        if pictures is None:
            pictures = stack.enter_context(RunPictures(training.config, training.scene, training.device))
        of_stages = StagePictures(training, method, pictures)
        try:
            yield Surroundings(
                views=of_stages.views,
                fine_tune=of_stages.fine_tune,
                evaluate=of_stages.evaluate,
                background=training.background.evaluation_color(),
                radius=method.rows.radius,
                duration=training.scene.duration if method.rows.is_moving else 0.0,
                settings=method.settings,
                training_steps=training.step,
                seed=training.config.schedule.seed,
                say=say,
            )
        finally:
            training.step = first_step


def summary(report: CompressReport, path: Path, run_dir: Path) -> Compressed:
    """What report.json says of the file."""
    last = report.stages[-1]
    path, run_dir = path.resolve(), run_dir.resolve()
    return Compressed(
        file=str(path.relative_to(run_dir) if path.is_relative_to(run_dir) else path),
        bytes=last.n_bytes,
        n_primitives=last.n_gaussians,
        psnr=last.quality.psnr,
        ssim=last.quality.ssim,
        seconds=round(sum(stage.seconds for stage in report.stages), 2),
    )
