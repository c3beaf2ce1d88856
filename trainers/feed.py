"""What a method learns from at each step: whole pictures, or rays drawn from many of them.

Which pictures and rays a step gets is a function of the config and the step alone, so that a run resumes anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from kinosplat.errors import refusing_out_of_memory
from kinosplat.scenes import FrameLoader, View, ViewSampler
from kinosplat.trainers.batch import Batch, assemble
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.memory import room_for_pictures
from kinosplat.trainers.method import Losses, PictureMethod, RayMethod
from kinosplat.trainers.pixel_pool import PixelPool
from kinosplat.trainers.ray_batch import draw_rays
from kinosplat.trainers.training import Training

LOOKAHEAD = 16
"""Pictures of so many steps are loaded ahead of time."""
UPCOMING_BATCHES = 2
"""Batches on their way to the device ahead of time."""
MOST_WORKERS = 8
"""Threads that decode pictures at most."""
POOL_SHARE = 0.75
"""Part of the picture cache that the sampler's pool may fill; the rest is for what is fetched ahead."""


class Feed(Protocol):
    """Gives the method what it learns from; a context manager that stops what loads pictures."""

    def losses(self, moment: Moment) -> Losses:
        """What the step at `moment` costs; a picture that cannot be read is an InputError."""

    def make_room(self) -> int:
        """Give up what only saves time; returns the bytes of the device's memory that this gives back."""

    def __enter__(self) -> Feed: ...

    def __exit__(self, *error: object) -> None: ...


def make_feed(training: Training) -> Feed:
    """The feed that the method of the run asks for; without memory for it, InputError."""
    method = training.method
    with refusing_out_of_memory(
        f"There is no memory left for the pictures; take {training.run_dir} up again with --resume and a lower "
        "--cache-memory."
    ):
        if method.learns_from == "rays":
            return RayFeed(training, method)
        return PictureFeed(training, method)


def cache_bytes(config: TrainConfig) -> int | None:
    """Bytes of `--cache-memory`, or None for the loader's default."""
    gib = config.cache_memory
    return None if gib is None else int(gib * 2**30)


def make_sampler(training: Training) -> ViewSampler:
    """The order of pictures; depends on the config alone, never on the machine, so that runs resume anywhere."""
    schedule, limit = training.config.schedule, cache_bytes(training.config)
    if limit is None:
        return ViewSampler(training.scene.train, schedule.seed, schedule.batch_size)
    return ViewSampler(training.scene.train, schedule.seed, schedule.batch_size, pool_bytes=int(POOL_SHARE * limit))


def open_loader(config: TrainConfig, views: Sequence[View], device: torch.device) -> FrameLoader:
    """The pictures of `views`, delivered where a run trains; on a GPU as many stay there as have room."""
    n_workers, device_cache_bytes = 2, 0
    if device.type == "cuda":
        # The processor has nothing else to do there than to decode.
        n_workers = min(max((os.cpu_count() or 2) // 2, 2), MOST_WORKERS)
        device_cache_bytes = room_for_pictures(config, views, device)
    return FrameLoader(
        views,
        cache_bytes=cache_bytes(config),
        n_workers=n_workers,
        device=device,
        device_cache_bytes=device_cache_bytes,
    )


def make_loader(training: Training) -> FrameLoader:
    """The pictures to learn from; on a GPU they are there from the start if all of them have room."""
    loader = open_loader(training.config, training.scene.train, training.device)
    try:
        loader.fill_device()
    except BaseException:
        loader.close()
        raise
    return loader


def picture_batch(
    training: Training,
    indices: list[int],
    upcoming: list[list[int]],
    loader: FrameLoader,
    background: Tensor | None = None,
) -> Batch:
    """Some training pictures with the corrections of their cameras; those of the `upcoming` batches start loading.

    `background` (3,) is what is behind them, by default what the step has.
    """
    cameras = [training.cameras[i] for i in indices]
    physical = [training.scene.train[i].camera_index for i in indices]
    if training.poses is not None:
        cameras = training.poses.corrected(cameras, physical)
    return assemble(
        loader.get_batch(indices, upcoming),
        cameras,
        training.background.color(training.step) if background is None else background,
        training.config.image.settled_mask_use,
        None if training.exposure is None else training.exposure.of(physical),
    )


def step_batch(training: Training, step: int, sampler: ViewSampler, loader: FrameLoader) -> Batch:
    """The training pictures of a step; those of the next ones start loading."""
    upcoming = []
    if not loader.is_filled:
        upcoming = [sampler.batch(step + i) for i in range(1, UPCOMING_BATCHES + 1)]
        loader.prefetch(sampler.lookahead(step, LOOKAHEAD))
    return picture_batch(training, sampler.batch(step), upcoming, loader)


class PictureFeed(AbstractContextManager["PictureFeed"]):
    """A batch of whole pictures a step."""

    def __init__(self, training: Training, method: PictureMethod) -> None:
        """Starts the loader's workers."""
        self._training = training
        self._method = method
        self._sampler = make_sampler(training)
        self._loader = make_loader(training)

    def __exit__(self, *error: object) -> None:
        self._loader.close()

    def make_room(self) -> int:
        """No picture stays on the device any more."""
        return self._loader.release_device()

    def losses(self, moment: Moment) -> Losses:
        """The loss of the step's batch."""
        if self._sampler.batch_size != self._training.config.schedule.batch_size:
            self._sampler = make_sampler(self._training)
        batch = step_batch(self._training, moment.step, self._sampler, self._loader)
        return self._method.loss(batch, moment)


class RayFeed(AbstractContextManager["RayFeed"]):
    """Rays drawn from all the pictures that fit into memory."""

    def __init__(self, training: Training, method: RayMethod) -> None:
        """Starts the loader's workers."""
        self._training = training
        self._method = method
        config = training.config
        self._pool = PixelPool(
            training.scene.train,
            config.schedule.seed,
            config.image.settled_mask_use,
            training.device,
            max_bytes=cache_bytes(config),
        )

    def __exit__(self, *error: object) -> None:
        self._pool.close()

    def make_room(self) -> int:
        """Nothing: which pixels are at hand decides what a step draws."""
        return 0

    def losses(self, moment: Moment) -> Losses:
        """The loss of the step's rays."""
        return self._method.loss(draw_rays(self._training, self._pool, self._method.n_rays), moment)
