"""Training, ours and the loop a user writes on gsplat, one after the other in one process.

    python benchmarks/training.py --scene dtu_scan24 --resolution 800 600 --peer gsplat

Both sides get the same pictures, first points, cap, steps and order of degrees; held-out views are measured by the same
code, each side drawn by its own rasterizer. Seconds are those of training with the loading of pictures, without first
points. Prints a table, and saves it with --out.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import train_gsplat
import tyro
from torch import Tensor

from kinosplat.render import Camera, Gaussians, RasterSettings, RenderOutput, rasterize
from kinosplat.scenes import LoadOptions, PointCloud, Scene, first_points, load_scene
from kinosplat.trainers.callbacks import Callbacks
from kinosplat.trainers.config import ScheduleConfig, TrainConfig
from kinosplat.trainers.evaluate import Evaluation, evaluate
from kinosplat.trainers.loop import train_to_the_end
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.methods.presets import resolve
from kinosplat.trainers.report import peak_memory_mib
from kinosplat.trainers.training import scene_for, settle, start
from kinosplat.trainers.utilisation import Utilisation

WARM_UP_STEPS = 50
"""Steps of a run that does not count: kernels are loaded, memory is taken."""


@dataclass(frozen=True)
class Options:
    """What to compare."""

    scene: str
    """Path or name of a static scene."""
    resolution: tuple[int, int] | None = None
    """Width and height of the pictures."""
    methods: tuple[Literal["3dgs", "4dgs"], ...] = ("3dgs", "4dgs")
    """Ours."""
    peer: Literal["gsplat", "none"] = "none"
    """What to measure beside them."""
    steps: int = 5000
    """Optimisation steps, one picture each."""
    max_gaussians: int = 300_000
    """Cap, and number of first points."""
    seed: int = 0
    """Seed of everything."""
    device: str = "cuda"
    """Where to train."""
    out: Path | None = None
    """JSON file to save the table to."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    side: str
    """Who trained."""
    seconds: float
    """Of training, loading pictures included."""
    steps_per_second: float
    """Mean."""
    psnr: float
    """dB, held-out views, the pixels that count in training."""
    ssim: float
    """Of the same."""
    psnr_masked: float | None
    """dB inside the masks, where there are any."""
    n_gaussians: int
    """At the end."""
    peak_mib: float
    """Of the device's memory."""
    utilisation: float | None
    """Share of the time in which the device ran something."""


@dataclass(frozen=True)
class Shown:
    """A set of Gaussians as the evaluation asks for it."""

    gaussians: Gaussians
    settings: RasterSettings

    def render(self, cameras: Sequence[Camera], background: Tensor, *, geometry: bool = False) -> RenderOutput:
        """Pictures of `cameras`."""
        return rasterize(self.gaussians, cameras, background=background, settings=self.settings)


def main(options: Options) -> None:
    """Train all sides, print, save."""
    scene = load_scene(options.scene, LoadOptions(resolution=options.resolution))
    points, source = first_points(scene, options.max_gaussians, seed=options.seed, device=options.device)
    camera = scene.train[0].camera
    print(f"{scene.name}, {camera.width}x{camera.height}, {len(scene.train)} pictures, {options.steps} steps; {source}")
    rows = []
    for method in options.methods:
        ours(method, scene, points, options, WARM_UP_STEPS)
        rows.append(ours(method, scene, points, options, options.steps))
        show(rows[-1])
    if options.peer == "gsplat":
        theirs(scene, points, options, WARM_UP_STEPS)
        rows.append(theirs(scene, points, options, options.steps))
        show(rows[-1])
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")


def ours(name: Literal["3dgs", "4dgs"], scene: Scene, points: PointCloud, options: Options, steps: int) -> Row:
    """Train with our loop, in a folder that is thrown away."""
    method = {"3dgs": ThreeDGS, "4dgs": FourDGS}[name]()
    config = TrainConfig(
        method=replace(method, gaussians=replace(method.gaussians, max_gaussians=options.max_gaussians)),
        scene=options.scene,
        schedule=ScheduleConfig(steps=steps, seed=options.seed),
        device=options.device,
    )
    config = resolve(config)
    seen = scene_for(config, scene)
    config = settle(config, seen)
    with tempfile.TemporaryDirectory() as folder:
        reset_peak()
        training = start(config, seen, points, "shared", Path(folder), 0.0)
        utilisation = Utilisation(training.device)
        began = time.perf_counter()
        train_to_the_end(training, Callbacks(), utilisation)
        seconds = time.perf_counter() - began
        peak = peak_memory_mib(training.device)
        evaluation = evaluate(
            training.method,
            scene.test,
            training.background.evaluation_color(),
            mask_use=config.image.settled_mask_use,
        )
    return row(f"kinosplat {name}", seconds, steps, evaluation, training.method.n_primitives, peak, utilisation.mean)


def theirs(scene: Scene, points: PointCloud, options: Options, steps: int) -> Row:
    """Train with the loop on gsplat."""
    reset_peak()
    trained = train_gsplat.train(
        scene,
        points,
        train_gsplat.Options(
            scene=options.scene,
            steps=steps,
            max_gaussians=options.max_gaussians,
            n_first_points=options.max_gaussians,
            seed=options.seed,
        ),
    )
    evaluation = evaluate_set(trained.gaussians, scene, rasterizer="gsplat")
    return row("gsplat loop", trained.seconds, steps, evaluation, len(trained.gaussians), trained.peak_mib, None)


def evaluate_set(gaussians: Gaussians, scene: Scene, *, rasterizer: Literal["native", "gsplat"]) -> Evaluation:
    """Held-out views of a set, over black, with masks meaning what the format says."""
    shown: Any = Shown(gaussians, RasterSettings(rasterizer=rasterizer))
    use: Literal["object-only", "ignore-outside"] = "object-only" if scene.masks_cut_out else "ignore-outside"
    return evaluate(shown, scene.test, torch.zeros(3, device=gaussians.device), mask_use=use)


def row(
    side: str, seconds: float, steps: int, evaluation: Evaluation, n: int, peak: float, utilisation: float | None
) -> Row:
    """A line from what was measured."""
    return Row(
        side=side,
        seconds=seconds,
        steps_per_second=steps / seconds,
        psnr=evaluation.psnr,
        ssim=evaluation.ssim,
        psnr_masked=evaluation.psnr_masked,
        n_gaussians=n,
        peak_mib=peak,
        utilisation=utilisation,
    )


def reset_peak() -> None:
    """Let each side start with the memory the last one left."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def show(line: Row) -> None:
    """Print one line."""
    masked = "" if line.psnr_masked is None else f" | inside masks {line.psnr_masked:.2f} dB"
    busy = "" if line.utilisation is None else f" | busy {100 * line.utilisation:.0f}%"
    print(
        f"{line.side:15} | {line.seconds:6.1f} s | {line.steps_per_second:6.1f} steps/s | {line.psnr:5.2f} dB | "
        f"SSIM {line.ssim:.4f}{masked} | {line.n_gaussians} Gaussians | {line.peak_mib:.0f} MiB{busy}",
        flush=True,
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
