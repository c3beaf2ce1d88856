"""A small moving scene that every test of the viewer looks at."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinosplat.render.camera import Camera, look_at
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.losses import psnr
from kinosplat.render.output import RenderOutput
from kinosplat.render.rasterize import rasterize
from kinosplat.render.settings import RasterSettings
from kinosplat.scenes.scene import Similarity, View
from kinosplat.viewer.subject import Comparison, GaussianSubject, Painter

FPS = 10.0
N_FRAMES = 11


def toy_gaussians(n: int = 300, *, moving: bool = True) -> Gaussians:
    """Blobs in a cube of edge 2, those of a moving set drifting to +x by 0.4 a second."""
    generator = torch.Generator().manual_seed(7)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    in_time = {}
    if moving:
        in_time = {
            "displacements": torch.tensor([0.4, 0.0, 0.0]).repeat(n, 1),
            "time_centres": torch.full((n,), 0.5),
            "log_durations": torch.zeros(n),
        }
    return Gaussians(
        means=2 * uniform(n, 3) - 1,
        quats=torch.randn(n, 4, generator=generator),
        log_scales=torch.log(0.04 + 0.1 * uniform(n, 3)),
        opacity_logits=1 + uniform(n),
        sh_dc=2 * (uniform(n, 3) - 0.5),
        sh_rest=0.1 * (uniform(n, 3, 3) - 0.5),
        **in_time,
    )


def toy_cameras(*, moving: bool = True) -> list[Camera]:
    """Six cameras in a ring of radius 4, 96 x 72 pixels."""
    K = torch.tensor([[90.0, 0, 48], [0, 90, 36], [0, 0, 1]])
    cameras = []
    for i in range(6):
        angle = 2 * math.pi * i / 6
        place = torch.tensor([4 * math.cos(angle), 4 * math.sin(angle), 1.0])
        cameras.append(
            look_at(
                place, torch.zeros(3), torch.tensor([0.0, 0, 1]), K=K, width=96, height=72, time=0.0 if moving else None
            )
        )
    return cameras


@dataclass(frozen=True)
class PlainImage:
    """A photo of one colour."""

    width: int
    height: int
    color: tuple[int, int, int]

    @property
    def description(self) -> str:
        return "a plain photo"

    def load(self) -> NDArray[np.uint8]:
        return np.full((self.height, self.width, 3), self.color, np.uint8)


def toy_views() -> list[View]:
    """Photos of the first and the last moment from every camera, as if the scene had been a grey wall."""
    cameras = toy_cameras()
    image = PlainImage(cameras[0].width, cameras[0].height, (90, 90, 90))
    return [
        View(f"cam{i:02}/{frame:06}", camera.at(frame / FPS), i, image)
        for i, camera in enumerate(cameras)
        for frame in (0, N_FRAMES - 1)
    ]


@dataclass(frozen=True)
class ToyPhotos:
    """`toy_views`, the last camera's held out."""

    model: Gaussians
    views: Sequence[View] = field(default_factory=lambda: toy_views())
    n_train: int = 10

    def compare(self, view: View) -> Comparison:
        photo = torch.from_numpy(view.image.load()).float() / 255
        rendered = rasterize(self.model, [view.camera], background=torch.zeros(3)).rgb[0].clamp(0, 1)
        return Comparison(photo, rendered, float(psnr(rendered[None], photo[None])), "whole picture")


def toy_subject(*, moving: bool = True, n: int = 300) -> GaussianSubject:
    """The scene with a clip of one second."""
    return GaussianSubject(
        label="toy",
        model=toy_gaussians(n, moving=moving),
        cameras=toy_cameras(moving=moving),
        background=torch.tensor([0.1, 0.2, 0.3]),
        times=tuple(i / FPS for i in range(N_FRAMES)) if moving else (),
        fps=FPS if moving else None,
        up=(0.0, 0.0, 1.0),
    )


@dataclass(frozen=True)
class BallSubject:
    """A white ball of radius 1 that is no set of Gaussians: only `render` can draw it, and one painter."""

    label: str = "ball"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    background: Tensor = field(default_factory=lambda: torch.tensor([0.1, 0.2, 0.3]))
    cameras: Sequence[Camera] = field(default_factory=lambda: toy_cameras(moving=False))
    photos: None = None
    times: tuple[float, ...] = ()
    fps: float | None = None
    up: tuple[float, float, float] | None = (0.0, 0.0, 1.0)
    to_input: Similarity = field(default_factory=Similarity)
    folder: Path | None = None
    version: int = 0
    n_primitives: int = 4
    settings: RasterSettings = field(default_factory=RasterSettings)
    has_normals: bool = True

    @property
    def painters(self) -> Mapping[str, Painter]:
        return {"occupied cells": lambda camera: torch.full((camera.height, camera.width, 3), 0.25)}

    def gaussians(self) -> None:
        return None

    def render(self, camera: Camera, background: Tensor, *, geometry: bool) -> RenderOutput:
        y, x = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
        in_camera = torch.stack([x, y, torch.ones_like(x)], -1) @ torch.linalg.inv(camera.K).T
        lengths = in_camera.norm(dim=-1)
        rays = (in_camera / lengths[..., None]) @ camera.world_to_camera[:3, :3]
        along = -(rays * camera.position).sum(-1)
        root = along.square() - camera.position.square().sum() + 1
        hit, distance = root > 0, along - root.clamp_min(0).sqrt()
        normal = (camera.position + distance[..., None] * rays) * hit[..., None]
        alpha = hit.float()
        return RenderOutput(
            rgb=(alpha[..., None] + (1 - alpha[..., None]) * background)[None],
            alpha=alpha[None],
            depth=(distance / lengths * alpha)[None] if geometry else None,
            normal=normal[None] if geometry and self.has_normals else None,
        )

    def turn(self) -> AbstractContextManager[None]:
        return nullcontext()


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether `condition` came true within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()
