"""What `--preset` means for each method and device: the options that a user left open get their values here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from typing_extensions import assert_never

from kinosplat.errors import InputError
from kinosplat.render.backend import check_gsplat
from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.methods.field_config import HashGrid, HollowNerf
from kinosplat.trainers.methods.field_presets import resolve_field
from kinosplat.trainers.methods.option_checks import at_least, check_near
from kinosplat.trainers.training import choose_device

Preset = Literal["quick", "default", "full"]


@dataclass(frozen=True)
class GaussianPreset:
    """Size of a run of the Gaussian methods."""

    steps: int
    """Optimisation steps."""
    max_gaussians: int
    """Cap on the number of Gaussians."""


LONG_RUN = 15_000
"""Steps from which on learning rates decay by default."""
LONG_RUN_RATES_END = 0.1
"""And to which factor: 0.1 dB on held-out cameras of Panoptic after 15 000 steps, of 75 frames."""

CPU_PRESETS: dict[Preset, GaussianPreset] = {
    "quick": GaussianPreset(steps=2_000, max_gaussians=30_000),
    "default": GaussianPreset(steps=10_000, max_gaussians=150_000),
    "full": GaussianPreset(steps=30_000, max_gaussians=1_000_000),
}
GPU_PRESETS: dict[Preset, GaussianPreset] = {
    "quick": GaussianPreset(steps=5_000, max_gaussians=150_000),
    "default": GaussianPreset(steps=30_000, max_gaussians=300_000),
    "full": GaussianPreset(steps=120_000, max_gaussians=1_000_000),
}
"""Ten seconds, two minutes and eight on one H100, where a CPU takes one minute, ten and hours."""
LOG_EVERY_ON_CPU, LOG_EVERY_ON_GPU = 20, 100
"""Steps between reports: each waits for the device, and the device then for the next step."""


def resolve(config: TrainConfig) -> TrainConfig:
    """The config with every option that depends on the preset filled in; impossible values are an InputError."""
    method = config.method
    device = choose_device(config.device)
    on_cpu = device.type == "cpu"
    match method:
        case ThreeDGS() | FourDGS():
            config = _resolve_gaussians(config, method, on_cpu)
        case HashGrid() | HollowNerf():
            config = resolve_field(config, method, device)
        case _:
            assert_never(method)
    assert config.schedule.steps is not None
    at_least("--steps", config.schedule.steps, 1)
    at_least("--batch-size", config.schedule.batch_size, 1)
    if config.checkpoints.save_every is not None:
        at_least("--save-every", config.checkpoints.save_every, 1)
    if config.checkpoints.log_every is None:
        log_every = LOG_EVERY_ON_CPU if on_cpu else LOG_EVERY_ON_GPU
        config = replace(config, checkpoints=replace(config.checkpoints, log_every=log_every))
    assert config.checkpoints.log_every is not None
    at_least("--log-every", config.checkpoints.log_every, 1)
    if config.schedule.time_limit is not None and not config.schedule.time_limit > 0.0:
        raise InputError(f"--time-limit must be a positive number of seconds, got {config.schedule.time_limit}.")
    return config


def _resolve_gaussians(config: TrainConfig, method: ThreeDGS | FourDGS, on_cpu: bool) -> TrainConfig:
    preset = (CPU_PRESETS if on_cpu else GPU_PRESETS)[config.schedule.preset]
    gaussians = method.gaussians
    if gaussians.rasterizer == "gsplat":
        check_gsplat(choose_device(config.device))
    max_gaussians = preset.max_gaussians if gaussians.max_gaussians is None else gaussians.max_gaussians
    n_first = gaussians.n_first_points
    # A full set from the start is worth more than room to grow: 1.4 dB after 800 steps of the shipped scene at 128x96.
    n_first = max_gaussians if n_first is None else min(n_first, max_gaussians)
    at_least("--max-gaussians", max_gaussians, 1)
    at_least("--n-first-points", n_first, 1)
    check_near(gaussians.near)
    if not 0 <= gaussians.sh_degree <= 3:
        raise InputError(f"--sh-degree must be 0, 1, 2 or 3, got {gaussians.sh_degree}.")
    gaussians = replace(gaussians, max_gaussians=max_gaussians, n_first_points=n_first)
    steps = preset.steps if config.schedule.steps is None else config.schedule.steps
    rates = method.rates
    if rates.rates_end is None:
        rates = replace(rates, rates_end=LONG_RUN_RATES_END if steps >= LONG_RUN else 1.0)
    elif not rates.rates_end > 0.0:
        raise InputError(f"--rates-end must be a positive factor, got {rates.rates_end}.")
    method = replace(method, gaussians=gaussians, rates=rates)
    return replace(config, method=method, schedule=replace(config.schedule, steps=steps))
