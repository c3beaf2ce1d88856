"""What one training step costs: steps a second, and where host and device spend the time.

    python benchmarks/training_step.py --scene panoptic_basketball --method 4dgs --gaussians 400000

Trains from random first points through the real loop, sampler and loader (nothing is written). After a warm-up, steps
are timed in the bulk; then some of them run under torch's profiler, which counts operations and launches a step. On
the CPU the counts tell what the host will have to do on a GPU as well.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from kinosplat.scenes import LoadOptions, PointCloud, Scene, load_scene
from kinosplat.trainers.config import CorrectionConfig, ScheduleConfig, TrainConfig
from kinosplat.trainers.feed import Feed, make_feed
from kinosplat.trainers.loop import train_step
from kinosplat.trainers.methods.config import FourDGS, GaussianConfig, ThreeDGS
from kinosplat.trainers.methods.presets import resolve
from kinosplat.trainers.training import Training, scene_for, settle, start

KEY_TIMES = 15
"""Moving Gaussians start at so many times, evenly over the clip."""
STEPS_OF_RUN = 30_000
"""Length of the run that the steps are the middle of."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    scene: str
    """Path or name of the scene."""
    method: Literal["3dgs", "4dgs"] = "4dgs"
    """What is trained."""
    gaussians: int = 400_000
    """How many, from the first step on."""
    resolution: tuple[int, int] | None = None
    """Width and height of the pictures."""
    frames: tuple[int, int] | None = None
    """Part of the clip."""
    exposure: bool | None = None
    """Also learn exposures; by default where a run would."""
    batch_size: int = 1
    """Pictures a step."""
    warm_up: int = 300
    """Steps before the clock runs."""
    steps: int = 1000
    """Timed steps."""
    profiled: int = 50
    """Steps under the profiler."""
    rows: int = 25
    """Lines of each table."""
    peer: Literal["gsplat", "none"] = "none"
    """Also time the loop a user writes on gsplat (train_gsplat.py), with as many Gaussians from the same points, no
    exposures, and one picture a step."""
    device: str = "auto"
    """Where to train."""


def main(options: Options) -> None:
    """Train, time, profile, print."""
    with tempfile.TemporaryDirectory() as folder:
        training = begin(options, Path(folder))
        with make_feed(training) as feed:

            def run(n: int) -> float:
                began = time.perf_counter()
                for _ in range(n):
                    train_step(training, feed)
                synchronize(training.device)
                return time.perf_counter() - began

            run(options.warm_up)
            seconds = run(options.steps)
            print(
                f"{options.scene} {options.method}, {training.method.n_primitives} Gaussians, {training.device}: "
                f"{options.steps / seconds:.1f} steps/s, {1e3 * seconds / options.steps:.3f} ms a step"
            )
            print(
                f"  {options.batch_size} pictures a step; exposure {training.exposure is not None}, saturation "
                f"{training.config.image.saturation}",
                flush=True,
            )
            print(f"  queueing alone: {queueing(training, feed):.3f} ms a step", flush=True)
            activities = [ProfilerActivity.CPU]
            if training.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            with profile(activities=activities) as profiler:
                run(options.profiled)
            show(profiler, options.profiled, options.rows)
        scene = training.scene
    if options.peer == "gsplat":
        del training
        print(f"  loop on gsplat: {1.0 / peer_step(scene, options):.1f} steps/s", flush=True)


def peer_step(scene: Scene, options: Options) -> float:
    """Seconds a step of the loop on gsplat."""
    import train_gsplat

    points = random_points(scene, options.gaussians)
    for steps in (options.warm_up, options.steps):
        trained = train_gsplat.train(
            scene,
            points,
            train_gsplat.Options(options.scene, options.resolution, steps, options.gaussians, options.gaussians),
        )
    return (trained.seconds - trained.loading_seconds) / options.steps


def begin(options: Options, run_dir: Path) -> Training:
    """A run in its middle, from random points."""
    method = {"3dgs": ThreeDGS, "4dgs": FourDGS}[options.method]()
    method = replace(
        method,
        gaussians=GaussianConfig(max_gaussians=options.gaussians, n_first_points=options.gaussians, sh_warm_up=0.0),
    )
    config = TrainConfig(
        method=method,
        scene=options.scene,
        data=LoadOptions(resolution=options.resolution, frames=options.frames),
        schedule=ScheduleConfig(steps=STEPS_OF_RUN, batch_size=options.batch_size),
        corrections=CorrectionConfig(exposure=options.exposure),
        device=options.device,
    )
    config = resolve(config)
    scene = scene_for(config, load_scene(config.scene, config.data))
    points = random_points(scene, options.gaussians)
    training = start(settle(config, scene), scene, points, "random", run_dir, 0.0)
    training.step = STEPS_OF_RUN // 10
    return training


def random_points(scene: Scene, n: int) -> PointCloud:
    """Points of random colours on rays of the cameras, at half to twice the distance of the cameras from their mean."""
    draws = torch.Generator().manual_seed(0)
    cameras = [view.camera for view in scene.train[:: max(1, len(scene.train) // 500)]]
    which = torch.randint(len(cameras), (n,), generator=draws)
    to_world = torch.stack([torch.linalg.inv(camera.world_to_camera) for camera in cameras])[which]
    inverse_K = torch.stack([torch.linalg.inv(camera.K) for camera in cameras])[which]
    size = torch.tensor([cameras[0].width, cameras[0].height, 1.0])
    pixels = torch.rand(n, 3, generator=draws) * size
    pixels[:, 2] = 1.0
    depth = scene.radius * (0.5 + 1.5 * torch.rand(n, 1, generator=draws))
    local = (inverse_K @ pixels[..., None])[..., 0] * depth
    positions = (to_world[:, :3, :3] @ local[..., None])[..., 0] + to_world[:, :3, 3]
    times = None
    if scene.is_moving:
        moments = torch.linspace(scene.times[0], scene.times[-1], KEY_TIMES)
        times = moments[torch.randint(KEY_TIMES, (n,), generator=draws)]
    return PointCloud(positions.float(), torch.randint(256, (n, 3), generator=draws, dtype=torch.uint8), times)


def queueing(training: Training, feed: Feed, n: int = 50) -> float:
    """Milliseconds a step takes the host when each starts with an idle device: what cannot be hidden behind it."""
    total = 0.0
    for _ in range(n):
        synchronize(training.device)
        began = time.perf_counter()
        train_step(training, feed)
        total += time.perf_counter() - began
    return 1e3 * total / n


def show(profiler: profile, n: int, n_rows: int) -> None:
    """Operations and launches a step, of `n` that were profiled, then what costs most."""
    averages = profiler.key_averages()

    def a_step(name: str) -> float:
        return sum(event.count for event in averages if event.key.startswith(name)) / n

    waits = sum(a_step(f"cuda{what}Synchronize") for what in ("Stream", "Device", "Event"))
    print(
        f"  a step: {a_step('aten::'):.0f} operations of torch, {a_step('cudaLaunchKernel'):.0f} launches, "
        f"{a_step('cudaMemcpy'):.1f} copies, {a_step('cudaMemset'):.1f} fills, "
        f"{waits:.2f} waits"
    )
    kernels = [event for event in averages if event.self_device_time_total > 0 and event.self_cpu_time_total == 0]
    busy = sum(event.self_device_time_total for event in kernels)
    print(f"  device busy {1e-3 * busy / n:.3f} ms a step")
    print("  host, ms a step (own)                                            calls")
    for event in sorted(averages, key=lambda event: -event.self_cpu_time_total)[:n_rows]:
        print(f"  {1e-3 * event.self_cpu_time_total / n:8.4f}  {event.key[:52]:52} {event.count / n:7.2f}")
    if kernels:
        print("  device, ms a step")
        for event in sorted(kernels, key=lambda event: -event.self_device_time_total)[:n_rows]:
            name = event.key.removeprefix("void ").replace("kinosplat::gpu::(anonymous namespace)::", "")
            print(f"  {1e-3 * event.self_device_time_total / n:8.4f}  {name[:52]:52} {event.count / n:7.2f}")


def synchronize(device: torch.device) -> None:
    """Wait for a CUDA device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main(tyro.cli(Options))
