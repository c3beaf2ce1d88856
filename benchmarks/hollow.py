"""Fields on hash grids side by side: what a mask (HollowNeRF), the size of the table and its finest level bring.

    python benchmarks/hollow.py --scene object --steps 3000 --variants hashgrid:19 hollownerf:17 hollownerf:18

Every variant learns from the same pixels, for as many steps, with the same networks; held-out views are measured at the
end, of a hollow field before and after its mask is hardened. Parameters are what is stored: entries of the table that
are left, networks, and values of the mask that are left. A line a variant, printed when it is done.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import tyro

from kinosplat.errors import InputError
from kinosplat.scenes import LoadOptions, Scene, load_scene
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.config import ScheduleConfig, TrainConfig
from kinosplat.trainers.loop import evaluate_now, train_step
from kinosplat.trainers.method import Losses
from kinosplat.trainers.methods.field_config import FieldConfig, FieldTraining, HashGrid, HollowConfig, HollowNerf
from kinosplat.trainers.methods.hash_grid import FieldMethod
from kinosplat.trainers.methods.presets import resolve
from kinosplat.trainers.pixel_pool import PixelPool
from kinosplat.trainers.ray_batch import draw_rays
from kinosplat.trainers.run import no_points
from kinosplat.trainers.training import Training, choose_device, scene_for, settle, start


@dataclass(frozen=True)
class Options:
    """What to compare."""

    scene: str
    """Path or name of the scene."""
    variants: tuple[str, ...] = ("hashgrid:19", "hollownerf:17", "hollownerf:18")
    """method:log2_table_size, and if wanted :finest_resolution and then :levels."""
    steps: int = 3000
    """Optimisation steps of each."""
    resolution: tuple[int, int] | None = None
    """Width and height of the pictures."""
    device: str = "auto"
    """Where to train."""
    grid: tyro.conf.OmitArgPrefixes[FieldConfig] = field(default_factory=FieldConfig)
    """The field, but for what a variant says."""
    training: tyro.conf.OmitArgPrefixes[FieldTraining] = field(default_factory=FieldTraining)
    """How it is learned."""
    hollow: tyro.conf.OmitArgPrefixes[HollowConfig] = field(default_factory=HollowConfig)
    """The mask."""


class SharedFeed(AbstractContextManager["SharedFeed"]):
    """Rays of one pool of pixels, for one run after the other."""

    def __init__(self, pool: PixelPool, training: Training, method: FieldMethod) -> None:
        self._pool, self._training, self._method = pool, training, method

    def __exit__(self, *error: object) -> None:
        """The pool stays open for the next run."""

    def losses(self, moment: Moment) -> Losses:
        """The loss of the step's rays."""
        return self._method.loss(draw_rays(self._training, self._pool, self._method.n_rays), moment)


def config_of(options: Options, variant: str) -> TrainConfig:
    """The run of a variant; InputError where it is ill-formed."""
    name, *numbers = variant.split(":")
    if name not in ("hashgrid", "hollownerf") or not 1 <= len(numbers) <= 3 or not all(n.isdigit() for n in numbers):
        raise InputError(f"{variant} is no variant; write method:log2_table_size, method:19:1024 or method:19:1024:12.")
    names = ("log2_table_size", "finest_resolution", "levels")
    grid = replace(options.grid, **{name: int(number) for name, number in zip(names, numbers, strict=False)})
    method = (
        HashGrid(grid, options.training) if name == "hashgrid" else HollowNerf(grid, options.training, options.hollow)
    )
    return resolve(
        TrainConfig(
            method=method,
            scene=options.scene,
            data=LoadOptions(resolution=options.resolution),
            schedule=ScheduleConfig(steps=options.steps),
            device=options.device,
        )
    )


def measure(config: TrainConfig, scene: Scene, pool: PixelPool) -> str:
    """Train, harden, and say what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        training = start(config, scene, no_points(), "none needed", Path(folder), 0.0)
        method = training.method
        assert isinstance(method, FieldMethod)
        feed = SharedFeed(pool, training, method)
        began = time.perf_counter()
        while training.step < (config.schedule.steps or 0):
            train_step(training, feed)
        if training.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        facts = method.finish(lambda: evaluate_now(training).psnr)
        evaluation = evaluate_now(training)
    parts = [
        f"{evaluation.psnr:6.2f} dB  SSIM {evaluation.ssim:.4f}  {facts['parameters']:>11,.0f} parameters",
        f"occupied {facts['occupied_cells']:.2%}",
        f"{seconds:.1f} s, {training.step / seconds:.0f} steps/s",
    ]
    if "parameters_after" in facts:
        parts[0] += f", {facts['parameters_after']:>11,.0f} left"
        parts.append(f"mask {facts['mask_density']:.1%}, {facts['psnr_before_hardening']:.2f} dB before hardening")
    return "  ".join(parts)


def main(options: Options) -> None:
    """Print a line a variant."""
    configs = {variant: config_of(options, variant) for variant in options.variants}
    first = next(iter(configs.values()))
    scene = scene_for(first, load_scene(first.scene, first.data))
    first = settle(first, scene)
    pool = PixelPool(scene.train, 0, first.image.settled_mask_use, choose_device(options.device))
    for variant, config in configs.items():
        print(f"{variant:20} {measure(settle(config, scene), scene, pool)}", flush=True)
    pool.close()


if __name__ == "__main__":
    main(tyro.cli(Options))
