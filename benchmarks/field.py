"""The native passes of hash-grid fields against their floors, and marching and compositing beside nerfacc's.

    python benchmarks/field.py --device cpu --samples 65536 --rays 1024 --resolution 256 192
    python benchmarks/field.py --device cuda --peer nerfacc

The stage is a hollow ball of radius 0.8 in the unit cube, its shell five occupied cells thick. Encoding takes samples
marched along rays, as training does, and positions at random, which share nothing. The floor of a pass is the memory it
must read and write once, over the rate of a copy measured here; beside it stands what encoding's corners touch, in
sectors of 32 bytes (lines of 64 on a CPU), of which the caches serve most. Then one picture is marched along its rays
and by occupied blocks (RT-NeRF); samples must be the same.
"""

from __future__ import annotations

import statistics as stats
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from kinosplat.render.camera import Camera, look_at
from kinosplat.render.field import native, reference
from kinosplat.render.field.layout import OCCUPANCY_RESOLUTION, GridLayout, Space, StepRule
from kinosplat.render.field.marching import OccupiedCells, RayParts
from kinosplat.render.field.picture_blocks import picture_blocks
from kinosplat.render.field.rays import camera_rays
from kinosplat.render.field.samples import Samples
from kinosplat.render.field.sparse_table import sparse_table

SPACE, RULE = Space(), StepRule()
RADIUS, SHELL = 0.8, 5 * 2 / OCCUPANCY_RESOLUTION
NEAR, FAR = 0.2, 8.0


@dataclass(frozen=True)
class Options:
    """What to measure."""

    device: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu"
    """Where."""
    samples: int = 1 << 18
    """Positions encoded at once."""
    rays: int = 8192
    """Rays of a training batch."""
    resolution: tuple[int, int] = (1920, 1080)
    """Width and height of the marched picture."""
    log2_table_size: int = 19
    """Log 2 of the entries a level."""
    repeats: int = 20
    """Measured calls."""
    peer: Literal["none", "nerfacc"] = "none"
    """Other implementation to time on the same rays."""


def median_ms(call: Callable[[], Any], options: Options) -> float:
    """Median milliseconds of a call, after three that do not count."""
    for _ in range(3):
        call()
    if options.device == "cpu":
        times = []
        for _ in range(options.repeats):
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))
        return stats.median(times)
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(options.repeats)]
    for start, end in events:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return stats.median(start.elapsed_time(end) for start, end in events)


def copy_rate(options: Options) -> float:
    """Bytes read and written a millisecond by a copy too large for the caches."""
    source = torch.zeros(1 << (28 if options.device == "cuda" else 25), dtype=torch.uint8, device=options.device)
    target = torch.empty_like(source)
    return 2 * source.numel() / median_ms(lambda: target.copy_(source), options)


def shell_bits(device: str) -> Tensor:
    """Occupancy of the ball's shell."""
    n = OCCUPANCY_RESOLUTION
    axis = (torch.arange(n, device=device) + 0.5) * (2 / n) - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius = (x * x + y * y + z * z).sqrt()
    return native.occupancy_pack(((radius - RADIUS).abs() < SHELL / 2).float().flatten(), 0.5)


def orbit_camera(angle: float, options: Options) -> Camera:
    """A view of the whole ball from 3 units away."""
    position = 3 * torch.tensor([0.6 * torch.cos(torch.tensor(angle)), 0.6 * torch.sin(torch.tensor(angle)), 0.8])
    width, height = options.resolution
    focal = 1.2 * height
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    camera = look_at(position, torch.zeros(3), torch.tensor([0.0, 1.0, 0.1]), K=K, width=width, height=height)
    return camera.to(options.device)


def bundle_of(origins: Tensor, directions: Tensor, jitter: bool) -> RayParts:
    """Rays from the near to the far plane."""
    n, device = len(origins), origins.device
    bounds = torch.full((n,), NEAR, device=device), torch.full((n,), FAR, device=device)
    offset = torch.rand(n, device=device) if jitter else torch.zeros(n, device=device)
    return RayParts(origins.contiguous(), directions.contiguous(), *bounds, offset)


def line(name: str, ms: float, floor: float, note: str = "") -> None:
    """One row of the table."""
    against = f"{floor:10.3f}{ms / floor:8.1f}" if floor else f"{'':18s}"
    print(f"{name:44s}{ms:10.3f}{against}  {note}")


def measure_encoding(options: Options, positions: Tensor, label: str, rate: float) -> None:
    """Forward and both backward passes."""
    layout = GridLayout(log2_table_size=options.log2_table_size)
    n = len(positions)
    sector = 32 if options.device == "cuda" else 64
    touched = n * 8 * layout.n_levels * sector / 1e9
    gradient = torch.randn(n, layout.width, device=options.device)
    for table_dtype in [torch.float32] + ([torch.float16] if options.device == "cuda" else []):
        table = (1e-4 * torch.randn(layout.n_entries, layout.n_features, device=options.device)).to(table_dtype)
        bytes_of_table = min(table.numel() * table.element_size(), int(touched * 1e9))
        bytes_of_features = n * layout.width * 4
        name = f"encode {label} {str(table_dtype).removeprefix('torch.')}"
        forward = median_ms(partial(native.encode_forward, positions, table, layout), options)
        floor = (12 * n + bytes_of_features + bytes_of_table) / rate
        line(f"{name}, forward", forward, floor, f"{n / forward / 1e3:.1f} M/s, corners {touched:.2f} GB")
    backward = median_ms(lambda: native.encode_backward(gradient, positions, table, layout), options)
    floor = (12 * n + bytes_of_features + 4 * table.numel()) / rate
    line(f"encode {label}, table gradient", backward, floor, f"{n / backward / 1e3:.1f} M/s")
    along = median_ms(
        lambda: native.encode_backward(
            gradient, positions, table, layout, table_gradient=False, positions_gradient=True
        ),
        options,
    )
    line(f"encode {label}, position gradient", along, (24 * n + bytes_of_features + bytes_of_table) / rate)


def measure_sparse(options: Options, positions: Tensor, rate: float) -> None:
    """Encoding from tables with a share of their entries, as they are stored."""
    layout = GridLayout(log2_table_size=options.log2_table_size)
    dtype = torch.float16 if options.device == "cuda" else torch.float32
    table = torch.randn(layout.n_entries, layout.n_features, device=options.device).to(dtype)
    for share in (0.05, 0.31, 0.56):
        sparse = sparse_table(table, torch.rand(layout.n_entries, device=options.device) < share)
        ms = median_ms(partial(native.encode_sparse, positions, sparse, layout), options)
        whole = table.numel() * table.element_size()
        note = f"{sparse.n_bytes / 1e6:.1f} MB ({sparse.index.n_bytes / 1e6:.1f} index) of {whole / 1e6:.1f}"
        line(f"encode along rays, {share:.0%} of the entries", ms, 0, note)


def measure_rays(options: Options, cells: OccupiedCells, rate: float) -> Samples:
    """Marching and compositing of a training batch; returns the samples."""
    pixels = camera_rays(orbit_camera(0.3, options))
    chosen = torch.randperm(len(pixels), device=options.device)[: options.rays]
    bundle = bundle_of(pixels.origins[chosen], pixels.directions[chosen], jitter=True)
    samples = native.march(bundle, cells)
    n, s = options.rays, len(samples)
    ms = median_ms(lambda: native.march(bundle, cells), options)
    line(
        "march, training rays",
        ms,
        (36 * n + 8 * s + cells.bits.numel()) / rate,
        f"{s} samples, {n / ms / 1e3:.2f} M rays/s",
    )
    ms = median_ms(lambda: native.sample_points(bundle.origins, bundle.directions, samples, SPACE), options)
    line("sample points", ms, 32 * s / rate)

    density, rgb = 40 * torch.rand(s, device=options.device), torch.rand(s, 3, device=options.device)
    arguments = (density, rgb, samples.t, samples.dt, samples.offsets)
    out = native.composite_forward(*arguments)
    ms = median_ms(lambda: native.composite_forward(*arguments), options)
    line("composite, forward", ms, (24 * s + 36 * n) / rate, f"{n / ms / 1e3:.2f} M rays/s")
    gradients = tuple(torch.randn_like(getattr(out, name)) for name in ("rgb", "alpha", "depth", "distortion"))
    ms = median_ms(lambda: native.composite_backward(*gradients, *arguments, out), options)
    line("composite, backward", ms, (40 * s + 60 * n) / rate, f"{n / ms / 1e3:.2f} M rays/s")
    if options.peer == "nerfacc":
        measure_nerfacc(options, cells, bundle, density, rgb)
    return samples


def measure_nerfacc(options: Options, cells: OccupiedCells, bundle: RayParts, density: Tensor, rgb: Tensor) -> None:
    """The same rays through nerfacc's estimator and volume rendering."""
    import nerfacc

    estimator = nerfacc.OccGridEstimator([-1.0, -1, -1, 1, 1, 1], resolution=OCCUPANCY_RESOLUTION).to(options.device)
    lattice = reference.unpack_bits(cells.bits).view(1, *(OCCUPANCY_RESOLUTION,) * 3)
    estimator.binaries.copy_(lattice.permute(0, 3, 2, 1))  # ours has x fastest, theirs z
    origins, directions = bundle.origins, bundle.directions
    step = RULE.limits(SPACE)[0]

    def march() -> tuple[Tensor, Tensor, Tensor]:
        return estimator.sampling(
            origins, directions, near_plane=NEAR, far_plane=FAR, render_step_size=step, stratified=True
        )

    ray, starts, ends = march()
    s = len(starts)
    ms = median_ms(march, options)
    line("nerfacc: march, training rays", ms, 0, f"{s} samples, {options.rays / ms / 1e3:.2f} M rays/s")
    some_density = density[:s] if s <= len(density) else density.repeat(2)[:s]
    some_rgb = rgb[:s] if s <= len(rgb) else rgb.repeat(2, 1)[:s]
    leaves = some_density.clone().requires_grad_(), some_rgb.clone().requires_grad_()

    def composite() -> tuple[Tensor, ...]:
        weights, _, _ = nerfacc.render_weight_from_density(
            starts, ends, leaves[0], ray_indices=ray, n_rays=options.rays
        )
        sums = [
            nerfacc.accumulate_along_rays(weights, values, ray_indices=ray, n_rays=options.rays)
            for values in (leaves[1], None, ((starts + ends) / 2)[:, None])
        ]
        return sums[0], sums[1], sums[2]

    ms = median_ms(composite, options)
    line("nerfacc: composite, forward (no distortion)", ms, 0, f"{options.rays / ms / 1e3:.2f} M rays/s")
    gradients = [torch.randn_like(value) for value in composite()]
    both = median_ms(lambda: torch.autograd.backward(composite(), gradients), options)
    line(
        "nerfacc: composite, backward (no distortion)", both - ms, 0, f"{options.rays / (both - ms) / 1e3:.2f} M rays/s"
    )


def measure_picture(options: Options, cells: OccupiedCells, rate: float) -> None:
    """One picture along rays and by blocks."""
    camera = orbit_camera(0.3, options)
    pixels = camera_rays(camera)
    bundle = bundle_of(pixels.origins, pixels.directions, jitter=False)
    n = len(pixels)
    occupied = native.occupied_blocks(cells)
    along, by_blocks = (torch.empty(n, dtype=torch.int32, device=options.device) for _ in range(2))
    expected = native.march(bundle, cells, n_visited=along)
    picture = picture_blocks(occupied, camera, cells)
    samples = native.march(bundle, cells, picture=picture, n_visited=by_blocks)
    same = torch.equal(samples.offsets, expected.offsets) and torch.equal(samples.t, expected.t)
    floor = (36 * n + 8 * len(samples)) / rate
    ms = median_ms(lambda: native.march(bundle, cells), options)
    line(
        "march a picture, along rays",
        ms,
        floor,
        f"{len(expected)} samples, {int(along.sum())} cells and blocks visited",
    )
    ms = median_ms(lambda: picture_blocks(occupied, camera, cells), options)
    line("march a picture, order and project blocks", ms, 0, f"{len(picture.blocks)} blocks")
    ms = median_ms(lambda: native.march(bundle, cells, picture=picture), options)
    verdict = "the same" if same else "OTHER"
    note = f"{len(samples)} samples, {int(by_blocks.sum())} cells and blocks visited, {verdict} samples"
    line("march a picture, by blocks", ms, floor, note)


def main(options: Options) -> None:
    """Print one table."""
    torch.manual_seed(0)
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} threads"
    rate = copy_rate(options)
    print(f"{name}, copies move {rate / 1e6:.1f} GB/s; {options.samples} samples, {options.rays} rays")
    print(f"{'':44s}{'ms':>10s}{'floor':>10s}{'ratio':>8s}")
    cells = OccupiedCells(shell_bits(options.device), SPACE, RULE)
    samples = measure_rays(options, cells, rate)
    pixels = camera_rays(orbit_camera(0.7, options))
    chosen = torch.randperm(len(pixels), device=options.device)[
        : max(1, 4 * options.samples * options.rays // max(1, len(samples)))
    ]
    bundle = bundle_of(pixels.origins[chosen], pixels.directions[chosen], jitter=True)
    many = native.march(bundle, cells)
    positions = native.sample_points(bundle.origins, bundle.directions, many, SPACE)[0][: options.samples].contiguous()
    measure_encoding(options, positions, "along rays", rate)
    measure_sparse(options, positions, rate)
    measure_encoding(options, torch.rand(options.samples, 3, device=options.device), "at random", rate)
    measure_picture(options, cells, rate)


if __name__ == "__main__":
    main(tyro.cli(Options))
