"""The pictures of a run that is compressed: on their way from the moment its scene is known, and what the stages of
`kinosplat.compression` ask of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack

import torch

from kinosplat.compression.surroundings import Quality, Tunable, ViewBatch
from kinosplat.render import Gaussians
from kinosplat.render.exposure import Sensor
from kinosplat.scenes import FrameLoader, Scene
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.evaluate import evaluate, spread
from kinosplat.trainers.feed import LOOKAHEAD, UPCOMING_BATCHES, make_sampler, open_loader, picture_batch, step_batch
from kinosplat.trainers.methods.gaussian_step import picture_loss
from kinosplat.trainers.methods.gaussians import GaussianMethod
from kinosplat.trainers.optim import Group, Optimizer, exponential_decay
from kinosplat.trainers.training import Training

RATE_AT_THE_END = 0.1
"""Learning rates of fine-tuning fall to this part."""


class RunPictures(AbstractContextManager["RunPictures"]):
    """Loaders of a run's held-out and training views; both begin at once, beside whatever else has to be got ready."""

    def __init__(self, config: TrainConfig, scene: Scene, device: torch.device) -> None:
        """Starts the loaders' workers; `scene` comes from `scene_for`."""
        self.held_out_views = spread(scene.test, config.evaluation.max_test_views)
        with ExitStack() as stack:
            self._held_out = stack.enter_context(open_loader(config, self.held_out_views, device))
            self._held_out.prefetch_all()
            self._training = stack.enter_context(open_loader(config, scene.train, device))
            self._training.prefetch_all()
            self._open = stack.pop_all()

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def held_out(self) -> FrameLoader:
        """Pictures of `held_out_views`; on a GPU all of them are there if they have room."""
        return _brought(self._held_out)

    def training(self) -> FrameLoader:
        """Pictures to learn from; on a GPU all of them are there if they have room."""
        return _brought(self._training)


def _brought(loader: FrameLoader) -> FrameLoader:
    if not loader.is_filled:
        loader.fill_device()
    return loader


class StagePictures:
    """A run's training views and held-out views, as the stages ask for them."""

    def __init__(self, training: Training, method: GaussianMethod, pictures: RunPictures) -> None:
        self._training = training
        self._method = method
        self._pictures = pictures
        self._sampler = make_sampler(training)

    def views(self, n_views: int | None) -> Iterator[ViewBatch]:
        """Training views one at a time, in the order that videos are read fastest."""
        training, loader = self._training, self._pictures.training()
        background = training.background.evaluation_color()
        n = len(training.scene.train)
        count = n if n_views is None else min(n, n_views)
        indices: list[int] = torch.linspace(0, n - 1, count).round().long().tolist()
        for place, index in enumerate(indices):
            upcoming = []
            if not loader.is_filled:
                loader.prefetch(indices[place : place + LOOKAHEAD])
                upcoming = [[later] for later in indices[place + 1 : place + 1 + UPCOMING_BATCHES]]
            with torch.no_grad():
                batch = picture_batch(training, [index], upcoming, loader, background)
            yield ViewBatch(batch.cameras, batch.target, batch.mask, Sensor(batch.exposures))

    def fine_tune(self, tunable: Tunable, steps: int) -> None:
        """Move the leaves of `tunable` for a number of steps."""
        training, settings, loader = self._training, self._method.settings, self._pictures.training()
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
            batch = step_batch(training, training.step, self._sampler, loader)
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
            self._pictures.held_out_views,
            training.background.evaluation_color(),
            mask_use=training.config.image.settled_mask_use,
            pictures=self._pictures.held_out(),
        )
        return Quality(result.psnr, result.ssim)
