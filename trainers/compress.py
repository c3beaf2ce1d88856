"""Compresses a trained run: gives the stages of `kinosplat.compression` the run's pictures, its optimiser and its
measurement.

Fine-tuning is what training was: the same sampler, loader, corrections of cameras, loss and Adam, without
densification. Exposure and pose corrections stay as they were learned. The run itself is not changed; the file and its
report are written into its folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch

from kinosplat.compression.config import CompressConfig
from kinosplat.compression.kino import Metadata, StartCamera
from kinosplat.compression.pipeline import compress
from kinosplat.compression.report import CompressReport
from kinosplat.compression.surroundings import Quality, Surroundings, Tunable, ViewBatch
from kinosplat.errors import InputError
from kinosplat.render import Gaussians, RasterSettings
from kinosplat.scenes import Scene, load_scene
from kinosplat.trainers.checkpoint import write_atomically
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.compress_field import compress_field
from kinosplat.trainers.evaluate import evaluate, spread
from kinosplat.trainers.feed import LOOKAHEAD, UPCOMING_BATCHES, make_loader, make_sampler, picture_batch
from kinosplat.trainers.methods.gaussian_step import picture_loss
from kinosplat.trainers.methods.gaussians import GaussianMethod
from kinosplat.trainers.methods.hash_grid import FieldMethod
from kinosplat.trainers.optim import Group, Optimizer, exponential_decay
from kinosplat.trainers.report import Compressed, refer_to_file
from kinosplat.trainers.run import read_config
from kinosplat.trainers.training import Training, restore, scene_for

FILE, REPORT = "scene.kino", "compression.json"
RATE_AT_THE_END = 0.1
"""Learning rates of fine-tuning fall to this part."""
N_START_CAMERAS = 2
"""Cameras a player may start from."""


def compress_run(
    run_dir: Path,
    config: CompressConfig,
    *,
    path: Path | None = None,
    device: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> CompressReport:
    """Compress the last checkpoint of a run into `path` (default: scene.kino in its folder) and report every stage.

    Raises InputError when the run is of a method that is not made of Gaussians, or has no held-out views to measure on.
    """
    run_config = read_config(run_dir)
    if device is not None:
        run_config = replace(run_config, device=device)
    scene = scene_for(run_config, load_scene(run_config.scene, run_config.data))
    return compress_training(restore(run_config, scene, run_dir), config, path=path, say=say)


def compress_training(
    training: Training,
    config: CompressConfig,
    *,
    path: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> CompressReport:
    """Compress a run that is in memory; `training` is left as it was."""
    method = training.method
    if not training.scene.test:
        raise InputError(f"{training.scene.name} has no held-out views to measure a loss on; train with a split.")
    path = path or training.run_dir / FILE
    if isinstance(method, FieldMethod):
        report = compress_field(training, method, path, config, metadata_of(training), say)
    elif isinstance(method, GaussianMethod):
        with surroundings_of(training, say) as surroundings:
            report = compress(method.gaussians(), path, config, surroundings, metadata_of(training))
    else:
        raise InputError(f"{training.run_dir} was trained with {method.name}, which cannot be compressed.")
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


@contextmanager
def surroundings_of(training: Training, say: Callable[[str], None] = lambda line: None) -> Iterator[Surroundings]:
    """What the stages of compression need from a run of Gaussians; the run is afterwards as it was."""
    method, first_step = training.method, training.step
    assert isinstance(method, GaussianMethod)
    try:
        with _Pictures(training, method) as pictures:
            yield Surroundings(
                views=pictures.views,
                fine_tune=pictures.fine_tune,
                evaluate=pictures.evaluate,
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
        n_gaussians=last.n_gaussians,
        psnr=last.quality.psnr,
        ssim=last.quality.ssim,
        seconds=round(sum(stage.seconds for stage in report.stages), 2),
    )


def metadata_of(training: Training) -> Metadata:
    """What the file says about the scene and where it came from."""
    scene = training.scene
    method = training.method
    settings = method.settings if isinstance(method, GaussianMethod) else RasterSettings()
    red, green, blue = training.background.evaluation_color().tolist()
    return Metadata(
        up=scene.up,
        fps=scene.fps,
        duration=scene.duration if scene.is_moving else None,
        background=(red, green, blue),
        near=method.near if isinstance(method, FieldMethod) else settings.near,
        antialiased=settings.antialiased,
        cameras=start_cameras(scene),
        to_input=scene.to_input,
        provenance={"scene": scene.name, "method": training.method.name, "steps": training.step},
    )


def start_cameras(scene: Scene) -> tuple[StartCamera, ...]:
    """Where a player of the scene may start from: some of its held-out cameras."""
    return tuple(StartCamera.of(view.camera, view.name) for view in spread(scene.test, N_START_CAMERAS))


class _Pictures(AbstractContextManager["_Pictures"]):
    """The run's training views and held-out views, as the stages ask for them."""

    def __init__(self, training: Training, method: GaussianMethod) -> None:
        self._training = training
        self._method = method
        self._sampler = make_sampler(training)
        self._loader = make_loader(training)
        self._held_out = spread(training.scene.test, training.config.evaluation.max_test_views)
        self._held_out_loader = make_loader(training, self._held_out)

    def __exit__(self, *error: object) -> None:
        self._loader.close()
        self._held_out_loader.close()

    def views(self, n_views: int | None) -> Iterator[ViewBatch]:
        """Training views one at a time, in the order that videos are read fastest."""
        training = self._training
        background = training.background.evaluation_color()
        n = len(training.scene.train)
        count = n if n_views is None else min(n, n_views)
        indices: list[int] = torch.linspace(0, n - 1, count).round().long().tolist()
        for place, index in enumerate(indices):
            self._loader.prefetch(indices[place : place + LOOKAHEAD])
            upcoming = [[later] for later in indices[place + 1 : place + 1 + UPCOMING_BATCHES]]
            with torch.no_grad():
                batch = picture_batch(training, [index], upcoming, self._loader, background)
            yield ViewBatch(batch.cameras, batch.target, batch.mask, batch.expose)

    def fine_tune(self, tunable: Tunable, steps: int) -> None:
        """Move the leaves of `tunable` for a number of steps."""
        training, settings = self._training, self._method.settings
        groups = []
        for name, leaf in tunable.leaves.items():
            rate = tunable.rates[name]
            # Leaves of equal length are moved by one kernel.
            rows = f"{len(leaf)} rows"
            group = Group(name, leaf, exponential_decay(rate, RATE_AT_THE_END * rate), rows=rows)
            group.parameter = leaf  # the group would learn a copy
            groups.append(group)
        optimizer = Optimizer(groups)
        for step in range(steps):
            indices = self._sampler.batch(training.step)
            upcoming = [self._sampler.batch(training.step + i) for i in range(1, UPCOMING_BATCHES + 1)]
            self._loader.prefetch(self._sampler.lookahead(training.step, LOOKAHEAD))
            batch = picture_batch(training, indices, upcoming, self._loader)
            picture_loss(tunable.gaussians(), batch, settings, training.config.image).backward()
            optimizer.step(Moment(step, step / steps, (step + 1) / steps), {})
            training.step += 1

    def evaluate(self, gaussians: Gaussians) -> Quality:
        """Quality on the held-out views that the run is measured on."""
        training, method = self._training, self._method
        shown = GaussianMethod(
            method.config, method.image, gaussians, radius=method.rows.radius, clip=method.clip, seed=0
        )
        result = evaluate(
            shown,
            self._held_out,
            training.background.evaluation_color(),
            mask_use=training.config.image.settled_mask_use,
            pictures=self._held_out_loader,
        )
        return Quality(result.psnr, result.ssim)
