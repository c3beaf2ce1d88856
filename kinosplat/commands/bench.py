"""`kinosplat bench`: how fast a run or a file renders, on the orbit that the viewer's Benchmark button takes.

Of a field it also prints the share of every stage, and what marching takes along rays and by blocks: at 1080p and 4K
on a GPU, at the size of the run's pictures on a CPU, or at the resolution that is given.

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
from kinosplat.render.field.stages import Fused, Marching, Stage, fused_timing, marching_timing, unfused_seconds
from kinosplat.subjects import FieldSubject, MethodSubject
from kinosplat.trainers.methods.hash_grid import FieldMethod
from kinosplat.trainers.methods.option_checks import at_least
from kinosplat.viewer.lens import orbit_to_show
from kinosplat.viewer.measure import benchmark
from kinosplat.viewer.subject import Subject

FIELD_SIZES = ((1920, 1080), (3840, 2160))
"""Where the stages of a field are timed on a GPU: 1080p and 4K."""
FIELD_FRAMES = 12
"""Pictures of the orbit that a field is drawn from, at each size."""


@dataclass(frozen=True)
class FieldStages:
    """Where a picture of a field spends its time at one size."""

    width: int
    """Of the picture."""
    height: int
    """Of the picture."""
    in_one_go: Fused | None
    """Drawn by the fused kernels; None where a field like this one is not."""
    unfused_seconds: dict[Stage, float]
    """Seconds of each stage, drawn one stage after the other."""
    marching: dict[MarchBy, Marching]
    """What marching takes by itself, along rays and, around objects, by blocks."""

    def lines(self) -> list[str]:
        """The same for reading."""
        size, lines = f"{self.width}x{self.height}", []
        if self.in_one_go is not None:
            one = self.in_one_go
            shares = ", ".join(f"{stage} {share:.0%}" for stage, share in one.shares.items())
            lines.append(
                f"{size} in one go, {one.n_samples:,} samples: {one.median_ms:.2f} ms "
                f"({1e3 / one.median_ms:.1f} FPS)" + (f": {shares}" if shares else "")
            )
        total = sum(self.unfused_seconds.values())
        shares = ", ".join(f"{stage} {value / total:.0%}" for stage, value in self.unfused_seconds.items())
        lines.append(f"{size} stage by stage: {1e3 * total:.1f} ms: {shares}")
        for by, marching in self.marching.items():
            lines.append(
                f"{size} marching by {by}: {marching.median_ms:.2f} ms, {marching.n_samples:,} samples, "
                f"{marching.n_visited:,} cells and blocks looked at"
            )
        if "blocks" not in self.marching:
            lines.append(f"{size} marching by blocks: not in a scene without bounds")
        return lines


@dataclass(frozen=True)
class BenchCommand:
    """Time the renderer on a run or a file: a fixed orbit after warm-up, median and tail of a frame's milliseconds."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or a file of Gaussians or of a field."""
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
    if command.resolution is not None:
        at_least("--resolution", min(command.resolution), 1)
    subject = open_subject(command.run, checkpoint=command.checkpoint, device=command.device)
    subject, field = marching_by(subject, command.march), field_of(subject)
    first = subject.cameras[0]
    width, height = command.resolution or (first.width, first.height)
    timing = benchmark(subject, width, height, n_frames=command.n_frames, warm_up=command.warm_up)
    sizes = ((width, height),) if command.resolution or subject.device.type == "cpu" else FIELD_SIZES
    stages = [] if field is None else [field_stages(subject, field, *size) for size in sizes]
    if command.json:
        print(json.dumps({**dataclasses.asdict(timing), "field_stages": [dataclasses.asdict(one) for one in stages]}))
        return 0
    what = "primitives" if field is None else "table entries"
    print(f"{timing.n_primitives:,} {what} at {timing.width}x{timing.height} on {timing.device}")
    if field is None:
        print(f"{timing.visible:,.0f} visible, {timing.hits:,.0f} tile hits a frame")
    else:
        print(f"{timing.visible:,.0f} samples a frame")
    print(
        f"median {timing.median_ms:.3f} ms ({timing.fps:.1f} FPS), 95% below {timing.p95_ms:.3f} ms, "
        f"99% below {timing.p99_ms:.3f} ms, over {timing.n_frames} frames"
    )
    for one in stages:
        print("\n".join(one.lines()))
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


def field_stages(subject: Subject, stored: StoredField, width: int, height: int) -> FieldStages:
    """A field drawn in one go and stage by stage, and marched both ways, at one size."""
    field, grid, background = stored.field, stored.grid, subject.background
    cameras = orbit_to_show(subject.cameras, FIELD_FRAMES, subject.times, width, height)
    fused = fused_timing(field, grid, cameras, background, stored.near)
    if subject.device.type != "cpu":  # nothing there gets faster the second time
        unfused_seconds(field, grid, cameras[0], background, stored.near)
    seconds = unfused_seconds(field, grid, cameras[0], background, stored.near)
    return FieldStages(width, height, fused, seconds, marching_timing(grid, cameras[0], stored.near))
