"""Refusals of what a field, its training or its mask cannot be, each one sentence (InputError)."""

from __future__ import annotations

from kinosplat.errors import InputError
from kinosplat.trainers.config import ImageConfig, TrainConfig
from kinosplat.trainers.methods.field_config import FieldConfig, FieldTraining, HashGrid, HollowConfig, HollowNerf
from kinosplat.trainers.methods.option_checks import at_least, between, check_near, not_negative, positive, within


def check_field(config: TrainConfig, method: HashGrid | HollowNerf) -> None:
    """Refuse options of a resolved config that make no sense, or that mean nothing to a field."""
    _check_grid(method.grid)
    _check_training(method.training)
    if isinstance(method, HollowNerf):
        _check_mask(method.grid, method.hollow)
    if config.schedule.batch_size != 1:
        raise InputError(f"--batch-size counts pictures, but {method.name} learns from rays; set --samples instead.")
    usual = ImageConfig()
    for option, weight, otherwise in (
        ("--ssim-weight", config.image.ssim_weight, usual.ssim_weight),
        ("--alpha-weight", config.image.alpha_weight, usual.alpha_weight),
    ):
        if weight != otherwise:
            raise InputError(f"{option} weighs whole pictures, but {method.name} learns from rays; leave it out.")


def _check_grid(grid: FieldConfig) -> None:
    assert grid.levels is not None
    assert grid.log2_table_size is not None
    assert grid.occupancy_resolution is not None
    check_near(grid.near)
    between("--levels", grid.levels, 1, 16)
    between("--log2-table-size", grid.log2_table_size, 4, 24)
    between("--cascades", grid.cascades, 1, 16)
    at_least("--base-resolution", grid.base_resolution, 1)
    if grid.ray_steps is not None:
        at_least("--ray-steps", grid.ray_steps, 1)
    if grid.n_first_points is not None:
        at_least("--n-first-points", grid.n_first_points, 0)
    if grid.finest_resolution is not None and grid.finest_resolution < grid.base_resolution:
        raise InputError(
            f"--finest-resolution must be at least --base-resolution {grid.base_resolution}, "
            f"got {grid.finest_resolution}."
        )
    if grid.features not in (1, 2, 4, 8):
        raise InputError(f"--features must be 1, 2, 4 or 8, got {grid.features}.")
    if grid.hidden not in (16, 32, 64, 128):
        raise InputError(f"--hidden must be 16, 32, 64 or 128, got {grid.hidden}.")
    if grid.occupancy_resolution < 8 or grid.occupancy_resolution % 8 != 0:
        raise InputError(f"--occupancy-resolution must be a positive multiple of 8, got {grid.occupancy_resolution}.")
    if grid.extent is not None and not grid.extent > 0.0:
        raise InputError(f"--extent must be a positive length, got {grid.extent}.")


def _check_training(training: FieldTraining) -> None:
    assert training.samples is not None
    at_least("--samples", training.samples, 256)
    at_least("--occupancy-every", training.occupancy_every, 1)
    at_least("--occupancy-warm-up", training.occupancy_warm_up, 0)
    positive("--table-lr", training.table_lr)
    positive("--networks-lr", training.networks_lr)
    positive("--rates-end", training.rates_end)
    not_negative("--huber", training.huber)
    not_negative("--distortion-weight", training.distortion_weight)
    not_negative("--depth-weight", training.depth_weight)
    if not 0.0 < training.depth_until <= 1.0:
        raise InputError(f"--depth-until must be a fraction of the run above 0, got {training.depth_until}.")


def _check_mask(grid: FieldConfig, hollow: HollowConfig) -> None:
    if grid.field_backend == "tcnn":
        raise InputError(
            "--method hollownerf cannot drop entries of tiny-cuda-nn's tables; leave --field-backend tcnn out, or take "
            "--method hashgrid."
        )
    within("--mask-target", hollow.mask_target, 0.0, 1.0)
    within("--mask-first", hollow.mask_first, 0.0, 1.0)
    within("--harden-below", hollow.harden_below, 0.0, 1.0)
    positive("--mask-lr", hollow.mask_lr)
    not_negative("--pruning-strength", hollow.pruning_strength)
    if not 0.0 <= hollow.pruning_start <= 1.0:
        raise InputError(f"--pruning-start must be a fraction of the run, got {hollow.pruning_start}.")
    positive("--sharpness-first", hollow.sharpness_first)
    positive("--sharpness-last", hollow.sharpness_last)
