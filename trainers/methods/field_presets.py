"""What `--preset` means for the field methods, on a processor and on a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch

from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.methods.field_checks import check_field
from kinosplat.trainers.methods.field_config import HashGrid, HollowNerf

Number = TypeVar("Number", int, float)
Preset = Literal["quick", "default", "full"]


@dataclass(frozen=True)
class FieldPreset:
    """Size of a run of the field methods."""

    steps: int
    """Optimisation steps."""
    samples: int
    """Samples a step."""
    levels: int
    """Levels of the hash grid."""
    features: int
    """Features an entry."""
    finest_resolution: int
    """Cells along an axis of the finest level at most; around objects as many as pixels are enough."""
    log2_table_size: int
    """Log 2 of the most entries of a level."""
    hidden: int
    """Width of the networks' hidden layers."""
    hollow_log2_table_size: int
    """The same of a field whose mask keeps empty space out of its table."""
    hollow_hidden: int
    """And the width of its networks, which are the smallest part of it."""
    occupancy_resolution: int
    """Cells along an axis of the occupancy grid."""
    ray_steps: int
    """Steps along the diagonal of the inner cube of an unbounded scene, where they grow with the distance."""
    object_ray_steps: int
    """Steps along the diagonal of an object's cube."""
    n_first_points: int
    """First points of an unbounded scene, or of an object that leaves the pictures, at most."""
    distortion_weight: float
    """Weight of the distortion loss in an unbounded scene."""


# Few levels of many features cost a processor half of what many levels of few cost. Fog between surfaces takes most of
# the samples as long as nothing draws them together.
_ON_A_CPU = FieldPreset(
    steps=5_000,
    samples=1 << 16,
    levels=8,
    features=4,
    finest_resolution=1024,
    log2_table_size=18,
    hidden=64,
    hollow_log2_table_size=17,
    hollow_hidden=64,
    occupancy_resolution=64,
    ray_steps=512,
    object_ray_steps=512,
    n_first_points=20_000,
    distortion_weight=0.001,
)
CPU_FIELD_PRESETS: dict[Preset, FieldPreset] = {
    # Few steps through an object leave time for more rays.
    "quick": replace(
        _ON_A_CPU,
        steps=3_000,
        samples=1 << 14,
        finest_resolution=512,
        occupancy_resolution=48,
        ray_steps=256,
        object_ray_steps=64,
    ),
    "default": _ON_A_CPU,
    "full": replace(
        _ON_A_CPU,
        steps=20_000,
        samples=1 << 17,
        levels=16,
        features=2,
        finest_resolution=2048,
        log2_table_size=19,
        hollow_log2_table_size=18,
        occupancy_resolution=128,
        ray_steps=1024,
        object_ray_steps=1024,
    ),
}
_ON_A_GPU = FieldPreset(
    steps=15_000,
    samples=1 << 18,
    levels=16,
    features=2,
    finest_resolution=2048,
    log2_table_size=19,
    hidden=64,
    # Around an object, after 5000 steps: 18% of the parameters, 0.28 dB better.
    hollow_log2_table_size=17,
    hollow_hidden=128,
    occupancy_resolution=128,
    ray_steps=1024,
    object_ray_steps=1024,
    # Fox: 28.7 dB without points (in another run 21.2), 31.5 with them, 31.1 with a distortion loss of 0.001 as well.
    n_first_points=20_000,
    distortion_weight=0.0,
)
GPU_FIELD_PRESETS: dict[Preset, FieldPreset] = {
    "quick": replace(_ON_A_GPU, steps=5_000),
    "default": _ON_A_GPU,
    "full": replace(
        _ON_A_GPU,
        steps=40_000,
        samples=1 << 19,
        finest_resolution=4096,
        log2_table_size=21,
        hollow_log2_table_size=19,
    ),
}
ROOM_FOR_WIDE_NETWORKS = (8, 0)
"""Compute capability from which on a block's shared memory holds what layers of 128 numbers need to learn."""


def field_preset(preset: Preset, device: torch.device) -> FieldPreset:
    """What `--preset` means on a device."""
    if device.type == "cpu":
        return CPU_FIELD_PRESETS[preset]
    meant = GPU_FIELD_PRESETS[preset]
    if torch.cuda.get_device_capability(device) < ROOM_FOR_WIDE_NETWORKS:
        return replace(meant, hollow_hidden=meant.hidden)
    return meant


def resolve_field(config: TrainConfig, method: HashGrid | HollowNerf, device: torch.device) -> TrainConfig:
    """The config with the options of the preset filled in, but for those about which the scene has a say
    (field_settle.py); impossible values are an InputError.
    """
    preset = field_preset(config.schedule.preset, device)
    log2_table_size, hidden = (
        (preset.hollow_log2_table_size, preset.hollow_hidden)
        if isinstance(method, HollowNerf)
        else (preset.log2_table_size, preset.hidden)
    )
    grid = method.grid
    grid = replace(
        grid,
        levels=given(grid.levels, preset.levels),
        features=given(grid.features, preset.features),
        log2_table_size=given(grid.log2_table_size, log2_table_size),
        hidden=given(grid.hidden, hidden),
        occupancy_resolution=given(grid.occupancy_resolution, preset.occupancy_resolution),
    )
    training = replace(method.training, samples=given(method.training.samples, preset.samples))
    method = replace(method, grid=grid, training=training)
    check_field(config, method)
    schedule = replace(config.schedule, steps=given(config.schedule.steps, preset.steps))
    return replace(config, method=method, schedule=schedule)


def given(value: Number | None, otherwise: Number) -> Number:
    """What the user gave, or else what the preset says."""
    return otherwise if value is None else value
