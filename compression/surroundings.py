"""What the stages of compression need from outside: pictures, fine-tuning, measurement.

They are handed in as functions, so that this room knows neither the training loop nor where pictures come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from kinosplat.render import Camera, Gaussians, RasterSettings
from kinosplat.render.exposure import Sensor


@dataclass(frozen=True)
class ViewBatch:
    """Pictures of one size, ready to be compared with renders."""

    cameras: tuple[Camera, ...]
    """C cameras on the device."""
    images: Tensor
    """(C, H, W, 3) in [0, 1], over the surroundings' background."""
    masks: Tensor | None = None
    """(C, H, W) weight of each pixel, None when all count."""
    sensor: Sensor = field(default_factory=Sensor)
    """How these cameras show colours, where those were corrected."""


@dataclass(frozen=True)
class Quality:
    """How a set looks on the views that were never trained on, by the common protocol."""

    psnr: float
    """dB, mean over views."""
    ssim: float
    """Mean over views."""


class Tunable(Protocol):
    """A parametrisation of Gaussians whose leaves an optimiser may move."""

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Tensors that require gradients, by name; the same objects on every call."""

    @property
    def rates(self) -> dict[str, float]:
        """Adam's learning rate of each leaf at the beginning of a fine-tuning."""

    def gaussians(self) -> Gaussians:
        """The set, differentiable with respect to the leaves."""


@dataclass(frozen=True)
class Surroundings:
    """Everything the stages are given."""

    views: Callable[[int | None], Iterator[ViewBatch]]
    """All training views once, one at a time, or that many of them evenly spread."""
    fine_tune: Callable[[Tunable, int], None]
    """Moves the leaves for a number of steps so that the training views look better."""
    evaluate: Callable[[Gaussians], Quality]
    """Measures a set on the held-out views."""
    background: Tensor
    """(3,) colour behind the set when it is measured."""
    radius: float
    """Of the scene, world units; step sizes are relative to it."""
    duration: float = 0.0
    """Seconds of the clip; 0 in a static scene."""
    settings: RasterSettings = field(default_factory=RasterSettings)
    """How the run renders."""
    training_steps: int = 0
    """Steps that the run was trained for; fine-tuning is measured out by them."""
    seed: int = 0
    """For k-means."""
    say: Callable[[str], None] = lambda line: None
    """Told one line a stage."""

    @property
    def device(self) -> torch.device:
        """Where everything is."""
        return self.background.device
