"""`kinosplat bench`: how fast a run or a file renders, on the orbit that the viewer's Benchmark button takes.

Of a field it also prints the share of every stage, and what marching takes along rays and by blocks, at 1080p and 4K
unless a resolution is given.

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

from kinosplat.commands.marching import marching_by
from kinosplat.compression.hollow import StoredField
from kinosplat.errors import InputError
from kinosplat.opening import open_subject
from kinosplat.render.field.march import MarchBy
from kinosplat.render.field.stages import fused_timing, marching_timing, unfused_seconds
from kinosplat.subjects import FieldSubject, MethodSubject
from kinosplat.trainers.methods.hash_grid import FieldMethod
from kinosplat.viewer.lens import orbit_to_show
from kinosplat.viewer.measure import benchmark
from kinosplat.viewer.subject import Subject

FIELD_SIZES = ((1920, 1080), (3840, 2160))
"""Where the stages of a field are timed: 1080p and 4K."""
FIELD_FRAMES = 12
"""Pictures of the orbit that a field is drawn from, at each size."""


@dataclass(frozen=True)
class BenchCommand:
    """Time the renderer on a run or a file: a fixed orbit after warm-up, median and tail of a frame's milliseconds."""

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
    march: MarchBy = "rays"
    """How pictures of a field find their samples: along each ray, or by the occupied blocks of cells (of objects),
    pass by pass and not in one go."""
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
    subject, field = marching_by(subject, command.march), field_of(subject)
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
    if field is not None:
        sizes = FIELD_SIZES if command.resolution is None else (command.resolution,)
        for size in sizes:
            print_stages(subject, field, *size)
    if timing.passes_ms:
        print("the passes: " + ", ".join(f"{name} {value:.3f} ms" for name, value in timing.passes_ms.items()))
    return 0


def field_of(subject: Subject) -> StoredField | None:
    """What is drawn, if it is a field."""
    if isinstance(subject, FieldSubject):
        return subject.stored
    if isinstance(subject, MethodSubject) and isinstance(subject.method, FieldMethod):
        method = subject.method
        return StoredField(method.field(), method.grid, method.near)
    return None


def print_stages(subject: Subject, stored: StoredField, width: int, height: int) -> None:
    """Frames a second of a field drawn in one go, the share of each stage, fused and not, and what marching takes."""
    field, grid, background = stored.field, stored.grid, subject.background
    cameras = orbit_to_show(subject.cameras, FIELD_FRAMES, subject.times, width, height)
    fused = fused_timing(field, grid, cameras, background, stored.near)
    if fused is not None:
        shares = ", ".join(f"{stage} {share:.0%}" for stage, share in fused.shares.items())
        print(
            f"{width}x{height} in one go, {fused.n_samples:,} samples: {fused.median_ms:.2f} ms "
            f"({1e3 / fused.median_ms:.1f} FPS)" + (f": {shares}" if shares else "")
        )
    for warm in (False, True):
        seconds = unfused_seconds(field, grid, cameras[0], background, stored.near)
        if not warm and subject.device.type == "cpu":
            break  # nothing there gets faster the second time
    total = sum(seconds.values())
    shares = ", ".join(f"{stage} {value / total:.0%}" for stage, value in seconds.items())
    print(f"{width}x{height} stage by stage: {1e3 * total:.1f} ms: {shares}")
    for by, marching in marching_timing(grid, cameras[0], stored.near).items():
        print(
            f"{width}x{height} marching by {by}: {marching.median_ms:.2f} ms, {marching.n_samples:,} samples, "
            f"{marching.n_visited:,} cells and blocks looked at"
        )
