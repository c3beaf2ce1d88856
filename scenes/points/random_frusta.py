"""Points drawn at random where cameras look: the last resort, and what fills in what no method saw."""

from __future__ import annotations

import torch
from torch import Tensor

from kinosplat.scenes.points.rig import Rig, focus_point

NEAR_SHARE, FAR_SHARE = 0.5, 2.0
"""Depths reach from this share of the distance to the place the cameras look at, to this one."""


def random_points(rig: Rig, n_points: int, seed: int) -> tuple[Tensor, Tensor]:
    """(n, 3) positions and (n, 3) colours in [0, 1]: pixels drawn evenly, depths evenly in 1/depth."""
    generator = torch.Generator().manual_seed(seed)
    n_views, (height, width) = len(rig.images), rig.size
    view = torch.randint(n_views, (n_points,), generator=generator)
    pixel = torch.randint(height * width, (n_points,), generator=generator)
    share = torch.rand(n_points, generator=generator)
    inverse = (1 / FAR_SHARE + share * (1 / NEAR_SHARE - 1 / FAR_SHARE)).to(rig.K.device)
    view, pixel = view.to(rig.K.device), pixel.to(rig.K.device)
    depth = typical_depths(rig)[view] / inverse
    camera = rig.rays()[view, :, pixel] * depth[:, None]
    pose = rig.world_to_camera[view]
    positions = (pose[:, :3, :3].mT @ (camera - pose[:, :3, 3])[..., None])[..., 0]
    return positions, rig.images.reshape(n_views, -1, 3)[view, pixel]


def typical_depths(rig: Rig) -> Tensor:
    """(V,) how far away what a camera looks at is: the place all look at, or else five times the cameras' spread."""
    focus = focus_point(rig.positions, rig.forwards)
    if focus is None:
        spread = (rig.positions - rig.positions.mean(dim=0)).norm(dim=1).mean().clamp(min=1e-3)
        return (5 * spread).expand(len(rig.images))
    depth = ((focus - rig.positions) * rig.forwards).sum(dim=1)
    return depth.clamp(min=0.1 * depth.median().clamp(min=1e-6))
