"""From the name of a method, or its config, to the method itself: the one place that knows all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from typing_extensions import assert_never

from kinosplat.scenes import PointCloud, Scene
from kinosplat.trainers.config import MethodConfig, TrainConfig
from kinosplat.trainers.method import Method
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.methods.gaussians import GaussianMethod

METHODS: dict[str, type[MethodConfig]] = {"3dgs": ThreeDGS, "4dgs": FourDGS}
"""Name on the command line to the config class, whose defaults are the method's."""


def learns_motion(config: MethodConfig) -> bool:
    """Whether the method explains pictures of several times; if not, it takes one frame of a moving scene."""
    match config:
        case FourDGS():
            return True
        case ThreeDGS():
            return False
        case _:
            assert_never(config)


def n_first_points(config: MethodConfig) -> int:
    """How many first points the method asks for; 0 when it starts without."""
    match config:
        case ThreeDGS() | FourDGS():
            assert config.gaussians.n_first_points is not None
            return config.gaussians.n_first_points
        case _:
            assert_never(config)


def create_method(config: TrainConfig, scene: Scene, points: PointCloud, device: torch.device) -> Method:
    """The method of a resolved config, at its start on `scene`."""
    seed = config.schedule.seed
    match config.method:
        case ThreeDGS() | FourDGS():
            return GaussianMethod.create(config.method, config.image, scene, points, seed=seed, device=device)
        case _:
            assert_never(config.method)


def restore_method(
    config: TrainConfig, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], device: torch.device
) -> Method:
    """The method as a checkpoint holds it."""
    seed = config.schedule.seed
    match config.method:
        case ThreeDGS() | FourDGS():
            return GaussianMethod.restore(config.method, config.image, tensors, metadata, seed=seed, device=device)
        case _:
            assert_never(config.method)
