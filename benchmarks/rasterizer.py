"""The CUDA rasterizer beside gsplat, in one process and on the same tensors.

    python benchmarks/rasterizer.py --peer gsplat --trained outputs/dtu_scan24/4dgs/latest --out outputs/rasterizer.json

Measures random scenes, moving ones, and what was trained: runs, or files of Gaussians. Prints a line a side and at the
end a table, and saves all of it: milliseconds forward (no gradients; for us also from a set for drawing, whose
harmonics are in half precision), forward + backward, and a whole training step (forward, loss, backward, optimiser),
each the median of --repeats after warm-up; peak memory above what was there before; the difference of the pictures and
of the gradients; and how far the forward pass is from its floor. gsplat is given activated opacities and scales and
joined colours for the first two, which favours it; in the training step both start from what is optimised, gsplat with
a convolution SSIM and torch's fused Adam. --stages adds the time of every kernel.
"""

from __future__ import annotations

import dataclasses
import json
import statistics as stats
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rasterizer_sides import Gsplat, Ours
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.opening import open_subject
from kinosplat.render.camera import Camera
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.rasterize import rasterize
from kinosplat.render.statistics import GaussianStatistics
from scenes import front_camera, random_gaussians

OPERATIONS_A_CONTRIBUTION = 18
"""Instructions one Gaussian costs at one pixel at least: exponent, power, transmittance, three colours, two
comparisons.
"""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    sizes: tuple[int, ...] = (200_000, 1_000_000, 3_000_000)
    """Numbers of Gaussians of the random scenes."""
    resolution: tuple[int, int] = (1920, 1080)
    """Width and height of the pictures."""
    peer: Literal["gsplat", "none"] = "none"
    """What to measure beside our own rasterizer."""
    trained: tuple[Path, ...] = ()
    """Folders of runs, or files of Gaussians, to measure as well: seen from their first camera, in the middle of the
    clip.
    """
    moving: bool = True
    """Also measure moving sets: 300k at 1352x1014, and 3M of which a tenth is alive."""
    repeats: int = 30
    """Measured calls; the table has their median."""
    stages: bool = False
    """Also print the time of every kernel."""
    out: Path | None = None
    """JSON file to save the table to."""


def milliseconds(call: Callable[[], Any], repeats: int) -> float:
    """Median over `repeats` calls, each between two events on the stream."""
    for _ in range(5):
        call()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        times.append((start, end))
    torch.cuda.synchronize()
    return stats.median(start.elapsed_time(end) for start, end in times)


def peak_mib(side: Ours | Gsplat, call: Callable[[], Any]) -> float:
    """Most memory during a call above the parameters (and the optimiser's moments), gradients included, MiB."""
    call()
    side.drop_gradients()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def bytes_a_second() -> float:
    """What a large copy on the device moves, bytes read plus bytes written."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / (milliseconds(lambda: target.copy_(source), 10) * 1e-3)


def forward_floor(gaussians: Gaussians, camera: Camera, bandwidth: float) -> tuple[float, int, int]:
    """Milliseconds the forward pass takes at least, hits, and contributions (pairs of a Gaussian and a pixel it
    reaches).

    Memory: every visible Gaussian's parameters read once, opacities of the rest, every hit's key and row written and
    read once, the picture written once. Arithmetic: each contribution's instructions at 128 lanes an SM and clock.
    """
    statistics = GaussianStatistics.zeros(len(gaussians), gaussians.device)
    with torch.no_grad():
        output = rasterize(gaussians, [camera], statistics=statistics)
    numbers = sum(tensor[0].numel() for tensor in gaussians.parameters().values())
    moved = 4 * numbers * output.n_visible + 12 * output.n_hits + 16 * camera.width * camera.height
    contributions = int(statistics.n_pixels.sum(dtype=torch.int64))
    device = torch.cuda.get_device_properties(0)
    rate = device.multi_processor_count * 128 * getattr(device, "clock_rate", 1_755_000) * 1e3
    seconds = max(moved / bandwidth, contributions * OPERATIONS_A_CONTRIBUTION / rate)
    return 1e3 * seconds, output.n_hits, contributions


def psnr_between(a: Tensor, b: Tensor) -> float:
    """Of two pictures, not rounded, dB."""
    return float(-10 * torch.log10((a - b).double().square().mean()))


def gradient_error(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, float]:
    """Norm of the difference over the norm, for each parameter, where the peer's gradient is finite (slicing a still
    Gaussian in torch gives NaN).
    """
    finite = {name: torch.isfinite(g) for name, g in theirs.items()}
    return {name: float((ours[name] - g)[finite[name]].norm() / g[finite[name]].norm()) for name, g in theirs.items()}


def kernel_times(call: Callable[[], Any], repeats: int = 5) -> dict[str, float]:
    """Milliseconds a call spends in each kernel."""
    from torch.profiler import ProfilerActivity, profile

    call()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(repeats):
            call()
        torch.cuda.synchronize()
    totals: dict[str, float] = {}
    for event in profiler.key_averages():
        total = getattr(event, "self_device_time_total", 0) or getattr(event, "self_cuda_time_total", 0)
        if total > 0:
            totals[short_name(event.key)] = totals.get(short_name(event.key), 0.0) + total / repeats / 1e3
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def short_name(kernel: str) -> str:
    """A kernel's name without namespaces and parameters."""
    return (
        kernel.replace("(anonymous namespace)::", "").replace("void ", "").split("(")[0].split("<")[0].split("::")[-1]
    )


@dataclass(frozen=True)
class Subject:
    """What is rendered, and from where."""

    name: str
    gaussians: Gaussians
    camera: Camera


def random_subject(n: int, resolution: tuple[int, int]) -> Subject:
    """One of the random scenes."""
    return Subject("random", random_gaussians(n, device="cuda"), front_camera(*resolution, device="cuda"))


def trained_subject(path: Path) -> Subject:
    """A run or a file, from its first camera, in the middle of the clip."""
    opened = open_subject(path, device="cuda")
    gaussians = opened.gaussians()
    if gaussians is None:
        raise InputError(f"{path} holds no Gaussians; name a run of a Gaussian method or a file of Gaussians.")
    camera = opened.cameras[0].to("cuda")
    if gaussians.is_moving:
        camera = camera.at(opened.times[len(opened.times) // 2])
    return Subject(path.stem if path.is_file() else "/".join(path.parts[-3:]), gaussians.detach(), camera)


def measure(options: Options, subject: Subject, bandwidth: float) -> list[dict[str, Any]]:
    """One scene: a row for us, and one for the peer."""
    gaussians, camera = subject.gaussians, subject.camera
    floor, n_hits, contributions = forward_floor(gaussians, camera, bandwidth)
    generator = torch.Generator("cuda").manual_seed(0)
    target = torch.rand(1, camera.height, camera.width, 3, generator=generator, device="cuda")
    sides: list[Any] = [Ours(gaussians, camera, target)]
    if options.peer == "gsplat":
        sides.append(Gsplat(gaussians, camera, target))
    gradient_mib = sum(tensor.numel() for tensor in gaussians.parameters().values()) * 4 / 2**20
    rows = []
    for side in sides:
        row = {
            "scene": subject.name,
            "side": side.name,
            "n": len(gaussians),
            "hits": n_hits,
            "contributions": contributions,
            "resolution": f"{camera.width}x{camera.height}",
            "ms_forward": milliseconds(side.forward, options.repeats),
            "ms_forward_backward": milliseconds(side.forward_backward, options.repeats),
            "mib_gradients": gradient_mib,
            "mib_forward": peak_mib(side, side.forward),
            "mib_forward_backward": peak_mib(side, side.forward_backward),
        }
        row["ms_step"] = milliseconds(side.step, options.repeats)
        row["mib_step"] = peak_mib(side, side.step)
        side.release()
        row["over_floor"] = row["ms_forward"] / floor
        if isinstance(side, Ours):
            row["ms_for_drawing"] = milliseconds(side.forward_for_drawing, options.repeats)
            row["psnr_for_drawing"] = psnr_between(side.forward_for_drawing(), side.forward())
            side.release()
        if options.stages:
            row["kernels_forward"] = kernel_times(side.forward)
            row["kernels_step"] = kernel_times(side.step)
            side.release()
        rows.append(row)
    if len(sides) == 2:
        for side in sides:
            side.leaves = gaussians.map(lambda tensor: tensor.clone().requires_grad_())
        exact = rasterize(sides[0].leaves, [camera]).rgb.detach()
        rows[0]["psnr_to_peer"] = psnr_between(sides[0].forward(), sides[1].forward())
        rows[0]["psnr_packed_to_exact"] = psnr_between(sides[0].forward(), exact)
        rows[0]["gradient_error"] = gradient_error(sides[0].forward_backward(), sides[1].gradients())
        for key in ("ms_forward", "ms_forward_backward", "ms_step"):
            rows[0][f"times_faster_{key[3:]}"] = rows[1][key] / rows[0][key]
        rows[0]["times_faster_for_drawing"] = rows[1]["ms_forward"] / rows[0]["ms_for_drawing"]
    return rows


def measure_moving(options: Options) -> list[dict[str, Any]]:
    """Frames of moving sets: all alive, and a tenth of them."""
    camera = front_camera(1352, 1014, device="cuda", focal=1000.0, time=5.0)
    rows = []
    for n, alive in ((300_000, 1.0), (3_000_000, 0.1)):
        gaussians = random_gaussians(n, device="cuda", moving=True, alive=alive)
        side = Ours(gaussians, camera, torch.rand(1, 1014, 1352, 3, device="cuda"))
        with torch.no_grad():
            output = rasterize(gaussians, [camera])
        forward = milliseconds(side.forward, options.repeats)
        row = {
            "scene": f"moving, {alive:.0%} alive",
            "side": "kinosplat",
            "n": n,
            "visible": output.n_visible,
            "hits": output.n_hits,
            "resolution": "1352x1014",
            "ms_forward": forward,
            "fps": 1e3 / forward,
            "ms_forward_backward": milliseconds(side.forward_backward, options.repeats),
        }
        if options.stages:
            row["kernels_forward"] = kernel_times(side.forward)
        rows.append(row)
    return rows


def main(options: Options) -> None:
    """Measure, print, save."""
    bandwidth = bytes_a_second()
    print(f"{torch.cuda.get_device_name()}, copies move {bandwidth / 1e12:.2f} TB/s", flush=True)
    rows: list[dict[str, Any]] = []
    subjects = [partial(random_subject, n, options.resolution) for n in options.sizes]
    subjects += [partial(trained_subject, path) for path in options.trained]
    for subject in subjects:
        measured = measure(options, subject(), bandwidth)
        print_rows(measured)
        rows += measured
        torch.cuda.empty_cache()
    if options.moving:
        moving = measure_moving(options)
        print_rows(moving)
        rows += moving
    print_table(rows)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        table = {
            "device": torch.cuda.get_device_name(),
            "bandwidth": bandwidth,
            "options": dataclasses.asdict(options),
            "rows": rows,
        }
        options.out.write_text(json.dumps(table, indent=1, default=str) + "\n")


def print_rows(rows: list[dict[str, Any]]) -> None:
    """One line a row, numbers rounded; kernels below."""
    for row in rows:
        line = []
        for key, value in row.items():
            if isinstance(value, float):
                line.append(f"{key} {value:.3f}")
            elif isinstance(value, dict) and not key.startswith("kernels"):
                line.append(f"{key} " + " ".join(f"{k}:{v:.1e}" for k, v in value.items()))
            elif not isinstance(value, dict):
                line.append(f"{key} {value}")
        print(" | ".join(line), flush=True)
        for key, value in row.items():
            if key.startswith("kernels"):
                print(f"  {key}: " + ", ".join(f"{name} {ms:.3f}" for name, ms in list(value.items())[:18]), flush=True)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Everything of one scene and side in a line of Markdown; memory is that of forward, + backward and step."""
    columns = ("scene", "side", "N", "hits", "resolution", "for drawing ms", "forward ms", "+ backward ms", "step ms")
    columns += ("peak MiB",)
    columns += ("of it gradients", "dB between", "over floor")
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    timed = ("ms_for_drawing", "ms_forward", "ms_forward_backward", "ms_step")
    for row in rows:
        times = [f"{row[key]:.3f}" if key in row else "" for key in timed]
        memory = [f"{row[key]:.0f}" for key in ("mib_forward", "mib_forward_backward", "mib_step") if key in row]
        gradients = f"{row['mib_gradients']:.0f}" if "mib_gradients" in row else ""
        decibels = f"{row['psnr_to_peer']:.0f}" if "psnr_to_peer" in row else ""
        floor = f"{row['over_floor']:.1f}" if "over_floor" in row else ""
        cells = (row["scene"], row["side"], row["n"], row["hits"], row["resolution"], *times, " / ".join(memory))
        print("| " + " | ".join(map(str, (*cells, gradients, decibels, floor))) + " |")


if __name__ == "__main__":
    main(tyro.cli(Options))
