"""A small world with known geometry, ray-cast: a textured ball over a textured floor, seen from around."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinosplat.render.camera import Camera, look_at
from kinosplat.scenes import Scene, View

WIDTH, HEIGHT = 112, 84
RADIUS = 0.6
FLOOR = 0.7
DOWN = torch.tensor([0.0, -1.0, 0.0])
INTRINSICS = torch.tensor([[110.0, 0, WIDTH / 2], [0, 110.0, HEIGHT / 2], [0, 0, 1]])


@dataclass(frozen=True)
class Picture:
    """An array as an ImageSource."""

    name: str
    pixels: NDArray[np.uint8] = field(compare=False)

    @property
    def description(self) -> str:
        return self.name

    def load(self) -> NDArray[np.uint8]:
        return self.pixels.copy()


def texture(points: Tensor) -> Tensor:
    """(..., 3) colours in [0, 1] of places (..., 3): waves of several lengths, different in each channel."""
    generator = torch.Generator().manual_seed(5)
    total = torch.zeros(*points.shape[:-1], 3)
    for frequency in (4.0, 9.0, 17.0):
        for _ in range(3):
            direction = torch.randn(3, 3, generator=generator) * frequency
            total = total + torch.sin(points @ direction + torch.rand(3, generator=generator) * 6.28)
    return (0.5 + 0.12 * total).clamp(0.05, 0.95)


def ball_at(time: float | None) -> Tensor:
    """Centre of the ball."""
    return torch.tensor([0.8 * (time or 0.0), 0.0, 0.0])


def cast(camera: Camera, centre: Tensor, plain: bool = False) -> tuple[Tensor, Tensor]:
    """Picture (H, W, 3) in [0, 1] and the ball's outline (H, W) bool."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ torch.linalg.inv(camera.K).T
    rays = torch.nn.functional.normalize(rays @ camera.world_to_camera[:3, :3], dim=-1)
    origin = camera.position
    b = rays @ (origin - centre)
    c = (origin - centre).square().sum() - RADIUS**2
    root = b**2 - c
    ball = root > 0
    floor = (FLOOR - origin[1]) / rays[..., 1]
    on_floor = torch.where(floor > 0, floor, 20.0).clamp(max=20.0)
    distance = torch.where(ball, -b - root.clamp(min=0).sqrt(), on_floor)
    places = origin + distance[..., None] * rays
    if plain:
        return torch.full_like(places, 0.5), ball
    # The texture moves with the ball; beyond the floor's edge the world is grey.
    colors = torch.where(ball[..., None], texture(places - centre + 7), texture(places))
    return torch.where((distance < 12)[..., None], colors, 0.6), ball


def cameras(n: int = 12) -> list[Camera]:
    """Around the ball, a bit above it, at two heights in turn."""
    angles = [2 * np.pi * i / n for i in range(n)]
    places = [torch.tensor([3 * np.cos(a), -1.2 - 0.4 * (i % 2), 3 * np.sin(a)]) for i, a in enumerate(angles)]
    return [look_at(p.float(), torch.zeros(3), DOWN, K=INTRINSICS, width=WIDTH, height=HEIGHT) for p in places]


@lru_cache
def stage(
    n: int = 12,
    times: tuple[float, ...] = (),
    masks: bool = False,
    plain: bool = False,
) -> Scene:
    """The scene; moving if there are times."""
    views = []
    for index, camera in enumerate(cameras(n)):
        for time in times or (None,):
            picture, ball = cast(camera, ball_at(time), plain)
            name = f"cam{index:02d}/{time}"
            source = Picture(name, (picture * 255).round().byte().numpy())
            outline = Picture(f"{name} mask", ball.byte().numpy() * 255) if masks else None
            views.append(View(name, camera.at(time), index, source, outline))
    return Scene("stage", Path("stage"), "test", tuple(views), (), "none", times=times)


def distance_to_surface(points: Tensor, centre: Tensor) -> Tensor:
    """(P,) distance from the nearer of ball and floor."""
    to_ball = ((points - centre).norm(dim=1) - RADIUS).abs()
    return torch.minimum(to_ball, (points[:, 1] - FLOOR).abs())
