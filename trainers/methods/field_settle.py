"""What the scene decides of a field's options, where the user left it open: the space, its finest cells, the steps of
rays, first points, and what keeps samples together.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from kinosplat.scenes import Scene
from kinosplat.trainers.batch import MaskUse
from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.methods.field_config import FieldConfig, FieldTraining, HashGrid, HollowNerf
from kinosplat.trainers.methods.field_presets import FieldPreset, field_preset, given
from kinosplat.trainers.methods.field_space import cells_as_pixels, cuts_object_out, object_reaches_out, seen_extent

BEYOND_PICTURES = 1.3
"""An object that leaves the pictures goes on behind the plane whose corners they show: first points of dtu_scan24 go
1.16 times as far, and what a cube leaves out is painted on its faces. 1.0: 26.7 dB, 1.3: 27.9, 1.5: 27.8."""


def settle_field(
    run: TrainConfig,
    method: HashGrid | HollowNerf,
    scene: Scene,
    mask_use: MaskUse,
    near: float,
    device: torch.device,
) -> HashGrid | HollowNerf:
    """The method with nothing left open; `near` is the near plane, in scene units, where the user gave none."""
    preset = field_preset(run.schedule.preset, device)
    grid = replace(method.grid, near=given(method.grid.near, near))
    if grid.bounds == "auto":
        is_object = cuts_object_out(scene, mask_use == "object-only")
        grid = replace(grid, bounds="object" if is_object else "unbounded")
    if grid.bounds == "object":
        grid, training = _around_an_object(grid, method.training, scene, preset)
    else:
        grid, training = _without_bounds(grid, method.training, preset)
    return replace(method, grid=grid, training=training)


def _around_an_object(
    grid: FieldConfig, training: FieldTraining, scene: Scene, preset: FieldPreset
) -> tuple[FieldConfig, FieldTraining]:
    """Transparent pixels say where nothing is: unless the user does, neither points nor distortion are asked for around
    an object that is seen whole; one that leaves the pictures is known less well, and learned with points.
    """
    beyond = 1.0
    if grid.extent is None or grid.n_first_points is None:
        # Settled in any case: a run that is taken up again need not look at pictures once more.
        leaves = object_reaches_out(scene)
        if grid.extent is None:
            beyond = BEYOND_PICTURES if leaves else 1.0
            grid = replace(grid, extent=beyond * seen_extent(scene, to_the_corners=leaves))
        grid = replace(grid, n_first_points=given(grid.n_first_points, preset.n_first_points if leaves else 0))
    finest = grid.finest_resolution
    if finest is None:
        # Levels finer than pixels have nothing to learn, and their vertices crowd the table.
        finest = max(min(preset.finest_resolution, cells_as_pixels(grid, scene)), grid.base_resolution)
    grid = replace(
        grid,
        finest_resolution=finest,
        ray_steps=given(grid.ray_steps, round(beyond * preset.object_ray_steps)),
    )
    return grid, replace(training, distortion_weight=given(training.distortion_weight, 0.0))


def _without_bounds(
    grid: FieldConfig, training: FieldTraining, preset: FieldPreset
) -> tuple[FieldConfig, FieldTraining]:
    grid = replace(
        grid,
        finest_resolution=given(grid.finest_resolution, preset.finest_resolution),
        ray_steps=given(grid.ray_steps, preset.ray_steps),
        n_first_points=given(grid.n_first_points, preset.n_first_points),
    )
    return grid, replace(training, distortion_weight=given(training.distortion_weight, preset.distortion_weight))
