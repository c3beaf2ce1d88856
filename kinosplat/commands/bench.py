"""`kinosplat bench`: how fast a run renders, on a fixed orbit, without reading or writing pictures.

Every frame is timed alone, between two waits for the device, so the figure is a frame's latency and not an average over
frames in flight; encoding and display are not part of it. The first frames warm up and do not count.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from kinosplat.errors import InputError
from kinosplat.render.camera import Camera
from kinosplat.render.paths import orbit
from kinosplat.trainers.report import device_words
from kinosplat.trainers.run import LoadedRun, load_run


@dataclass(frozen=True)
class BenchCommand:
    """Time the renderer on a run: a fixed orbit after warm-up, median and tail of the milliseconds a frame."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    n_frames: int = 200
    """Frames of the orbit that count."""
    warm_up: int = 20
    """Frames before, that do not."""
    resolution: tuple[int, int] | None = None
    """Width and height; by default those of the run's pictures."""
    checkpoint: Literal["last", "best"] = "last"
    """Which checkpoint of the run."""
    device: str = "auto"
    """cpu, cuda, cuda:1, or auto."""
    json: bool = False
    """Print JSON instead of lines."""


@dataclass(frozen=True)
class Timing:
    """What was measured."""

    device: str
    """Where."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    n_frames: int
    """Frames that counted."""
    n_primitives: int
    """Gaussians of the model."""
    visible: float
    """Gaussians that took part in a frame, mean."""
    hits: float
    """Pairs of a Gaussian and a tile it touches in a frame, mean."""
    median_ms: float
    """Milliseconds a frame."""
    p95_ms: float
    """Milliseconds that 95 of 100 frames stay below."""
    p99_ms: float
    """Milliseconds that 99 of 100 frames stay below."""
    fps: float
    """Frames a second at the median."""


def run(arguments: Sequence[str], program: str) -> int:
    """Measure and print."""
    command = tyro.cli(BenchCommand, args=arguments, prog=program)
    if command.n_frames < 1 or command.warm_up < 0:
        raise InputError("--n-frames must be at least 1 and --warm-up at least 0.")
    loaded = load_run(command.run, command.checkpoint, command.device)
    scene = loaded.scene()
    cameras = orbit(
        [view.camera for view in scene.train],
        command.n_frames,
        times=(scene.times[0], scene.times[-1]) if scene.is_moving else None,
    )
    if command.resolution is not None:
        cameras = [camera.resized(*command.resolution) for camera in cameras]
    timing = measure(loaded, cameras, command.warm_up)
    if command.json:
        print(json.dumps(dataclasses.asdict(timing)))
        return 0
    print(f"{timing.n_primitives:,} primitives at {timing.width}x{timing.height} on {timing.device}")
    print(f"{timing.visible:,.0f} visible, {timing.hits:,.0f} tile hits a frame")
    print(
        f"median {timing.median_ms:.3f} ms ({timing.fps:.1f} FPS), 95% below {timing.p95_ms:.3f} ms, "
        f"99% below {timing.p99_ms:.3f} ms, over {timing.n_frames} frames"
    )
    return 0


@torch.no_grad()
def measure(loaded: LoadedRun, cameras: Sequence[Camera], warm_up: int) -> Timing:
    """Render every camera once and time it, after `warm_up` frames that do not count."""
    device = loaded.background.device
    cameras = [camera.to(device) for camera in cameras]
    for i in range(warm_up):
        loaded.method.render([cameras[i % len(cameras)]], loaded.background)
    seconds, visible, hits = [], [], []
    for camera in cameras:
        _wait(device)
        begin = time.perf_counter()
        output = loaded.method.render([camera], loaded.background)
        _wait(device)
        seconds.append(time.perf_counter() - begin)
        visible.append(output.n_visible)
        hits.append(output.n_hits)
    ordered = sorted(1e3 * second for second in seconds)

    def below(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    median = statistics.median(ordered)
    return Timing(
        device=device_words(device),
        width=cameras[0].width,
        height=cameras[0].height,
        n_frames=len(cameras),
        n_primitives=loaded.method.n_primitives,
        visible=statistics.fmean(visible),
        hits=statistics.fmean(hits),
        median_ms=median,
        p95_ms=below(0.95),
        p99_ms=below(0.99),
        fps=1e3 / median,
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
