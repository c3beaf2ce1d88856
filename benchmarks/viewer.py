"""Delivered frames a second of the viewer, counted by a client without a browser that receives and decodes every frame.

    python benchmarks/viewer.py RUN --resolution 480 360
    python benchmarks/viewer.py --n-gaussians 1000000 --resolution 1280 720
    python benchmarks/viewer.py --agreement

The client is a process of its own that turns its camera around the scene. First it turns faster than pictures can
come: that is the delivered rate, and the time from one delivered frame to the next. Then it turns 60 times a second, as
a page does: what one picture takes from the beginning of rendering until it is handed to the network, by stages. Both
are compared with the bare renderer on the same orbit, same size; what they take above it is the overhead of the viewer.
`--agreement` measures 300k moving Gaussians at 1352x1014 as `kinosplat bench` does and as benchmarks/rasterizer.py
does, in turns.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import torch
import tyro
from headless_page import HeadlessPage, Seen

from kinosplat.opening import open_subject
from kinosplat.render.camera import Camera
from kinosplat.render.output import RenderOutput
from kinosplat.render.pass_times import PassTimes
from kinosplat.render.rasterize import rasterize
from kinosplat.render.timing import measure
from kinosplat.starting import cameras_around
from kinosplat.viewer.encode import PictureEncoder
from kinosplat.viewer.lens import orbit_to_show
from kinosplat.viewer.measure import benchmark
from kinosplat.viewer.server import ServerOptions, ViewerServer
from kinosplat.viewer.stages import FrameMeter, Stage
from kinosplat.viewer.subject import GaussianSubject, Subject
from scenes import front_camera, random_gaussians

FASTEST = 400.0
"""Inputs a second, more than can be answered, so that what is counted is the limit."""
PAGE_RATE = 60.0
"""Inputs a second of a page on most screens."""


@dataclass(frozen=True)
class Arguments:
    """What to show, and to whom."""

    what: Annotated[Path | None, tyro.conf.Positional] = None
    """Run or file; random Gaussians when left out."""
    n_gaussians: int = 1_000_000
    """Of random Gaussians."""
    resolution: tuple[int, int] = (1280, 720)
    """Size of the client's canvas."""
    adaptive: bool = False
    """Let pictures shrink while moving, as the page does; without, every frame has full size."""
    seconds: float = 8.0
    """How long each client turns, after two seconds that do not count."""
    strips: int | None = None
    """Threads that encode one picture; None as the viewer chooses them."""
    agreement: bool = False
    """Compare the ways to time a frame instead; needs a GPU."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    out: Path | None = None
    """JSON file to save the figures to."""


def main(arguments: Arguments) -> None:
    """Measure, print, save."""
    figures = agreement() if arguments.agreement else delivered(arguments)
    for name, value in figures.items():
        print(f"{name:<44} {value:.3f}" if isinstance(value, float) else f"{name:<44} {value}", flush=True)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n")


def delivered(arguments: Arguments) -> dict[str, float | str]:
    """Serve, let the clients look, say what they got."""
    subject = make_subject(arguments)
    width, height = arguments.resolution
    bare = benchmark(subject, width, height, n_frames=100)
    cameras = orbit_to_show(subject.cameras, 120, subject.times, width, height)
    with ViewerServer(subject, ServerOptions(port=0)) as server:
        if arguments.strips is not None:
            server.renderer.encoder = PictureEncoder(arguments.strips)
        fast, _ = look(server, cameras, arguments, FASTEST)
        paced, meter = look(server, cameras, arguments, PAGE_RATE)
        n_threads = server.renderer.encoder.n_threads
    interval = 1e3 / fast.fps if fast.fps else float("inf")
    last, made = meter.last(), meter.median_ms("made")
    size = "nothing" if fast.size is None else f"{fast.size[0]}x{fast.size[1]}"
    return {
        "device": bare.device,
        "Gaussians": f"{bare.n_primitives:,}, {bare.visible:,.0f} visible",
        "pictures": f"{size}, {0 if last is None else last.n_bytes / 1024:.0f} KiB, {n_threads} threads encode",
        "bare renderer, ms a frame": bare.median_ms,
        "delivered frames a second": fast.fps,
        "from one delivered frame to the next, ms": interval,
        "  interval above the bare renderer, ms": interval - bare.median_ms,
        f"of {PAGE_RATE:.0f} inputs a second delivered": paced.fps,
        "  beginning of rendering to the network, ms": made,
        "  picture above the bare renderer, ms": made - bare.median_ms,
        **{f"  {stage}, ms": meter.median_ms(stage) for stage in (*get_args(Stage), "latency")},
    }


def look(
    server: ViewerServer, cameras: list[Camera], arguments: Arguments, inputs_a_second: float
) -> tuple[Seen, FrameMeter]:
    """What a client gets that turns its camera so often, and what was timed meanwhile."""
    page = HeadlessPage(server.port, cameras, arguments.seconds, inputs_a_second)
    while not server.sessions:
        time.sleep(0.02)
    stream = server.sessions[0].stream
    stream.set_settings(
        dataclasses.replace(stream.settings, target_fps=2 * inputs_a_second, adaptive=arguments.adaptive)
    )
    seen = page.seen()
    while server.sessions:
        time.sleep(0.02)
    return seen, stream.meter


def make_subject(arguments: Arguments) -> Subject:
    """What is shown."""
    if arguments.what is not None:
        return open_subject(arguments.what, device=arguments.device)
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    gaussians = random_gaussians(arguments.n_gaussians, device=device)
    cameras = cameras_around(gaussians, (0.0, -1.0, 0.0), None)
    return GaussianSubject("random", gaussians, cameras, torch.zeros(3, device=device))


def agreement(n_rounds: int = 5, n_frames: int = 200) -> dict[str, float | str]:
    """Median milliseconds of one frame by `kinosplat bench`'s clock and by benchmarks/rasterizer.py's, in turns."""
    from rasterizer import milliseconds
    from rasterizer_sides import Ours

    gaussians = random_gaussians(300_000, device="cuda", moving=True)
    camera = front_camera(1352, 1014, device="cuda", focal=1000.0, time=5.0)
    side = Ours(gaussians, camera, torch.empty(0))

    def render(camera: Camera, times: PassTimes | None = None) -> RenderOutput:
        return rasterize(gaussians, [camera], times=times)

    by_bench, by_rasterizer = [], []
    for _ in range(n_rounds):
        timing = measure(render, [camera] * n_frames, device=gaussians.device, n_primitives=len(gaussians))
        by_bench.append(timing.median_ms)
        by_rasterizer.append(milliseconds(side.forward, n_frames))
    ours, theirs = statistics.median(by_bench), statistics.median(by_rasterizer)
    return {
        "device": timing.device,
        "300k moving, 1352x1014, by bench, ms": ours,
        "the same by rasterizer.py, ms": theirs,
        "difference, %": 100 * (ours / theirs - 1),
        "95% below by bench, ms": timing.p95_ms,
        **{f"{name}, ms": value for name, value in timing.passes_ms.items()},
    }


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
