"""The CPU rasterizer against its floor, and beside the plain-torch reference.

    python benchmarks/rasterizer_cpu.py --out outputs/rasterizer_cpu.json
    python benchmarks/rasterizer_cpu.py --baseline benchmarks/baselines/rasterizer_cpu.json

100k Gaussians with standard deviations of 0.01 to 0.05 units in a cube of 6 units, 6 units away, 800x600 pixels at a
focal length of 500. Prints, as median and minimum over --repeats: the forward pass without gradients, forward +
backward, a whole training step, and every native pass with its floor. The floor is what the pass cannot go below on
this machine at this moment: the arithmetic of the contributions that reach a pixel, over the rate of a matrix product,
or the bytes it must touch, over the rate of a copy, whichever takes longer; both rates are measured between the passes,
since other programs may share the cores. CPU milliseconds are those of all threads together. With --baseline the
program fails when a ratio of measured to floor has grown by more than half.
"""

from __future__ import annotations

import json
import statistics as stats
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from kinosplat.render import (
    Camera,
    Gaussians,
    GaussianStatistics,
    RasterSettings,
    native_cpu,
    native_cpu_step,
    rasterize,
)
from kinosplat.render.adam import AdamTensor, RowAdam
from kinosplat.render.backend import call_cpu
from kinosplat.render.losses import photometric_loss
from scenes import front_camera, random_gaussians

OPERATIONS_FORWARD = 18
"""Vector instructions one Gaussian costs a pixel at least: exponent 5, exponential 6, alpha, transmittance and weight
4, three colours."""
OPERATIONS_BACKWARD = 18 + 20
"""The same and: reciprocal 2, colours 6, alpha's gradient 3, six moments 9."""
FLOATS_A_GAUSSIAN = 59
"""Stored numbers: 3 + 4 + 3 + 1, and 48 of the spherical harmonics."""
PASSES = ("project_forward", "bin", "blend_forward", "blend_backward", "project_backward")
WORSE = 1.5
"""Growth of a ratio to the floor that counts as a step back."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    n: int = 100_000
    """Number of Gaussians."""
    resolution: tuple[int, int] = (800, 600)
    """Width and height of the picture."""
    repeats: int = 20
    """Measured calls."""
    threads: int = 2
    """Threads to use."""
    out: Path | None = None
    """JSON file to save the figures to."""
    baseline: Path | None = None
    """JSON file of earlier figures to compare with."""


@dataclass(frozen=True)
class Times:
    """Milliseconds of several calls."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    def line(self) -> str:
        """Median and minimum of both clocks."""
        values = (stats.median(self.wall), min(self.wall), stats.median(self.cpu), min(self.cpu))
        return "".join(f"{value:10.1f}" for value in values)


class Clock:
    """Collects milliseconds by name."""

    def __init__(self) -> None:
        self.taken: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def time(self, name: str, function: Callable[[], Any]) -> Any:
        """Call the function and note how long it took."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        self.taken[name].append(((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3))
        return result

    def times(self, name: str) -> Times:
        """All that was noted under the name."""
        wall, cpu = zip(*self.taken[name], strict=True)
        return Times(wall, cpu)


class TimedCalls:
    """Stands in for the call of a native pass: times it, and sees every array it is given."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.arrays: dict[str, Tensor] = {}

    def __call__(self, name: str, **arguments: Any) -> Any:
        self.arrays |= {key: value for key, value in arguments.items() if isinstance(value, Tensor)}
        return self.clock.time(name, lambda: call_cpu(name, **arguments))


@dataclass(frozen=True)
class Rates:
    """What the machine gives all threads together at the moment."""

    operations: float
    """Vector instructions' worth of single numbers a millisecond, from a matrix product (one multiply-add each)."""
    bytes: float
    """Bytes a millisecond read and written by a copy."""


class RateMeter:
    """Measures the machine's rates again and again."""

    def __init__(self) -> None:
        self.matrix = torch.rand(768, 768)
        self.source, self.target = torch.rand(2**23), torch.empty(2**23)
        self.clock = Clock()

    def measure(self) -> None:
        """One sample of each."""
        self.clock.time("operations", lambda: self.matrix @ self.matrix)
        self.clock.time("bytes", lambda: self.target.copy_(self.source))

    def rates(self) -> Rates:
        """From the medians of all samples."""
        return Rates(
            operations=768**3 / stats.median(self.clock.times("operations").wall),
            bytes=2 * 4 * 2**23 / stats.median(self.clock.times("bytes").wall),
        )


def floors(rates: Rates, n: int, n_rows: int, n_hits: int, n_contributions: int, n_pixels: int) -> dict[str, float]:
    """Milliseconds no implementation of each pass can beat: its arithmetic or its traffic."""
    row, parameters = 4 * 11, 4 * FLOATS_A_GAUSSIAN * n
    return {
        "project_forward": (parameters + row * n_rows) / rates.bytes,
        "bin": (row * n_rows + 2 * 8 * n_hits) / rates.bytes,
        "blend_forward": max(
            OPERATIONS_FORWARD * n_contributions / rates.operations, (row * n_hits + 20 * n_pixels) / rates.bytes
        ),
        "blend_backward": max(
            OPERATIONS_BACKWARD * n_contributions / rates.operations, (2 * row * n_hits + 20 * n_pixels) / rates.bytes
        ),
        "project_backward": (3 * parameters + 36 * n_hits) / rates.bytes,
    }


def scratch_bytes_a_hit(arrays: dict[str, Tensor], n_hits: int) -> dict[str, float]:
    """Scratch alive at the peak of either pass over the number of hits, without what is kept a pixel."""
    kept = ("indices", "records", "depths", "hit_offsets", "tile_offsets", "hit_rows", "hit_slots")
    forward = ("ellipses", "chunk_rows", "keys", "tile_of_slot", "histograms")
    backward = ("hit_gradients", "tile_backgrounds")

    def size(names: tuple[str, ...]) -> float:
        return sum(arrays[name].nbytes for name in names) / n_hits

    return {"forward": size(kept + forward), "backward": size(kept + backward)}


class Scene:
    """Gaussians, a camera and a target, and what is timed on them."""

    def __init__(self, gaussians: Gaussians, camera: Camera, rasterizer: str = "native") -> None:
        self.gaussians, self.camera = gaussians, camera
        self.settings = RasterSettings(rasterizer=rasterizer)  # type: ignore[arg-type]
        self.leaves = gaussians.map(lambda tensor: tensor.clone().requires_grad_())
        self.target = torch.rand(1, camera.height, camera.width, 3, generator=torch.Generator().manual_seed(0))
        self.visible = torch.empty(len(gaussians), dtype=torch.bool)
        self.adam = RowAdam(
            [AdamTensor(leaf.detach(), torch.zeros_like(leaf), torch.zeros_like(leaf)) for leaf in self.parameters()]
        )

    def parameters(self) -> list[Tensor]:
        """The leaves, in one order."""
        return list(self.leaves.parameters().values())

    def forward(self) -> None:
        """A picture, as a viewer asks for it."""
        with torch.no_grad():
            rasterize(self.gaussians, [self.camera], settings=self.settings)

    def forward_backward(self) -> None:
        """A picture, and the gradients of everything."""
        for leaf in self.leaves.parameters().values():
            leaf.grad = None
        rasterize(self.leaves, [self.camera], settings=self.settings).rgb.backward(self.target)

    def step(self) -> None:
        """Picture, loss, gradients, optimiser."""
        leaves = self.parameters()
        for leaf in leaves:
            leaf.grad = None
        picture = rasterize(self.leaves, [self.camera], settings=self.settings, visible=self.visible).rgb
        photometric_loss(picture, self.target).backward()
        self.adam.step([leaf.grad for leaf in leaves], [1e-5] * len(leaves), 10, visible=self.visible)


def measure(options: Options) -> dict[str, Any]:
    """Time everything in turns, so that whatever else runs hits all alike."""
    torch.set_num_threads(options.threads)
    width, height = options.resolution
    scene = Scene(
        random_gaussians(options.n, scales=(0.01, 0.05)), front_camera(width, height, focal=1200 * width / 1920)
    )
    clock, meter = Clock(), RateMeter()
    native_cpu.call_cpu = native_cpu_step.call_cpu = timed = TimedCalls(clock)
    whole = {"forward": scene.forward, "forward + backward": scene.forward_backward, "training step": scene.step}
    for function in whole.values():
        function()
    clock.taken.clear()
    for _ in range(options.repeats):
        meter.measure()
        for name, function in whole.items():
            clock.time(name, function)

    counts = GaussianStatistics.zeros(options.n)
    with torch.no_grad():
        picture = rasterize(scene.gaussians, [scene.camera], statistics=counts)
    rates = meter.rates()
    floor = floors(rates, options.n, picture.n_visible, picture.n_hits, int(counts.n_pixels.sum()), width * height)
    floor["forward"] = sum(floor[name] for name in PASSES[:3])
    floor["forward + backward"] = sum(floor[name] for name in PASSES)
    names = [*whole, *PASSES]
    return {
        "scene": f"{options.n} Gaussians, {width}x{height}, {options.threads} threads",
        "n_rows": picture.n_visible,
        "n_hits": picture.n_hits,
        "n_contributions": int(counts.n_pixels.sum()),
        "vector_operations_per_ms": rates.operations,
        "bytes_per_ms": rates.bytes,
        "scratch_bytes_a_hit": scratch_bytes_a_hit(timed.arrays, picture.n_hits),
        "milliseconds": {name: vars(clock.times(name)) for name in names},
        "floor": floor,
        "ratio": {name: stats.median(clock.times(name).wall) / floor[name] for name in floor},
    }


def measure_reference() -> dict[str, float]:
    """Milliseconds forward + backward of a scene small enough for plain torch, by rasterizer: medians of five."""
    clock = Clock()
    gaussians, camera = random_gaussians(2000, scales=(0.05, 0.2)), front_camera(200, 150, focal=125.0)
    scenes = {name: Scene(gaussians, camera, name) for name in ("native", "reference")}
    for _ in range(6):
        for name, scene in scenes.items():
            clock.time(name, scene.forward_backward)
    return {name: stats.median(clock.times(name).wall[1:]) for name in scenes}


def report(figures: dict[str, Any]) -> None:
    """Print the table."""
    contributions, gflops = figures["n_contributions"] / 1e6, 2e-6 * figures["vector_operations_per_ms"]
    print(figures["scene"])
    print(f"{figures['n_rows']} visible, {figures['n_hits']} hits, {contributions:.1f}M contributions")
    print(f"matrix product {gflops:.0f} GFLOP/s, copy {figures['bytes_per_ms'] / 1e6:.1f} GB/s")
    print(f"{'ms':20}{'median':>10}{'min':>10}{'cpu med':>10}{'cpu min':>10}{'floor':>10}{'ratio':>8}")
    for name, times in figures["milliseconds"].items():
        line = f"{name:20}" + Times(**times).line()
        if name in figures["floor"]:
            line += f"{figures['floor'][name]:10.1f}{figures['ratio'][name]:8.1f}"
        print(line)
    for name, size in figures["scratch_bytes_a_hit"].items():
        print(f"scratch {name}: {size:.1f} bytes a hit")
    small = figures["reference"]
    print(
        f"2000 Gaussians at 200x150, forward + backward: native {small['native']:.1f} ms, "
        f"plain torch {small['reference']:.0f} ms, {small['reference'] / small['native']:.0f} times as long"
    )


def main() -> None:
    """Measure, print, save, compare."""
    options = tyro.cli(Options, description=__doc__)
    figures = measure(options)
    figures["reference"] = measure_reference()
    report(figures)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(figures, indent=1))
    if options.baseline is not None:
        before = json.loads(options.baseline.read_text())["ratio"]
        worse = [name for name, ratio in figures["ratio"].items() if ratio > WORSE * before[name]]
        if worse:
            sys.exit(f"further from the floor than in {options.baseline}: {', '.join(worse)}")


if __name__ == "__main__":
    main()
