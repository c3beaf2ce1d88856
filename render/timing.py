"""How fast something renders: every frame timed by itself, one frame after another.

On a GPU two events around each frame measure it, with nothing to wait for between frames, as in
benchmarks/rasterizer.py; on the CPU the clock does. The first frames warm up and do not count. Encoding, reading back
and display are not part of it.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from kinosplat.render.camera import Camera
from kinosplat.render.output import RenderOutput
from kinosplat.render.pass_times import PASSES, Mark, Pass, PassTimes, seconds_between

N_PASSES_TIMED = 50
"""Further frames whose passes are timed."""


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
    """Gaussians of the model, or entries of a field's table."""
    visible: float
    """Gaussians that took part in a frame, or samples of a field, mean."""
    hits: float
    """Pairs of a Gaussian and a tile it touches in a frame, mean; 0 of a field."""
    median_ms: float
    """Milliseconds a frame."""
    p95_ms: float
    """Milliseconds that 95 of 100 frames stay below."""
    p99_ms: float
    """Milliseconds that 99 of 100 frames stay below."""
    fps: float
    """Frames a second at the median."""
    passes_ms: dict[Pass, float]
    """Milliseconds of each pass of the rasterizer, median of further frames; empty where there is none."""


class Render(Protocol):
    """Renders one camera; marks `times` between the passes of a rasterizer, if it has one."""

    def __call__(self, camera: Camera, times: PassTimes | None = None) -> RenderOutput:
        """One picture."""


@torch.no_grad()
def measure(
    render: Render,
    cameras: Sequence[Camera],
    *,
    device: torch.device,
    n_primitives: int,
    warm_up: int = 20,
    progress: Callable[[int], None] | None = None,
) -> Timing:
    """Render every camera once and time it, after `warm_up` frames that do not count.

    `progress` is told after every frame how many are done, outside of what is timed.
    """
    cameras = [camera.to(device) for camera in cameras]
    for i in range(warm_up):
        render(cameras[i % len(cameras)])
    marks, visible, hits = [], [], []
    for i, camera in enumerate(cameras):
        begin, output, end = _timed(render, camera, device)
        marks.append((begin, end))
        visible.append(output.n_visible)
        hits.append(output.n_hits)
        if progress is not None:
            progress(i + 1)
    milliseconds = sorted(1e3 * seconds_between(begin, end) for begin, end in marks)

    def below(share: float) -> float:
        return milliseconds[min(len(milliseconds) - 1, int(share * len(milliseconds)))]

    median = statistics.median(milliseconds)
    return Timing(
        device=device_words(device),
        width=cameras[0].width,
        height=cameras[0].height,
        n_frames=len(cameras),
        n_primitives=n_primitives,
        visible=statistics.fmean(visible),
        hits=statistics.fmean(hits),
        median_ms=median,
        p95_ms=below(0.95),
        p99_ms=below(0.99),
        fps=1e3 / median,
        passes_ms=_passes(render, cameras[:: max(1, len(cameras) // N_PASSES_TIMED)]),
    )


def _timed(render: Render, camera: Camera, device: torch.device) -> tuple[Mark, RenderOutput, Mark]:
    """One frame between two marks."""
    if device.type != "cuda":
        clock = time.perf_counter()
        output = render(camera)
        return clock, output, time.perf_counter()
    with torch.cuda.device(device):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        output = render(camera)
        end.record()
    return begin, output, end


def _passes(render: Render, cameras: Sequence[Camera]) -> dict[Pass, float]:
    """Milliseconds of each pass, median over the cameras."""
    frames = []
    for camera in cameras:
        times = PassTimes()
        render(camera, times)
        frames.append(times.seconds())
    return {name: 1e3 * statistics.median(frame[name] for frame in frames) for name in PASSES if name in frames[0]}


def device_words(device: torch.device) -> str:
    """The device in words for a report, such as `cpu (x86_64, 2 threads)` or `cuda (NVIDIA H100)`."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    n_threads = torch.get_num_threads()
    return f"{device.type} ({platform.machine()}, {n_threads} thread{'s' if n_threads != 1 else ''})"
