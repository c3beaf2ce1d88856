"""Where to look from, and which way is up, in a file of Gaussians that says neither.

Most files hold nothing but Gaussians. A scene with a ground is flat: it extends least along the vertical. Of its two
sides the one that shows more is above, as a ground seen from below hides what stands on it. A scene that is not flat
gets the axis that points up in most scenes COLMAP made; `--up` says otherwise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kinosplat.render.camera import Camera, look_at
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.rasterize import rasterize

Axis = tuple[float, float, float]
UNKNOWN_UP: Axis = (0.0, -1.0, 0.0)
"""Up where nothing tells: that of the photos in most scenes COLMAP made."""
START_SIZE = (960, 720)
"""Pixels of the cameras laid around a file's Gaussians; only their shape matters to a page."""
START_FOV = math.radians(50)
FLAT = 0.6
"""Least extent over the middle one, below which a scene has a ground."""
SNAP = math.cos(math.radians(15))
"""A vertical this close to an axis of coordinates is that axis."""
N_AROUND = 8
"""Cameras in a ring."""
PROBE_SIZE = (96, 72)
"""Pixels of pictures that are only made to see how much they show."""


def likely_up(gaussians: Gaussians) -> Axis:
    """Unit axis that most likely points up, of Gaussians that stand still."""
    means = _visible_means(gaussians)
    offsets = (means - means.median(dim=0).values)[:: max(1, len(means) // 100_000)]
    # What lies far out says little: keep the nearer four fifths.
    lengths = offsets.norm(dim=1)
    offsets = offsets[lengths <= torch.quantile(lengths, 0.8)]
    variances, axes = torch.linalg.eigh(offsets.T @ offsets / max(len(offsets), 1))
    least, middle = variances[:2].clamp_min(0).sqrt().tolist()
    if len(offsets) < 4 or middle == 0 or least > FLAT * middle:
        return UNKNOWN_UP
    vertical = axes[:, 0]
    closest = int(vertical.abs().argmax())
    if vertical[closest].abs() > SNAP:
        vertical = torch.eye(3, dtype=vertical.dtype)[closest]
    x, y, z = vertical.tolist()
    sides: tuple[Axis, Axis] = (x, y, z), (-x, -y, -z)
    return max(sides, key=lambda up: sum(detail(gaussians, camera) for camera in cameras_around(gaussians, up, None)))


@torch.no_grad()
def detail(gaussians: Gaussians, camera: Camera) -> float:
    """Mean difference of neighbouring pixels: how much a camera gets to see."""
    device = gaussians.device
    output = rasterize(gaussians, [camera.resized(*PROBE_SIZE).to(device)], background=torch.zeros(3, device=device))
    rgb = output.rgb[0].clamp(0, 1)
    return float((rgb[1:] - rgb[:-1]).abs().mean() + (rgb[:, 1:] - rgb[:, :-1]).abs().mean())


def _visible_means(gaussians: Gaussians) -> Tensor:
    """(N, 3) float64 means on the CPU, of those that are not nearly transparent."""
    means = gaussians.means.detach().double().cpu()
    visible = torch.sigmoid(gaussians.opacity_logits.detach().cpu()) > 0.1
    return means[visible] if visible.any() else means


def cameras_around(gaussians: Gaussians, up: Axis, time: float | None) -> list[Camera]:
    """Eight cameras in a ring around where most of the Gaussians are, far enough to see them all."""
    means = _visible_means(gaussians)
    middle = means.median(dim=0).values
    radius = max(float(torch.quantile((means - middle).norm(dim=1)[:100_000], 0.8)), 1e-3)
    width, height = START_SIZE
    focal = 0.5 * height / math.tan(0.5 * START_FOV)
    K = torch.tensor([[focal, 0, 0.5 * width], [0, focal, 0.5 * height], [0, 0, 1]], dtype=torch.float64)
    vertical = torch.nn.functional.normalize(torch.tensor(up, dtype=torch.float64), dim=0)
    across = torch.eye(3, dtype=torch.float64)[int(vertical.abs().argmin())]
    right = torch.nn.functional.normalize(torch.linalg.cross(vertical, across), dim=0)
    ahead = torch.linalg.cross(right, vertical)
    distance = 1.3 * radius / math.tan(0.5 * START_FOV)
    cameras = []
    for i in range(N_AROUND):
        angle = 2 * math.pi * i / N_AROUND
        place = middle + distance * (math.cos(angle) * ahead + math.sin(angle) * right) + 0.35 * distance * vertical
        cameras.append(
            look_at(place, middle, vertical, K=K, width=width, height=height, time=time).to(dtype=torch.float32)
        )
    return cameras
