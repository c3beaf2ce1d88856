"""`kinosplat bench`: how fast a run or a file renders, on the orbit that the viewer's Benchmark button takes.

Every frame is timed by itself (render/timing.py); reading back, encoding and display are not part of it. The first
frames warm up and do not count. The passes of the rasterizer are timed in further frames.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kinosplat.errors import InputError
from kinosplat.opening import open_subject
from kinosplat.viewer.measure import benchmark


@dataclass(frozen=True)
class BenchCommand:
    """Time the renderer on a run: a fixed orbit after warm-up, median and tail of the milliseconds a frame."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or a file of Gaussians."""
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


def run(arguments: Sequence[str], program: str) -> int:
    """Measure and print."""
    command = tyro.cli(BenchCommand, args=arguments, prog=program)
    if command.n_frames < 1 or command.warm_up < 0:
        raise InputError("--n-frames must be at least 1 and --warm-up at least 0.")
    subject = open_subject(command.run, checkpoint=command.checkpoint, device=command.device)
    first = subject.cameras[0]
    width, height = command.resolution or (first.width, first.height)
    timing = benchmark(subject, width, height, n_frames=command.n_frames, warm_up=command.warm_up)
    if command.json:
        print(json.dumps(dataclasses.asdict(timing)))
        return 0
    print(f"{timing.n_primitives:,} primitives at {timing.width}x{timing.height} on {timing.device}")
    print(f"{timing.visible:,.0f} visible, {timing.hits:,.0f} tile hits a frame")
    print(
        f"median {timing.median_ms:.3f} ms ({timing.fps:.1f} FPS), 95% below {timing.p95_ms:.3f} ms, "
        f"99% below {timing.p99_ms:.3f} ms, over {timing.n_frames} frames"
    )
    if timing.passes_ms:
        print("the passes: " + ", ".join(f"{name} {value:.3f} ms" for name, value in timing.passes_ms.items()))
    return 0
