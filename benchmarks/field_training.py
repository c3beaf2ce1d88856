"""Rays a second of training a hash-grid field, beside nerfacc with the same network.

    python benchmarks/field_training.py --scene dtu_scan24

Both sides draw rays from pictures that lie as bytes on the device, keep the number of samples a step constant, and use
the same field (this project's encoding and networks). The peer is what nerfacc's own example of an instant-ngp does:
OccGridEstimator for marching and visibility, `rendering` for compositing, torch.optim.Adam over all parameters. Needs
`pip install nerfacc`; without it only this project is timed.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import torch
import tyro
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from training_step import show

from kinosplat.render.field import reference
from kinosplat.scenes import LoadOptions, load_scene
from kinosplat.trainers.config import ScheduleConfig, TrainConfig
from kinosplat.trainers.feed import make_feed
from kinosplat.trainers.loop import train_step
from kinosplat.trainers.methods.field_config import FieldConfig, HashGrid
from kinosplat.trainers.methods.hash_grid import FieldMethod
from kinosplat.trainers.methods.presets import resolve
from kinosplat.trainers.pixel_pool import PixelPool
from kinosplat.trainers.ray_batch import draw_rays
from kinosplat.trainers.run import no_points
from kinosplat.trainers.training import Training, scene_for, settle, start


@dataclass(frozen=True)
class Options:
    """What to measure."""

    scene: str
    """Path or name of the scene."""
    warm_up: int = 1000
    """Steps before the clock runs."""
    steps: int = 500
    """Timed steps."""
    profiled: int = 0
    """Steps of this project under torch's profiler after that: what host and device do in one."""
    rows: int = 20
    """Lines of the profiler's tables."""
    resolution: tuple[int, int] | None = None
    """Width and height of the pictures."""
    device: str = "auto"
    """Where to train."""
    grid: tyro.conf.OmitArgPrefixes[FieldConfig] = field(default_factory=FieldConfig)
    """The field."""


@dataclass
class Count:
    """What the timed steps did."""

    rays: int = 0
    samples: int = 0
    squared_errors: list[Tensor] = field(default_factory=list)
    """() of each step, not read before the clock has stopped: nobody waits for the device who need not."""

    def psnr(self) -> float:
        """In dB, of the mean of all steps."""
        return -10.0 * math.log10(torch.stack(self.squared_errors).mean().item())


def main(options: Options) -> None:
    """Time both, print both."""
    with tempfile.TemporaryDirectory() as folder:
        ours = ours_step(begin(options, Path(folder)))
        report("kinosplat", options, ours)
        if options.profiled > 0:
            activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA][: 1 + torch.cuda.is_available()]
            with profile(activities=activities) as profiler:
                for _ in range(options.profiled):
                    ours(Count())
                synchronize()
            show(profiler, options.profiled, options.rows)
    try:
        import_module("nerfacc")
    except ImportError:
        print("nerfacc is not installed; run 'pip install nerfacc' to time it beside.")
        return
    with tempfile.TemporaryDirectory() as folder:
        report("nerfacc", options, nerfacc_step(begin(options, Path(folder))))


def begin(options: Options, run_dir: Path) -> Training:
    """A run at its first step."""
    config = resolve(
        TrainConfig(
            method=HashGrid(grid=options.grid),
            scene=options.scene,
            data=LoadOptions(resolution=options.resolution),
            schedule=ScheduleConfig(steps=options.warm_up + options.steps),
            device=options.device,
        )
    )
    scene = scene_for(config, load_scene(config.scene, config.data))
    return start(settle(config, scene), scene, no_points(), "none needed", run_dir, 0.0)


def report(name: str, options: Options, step: Callable[[Count], None]) -> None:
    """Warm up, time, print a line."""
    for _ in range(options.warm_up):
        step(Count())
    count = Count()
    synchronize()
    began = time.perf_counter()
    for _ in range(options.steps):
        step(count)
    synchronize()
    seconds = time.perf_counter() - began
    print(
        f"{name:10} {1e-6 * count.rays / seconds:8.3f} M rays/s {1e-6 * count.samples / seconds:8.2f} M samples/s "
        f"{1e3 * seconds / options.steps:7.3f} ms a step, training PSNR {count.psnr():.2f} dB",
        flush=True,
    )


def ours_step(training: Training) -> Callable[[Count], None]:
    """The real loop's step."""
    method = training.method
    assert isinstance(method, FieldMethod)
    feed = make_feed(training)

    def step(count: Count) -> None:
        count.rays += method.n_rays
        count.samples += method.n_samples  # of the step before: asking after this one would wait for it
        count.squared_errors.append(train_step(training, feed).squared_error)

    return step


def nerfacc_step(training: Training) -> Callable[[Count], None]:
    """A step as nerfacc's example has it, with the field and the pictures of the run."""
    nerfacc = import_module("nerfacc")
    method, device = training.method, training.device
    assert isinstance(method, FieldMethod)
    space, rule = method.grid.space, method.grid.rule
    pool = PixelPool(training.scene.train, 0, training.config.image.settled_mask_use, device)
    centre = torch.tensor(space.center, device=device)
    aabb = torch.cat([centre - space.half_extent, centre + space.half_extent])
    estimator = nerfacc.OccGridEstimator(aabb, method.grid.resolution, space.n_cascades).to(device)
    estimator.train()
    parameters = [group.parameter for group in method.groups()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2, betas=(0.9, 0.99), eps=1e-15)
    dt, _ = rule.limits(space, method.grid.resolution)
    target = training.config.method.training.samples  # type: ignore[union-attr]
    state = {"rays": target // 256}

    def field_at(points: Tensor) -> tuple[Tensor, Tensor]:
        return method.live_field().density(reference.grid_positions(points, space))

    def step(count: Count) -> None:
        batch = draw_rays(training, pool, state["rays"])
        origins, directions = batch.rays.origins, batch.rays.directions

        def density_along(t_starts: Tensor, t_ends: Tensor, ray: Tensor) -> Tensor:
            points = origins[ray] + directions[ray] * (t_starts + t_ends)[:, None] / 2
            return field_at(points)[0]

        def colour_along(t_starts: Tensor, t_ends: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
            points = origins[ray] + directions[ray] * (t_starts + t_ends)[:, None] / 2
            density, outputs = field_at(points)
            return method.live_field().colour(outputs, directions[ray]), density

        estimator.update_every_n_steps(step=training.step, occ_eval_fn=lambda x: field_at(x)[0][:, None] * dt)
        ray, t_starts, t_ends = estimator.sampling(
            origins,
            directions,
            sigma_fn=density_along,
            near_plane=method.near,
            render_step_size=dt,
            stratified=True,
            cone_angle=rule.cone_angle,
            alpha_thre=0.0,
        )
        rgb, _, _, _ = nerfacc.rendering(
            t_starts, t_ends, ray, n_rays=len(origins), rgb_sigma_fn=colour_along, render_bkgd=batch.background
        )
        loss = torch.nn.functional.smooth_l1_loss(rgb, batch.target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        count.rays += len(origins)
        count.samples += len(ray)
        count.squared_errors.append((rgb - batch.target).detach().square().mean())
        state["rays"] = min(max(int(len(origins) * target / max(len(ray), 1)), 64), 1 << 18)
        training.step += 1

    return step


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main(tyro.cli(Options))
