"""From the name of a method, or its config, to the method itself: the one place that knows all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import assert_never

from kinosplat.scenes import PointCloud, Scene
from kinosplat.trainers.batch import MaskUse
from kinosplat.trainers.config import MethodConfig, TrainConfig
from kinosplat.trainers.method import Method
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.methods.field_config import HashGrid, HollowNerf
from kinosplat.trainers.methods.field_settle import settle_field
from kinosplat.trainers.methods.gaussians import GaussianMethod
from kinosplat.trainers.methods.hash_grid import FieldMethod

METHODS: dict[str, type[MethodConfig]] = {
    "3dgs": ThreeDGS,
    "4dgs": FourDGS,
    "hashgrid": HashGrid,
    "hollownerf": HollowNerf,
}
"""Name on the command line to the config class, whose defaults are the method's."""


@dataclass(frozen=True)
class Words:
    """How sentences about a run speak of its method."""

    primitives: str
    """What it has so and so many of."""
    step: str
    """What a step learns from."""
    lower: str
    """Options of which lower values take less memory."""


def words_of(config: TrainConfig) -> Words:
    """The words for a resolved config."""
    match config.method:
        case ThreeDGS() | FourDGS():
            options = "--max-gaussians, --batch-size or --resolution"
            return Words("Gaussians", f"batches of {config.schedule.batch_size}", options)
        case HashGrid() | HollowNerf():
            step = f"steps of {config.method.training.samples} samples"
            return Words("table entries", step, "--samples or --log2-table-size")
        case _:
            assert_never(config.method)


def learns_motion(config: MethodConfig) -> bool:
    """Whether the method explains pictures of several times; if not, it takes one frame of a moving scene."""
    match config:
        case FourDGS():
            return True
        case ThreeDGS() | HashGrid() | HollowNerf():
            return False
        case _:
            assert_never(config)


def n_first_points(config: MethodConfig) -> int:
    """How many first points the method asks for; 0 when it starts without."""
    match config:
        case ThreeDGS() | FourDGS():
            assert config.gaussians.n_first_points is not None
            return config.gaussians.n_first_points
        case HashGrid() | HollowNerf():
            assert config.grid.n_first_points is not None
            return config.grid.n_first_points
        case _:
            assert_never(config)


def takes_points_for_evidence(config: MethodConfig) -> bool:
    """Whether first points tell the method where surfaces are, so that none at all are better than guesses; Gaussians
    start from points anywhere.
    """
    match config:
        case ThreeDGS() | FourDGS():
            return False
        case HashGrid() | HollowNerf():
            return True
        case _:
            assert_never(config)


DEFAULT_NEAR = 0.05
"""Scene units; nearer than this to a camera there are only floaters, which hide everything from cameras beside it."""


def settle_method(run: TrainConfig, scene: Scene, mask_use: MaskUse, device: torch.device) -> MethodConfig:
    """The run's method with the options decided that are left to the scene: the near plane, and what a field covers and
    how finely.
    """
    near = DEFAULT_NEAR if scene.near is None else scene.near
    match config := run.method:
        case ThreeDGS() | FourDGS():
            return config if config.gaussians.near is not None else with_near(config, near)
        case HashGrid() | HollowNerf():
            return settle_field(run, config, scene, mask_use, near, device)
        case _:
            assert_never(config)


def with_near(config: ThreeDGS | FourDGS, near: float) -> ThreeDGS | FourDGS:
    """The config of Gaussians with another near plane."""
    return replace(config, gaussians=replace(config.gaussians, near=near))


def create_method(config: TrainConfig, scene: Scene, points: PointCloud, device: torch.device) -> Method:
    """The method of a resolved config, at its start on `scene`."""
    seed = config.schedule.seed
    match config.method:
        case ThreeDGS() | FourDGS():
            return GaussianMethod.create(config.method, config.image, scene, points, seed=seed, device=device)
        case HashGrid() | HollowNerf():
            return FieldMethod.create(config.method, scene, points, seed=seed, device=device)
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
        case HashGrid() | HollowNerf():
            return FieldMethod.restore(config.method, tensors, metadata, seed=seed, device=device)
        case _:
            assert_never(config.method)
