"""Where the time of a field's picture goes, stage by stage.

The native backend draws a picture in one go; on a GPU its kernel counts the cycles of each stage (native_fused.py).
Beside that stands the unfused way, one stage after the other for a whole piece of rays, timed by the clock with the
device waited for; it is what the stages cost where nothing is fused. Marching by itself is timed along rays and by
occupied blocks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch
from torch import Tensor

from kinosplat.render.camera import Camera
from kinosplat.render.field import native, native_fused
from kinosplat.render.field.composite import composite
from kinosplat.render.field.encoding import encode
from kinosplat.render.field.field import Field
from kinosplat.render.field.march import MarchBy, ray_range, sample_points
from kinosplat.render.field.marching import RayParts
from kinosplat.render.field.occupancy import OccupancyGrid
from kinosplat.render.field.picture_blocks import picture_blocks
from kinosplat.render.field.rays import camera_rays
from kinosplat.render.field.render import RAYS, SAMPLES, march_rays, prepare, why_not_fused
from kinosplat.render.field.samples import Samples

Stage = Literal["rays", "marching", "encoding", "networks", "compositing", "background and rounding"]


@dataclass(frozen=True)
class Fused:
    """Pictures drawn in one go, rounded to 8 bits."""

    median_ms: float
    """Milliseconds a picture."""
    shares: dict[str, float]
    """Part of the drawing kernel's cycles by stage; empty on the CPU."""
    n_samples: int
    """Samples of the last picture."""


@dataclass(frozen=True)
class Marching:
    """One picture's marching, without what is seen."""

    n_samples: int
    """Samples found."""
    n_visited: int
    """Cells and blocks that were looked at."""
    median_ms: float
    """Milliseconds, with the ordering and projecting of blocks where these are visited."""


class _Clock:
    """Adds up what passes between its ticks."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[Stage, float] = {}
        self._device = device
        self._last = self._now()

    def tick(self, stage: Stage) -> None:
        """What has passed since the last tick belongs to `stage`."""
        now = self._now()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


@torch.no_grad()
def unfused_seconds(
    field: Field, grid: OccupancyGrid, camera: Camera, background: Tensor, near: float
) -> dict[Stage, float]:
    """Seconds of each stage of one picture, drawn stage by stage; call it once before to warm up."""
    camera = camera.to(field.device)
    clock = _Clock(field.device)
    rays = camera_rays(camera)
    clock.tick("rays")
    for first in range(0, len(rays), RAYS):
        piece = rays.part(slice(first, first + RAYS))
        samples = march_rays(grid, piece, near, torch.zeros(len(piece), device=field.device), field.backend)
        positions, directions = sample_points(piece.origins, piece.directions, samples, grid.space, field.backend)
        clock.tick("marching")
        parts = [
            _evaluate(field, *pair, clock)
            for pair in zip(positions.split(SAMPLES), directions.split(SAMPLES), strict=True)
        ]
        density, rgb = (torch.cat(values) for values in zip(*parts, strict=True))
        seen = composite(density, rgb, samples, field.backend)
        clock.tick("compositing")
        picture = seen.rgb + (1 - seen.alpha)[:, None] * background
        (picture.clamp(0, 1) * 255).round().to(torch.uint8)
        clock.tick("background and rounding")
    return clock.seconds


def _evaluate(field: Field, positions: Tensor, directions: Tensor, clock: _Clock) -> tuple[Tensor, Tensor]:
    density, outputs = field.density(positions)
    rgb = field.colour(outputs, directions)
    clock.tick("networks")
    # The encoding is part of the field's density; done once more alone, it says how much of that time is its own.
    encode(positions, field.entries, field.shape.layout, field.backend)
    before = clock.seconds.get("encoding", 0.0)
    clock.tick("encoding")
    clock.seconds["networks"] -= clock.seconds["encoding"] - before
    return density, rgb


@torch.no_grad()
def fused_timing(
    field: Field, grid: OccupancyGrid, cameras: Sequence[Camera], background: Tensor, near: float
) -> Fused | None:
    """Time of the pictures of `cameras`, at least two, of which the first warms up; None where fields like this one are
    not drawn in one go.
    """
    if why_not_fused(field) is not None:
        return None
    prepared, colour = prepare(field), background.tolist()
    on_gpu = field.device.type == "cuda"

    def draw(camera: Camera, stages: bool = False) -> native_fused.FieldPicture:
        return native_fused.draw(prepared, grid.cells, camera, colour, near=near, as_bytes=True, stages=stages)

    seconds = []
    for camera in cameras:
        clock = _Clock(field.device)
        picture = draw(camera)
        clock.tick("rays")
        seconds.append(clock.seconds["rays"])
    shares = native_fused.stage_shares(draw(cameras[-1], stages=True)) if on_gpu else {}
    return Fused(1e3 * median(seconds[1:]), shares, int(picture.n_samples))


@torch.no_grad()
def marching_timing(grid: OccupancyGrid, camera: Camera, near: float, repeats: int = 5) -> dict[MarchBy, Marching]:
    """The native marching of one picture along its rays, and by blocks where the space is of one cascade."""
    device = grid.bits.device
    camera = camera.to(device)
    rays = camera_rays(camera)
    n_visited = torch.empty(len(rays), dtype=torch.int32, device=device)
    enters, leaves = ray_range(rays.origins, rays.directions, grid.space, near)
    parts = RayParts(rays.origins, rays.directions, enters, leaves, torch.zeros_like(enters))

    def marched(by: MarchBy) -> Samples:
        if by == "rays":
            return native.march(parts, grid.cells, n_visited=n_visited)
        picture = picture_blocks(native.occupied_blocks(grid.cells), camera, grid.cells)
        return native.march(parts, grid.cells, picture=picture, n_visited=n_visited)

    timings: dict[MarchBy, Marching] = {}
    ways: tuple[MarchBy, ...] = ("rays", "blocks") if grid.space.n_cascades == 1 else ("rays",)
    for by in ways:
        n_samples, seconds = len(marched(by)), []
        for _ in range(repeats):
            clock = _Clock(device)
            marched(by)
            clock.tick("marching")
            seconds.append(clock.seconds["marching"])
        timings[by] = Marching(n_samples, int(n_visited.sum()), 1e3 * median(seconds))
    return timings
