"""How fast something renders: every frame timed alone, so that the figure is a frame's latency.

On a GPU two events around each frame measure it, with a wait in between frames; on the CPU the clock does. The first
frames warm up and do not count. Encoding, reading back and display are not part of it.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from kinosplat.render.camera import Camera
from kinosplat.render.output import RenderOutput


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


@torch.no_grad()
def measure(
    render: Callable[[Camera], RenderOutput],
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
    milliseconds, visible, hits = [], [], []
    for i, camera in enumerate(cameras):
        elapsed, output = _timed(render, camera, device)
        milliseconds.append(elapsed)
        visible.append(output.n_visible)
        hits.append(output.n_hits)
        if progress is not None:
            progress(i + 1)
    ordered = sorted(milliseconds)

    def below(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    median = statistics.median(ordered)
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
    )


def _timed(
    render: Callable[[Camera], RenderOutput], camera: Camera, device: torch.device
) -> tuple[float, RenderOutput]:
    """Milliseconds of one frame, and the frame."""
    if device.type != "cuda":
        begin = time.perf_counter()
        output = render(camera)
        return 1e3 * (time.perf_counter() - begin), output
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        output = render(camera)
        last.record()
        last.synchronize()
    return first.elapsed_time(last), output


def device_words(device: torch.device) -> str:
    """The device in words for a report, such as `cpu (x86_64, 2 threads)` or `cuda (NVIDIA H100)`."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"
