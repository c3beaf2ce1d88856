"""An orbit where the cameras of the scene stood: around the point they look at, at their height and distance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kinosplat.render.camera import Camera, look_at

PARALLEL = 1e-3
"""Optical axes count as parallel when the smallest eigenvalue of their mean projection is below this, of at most 1."""
WIDEST_GAP = math.radians(100)
"""Cameras that leave a wider gap than this around the scene stand on an arc, not on a circle."""
SMALLEST_SWING = math.radians(5)
"""Half of the arc that is swept when the cameras stand closer together than this."""
FLATTEST_ELLIPSE = 3.0
"""A fitted ellipse with a larger ratio of its axes is an accident of where the cameras stand; a circle is used."""

SLIGHT = 1e-3
"""Weight of the mean upper side of the pictures, which decides when all cameras look the same way."""


def _positions_and_forwards(cameras: Sequence[Camera]) -> tuple[Tensor, Tensor]:
    """Centres and viewing directions, (N, 3) each, float64 on the CPU."""
    positions = torch.stack([camera.position.detach().cpu().double() for camera in cameras])
    forwards = torch.stack([camera.forward.detach().cpu().double() for camera in cameras])
    return positions, forwards


def look_at_point(cameras: Sequence[Camera]) -> Tensor:
    """The (3,) point nearest to all optical axes in the least-squares sense, world coordinates, float64.

    Axes that are nearly parallel meet nowhere: the point is then in front of the middle of the cameras, three times as
    far as they are spread.
    """
    positions, forwards = _positions_and_forwards(cameras)
    across = torch.eye(3, dtype=torch.float64) - forwards[:, :, None] * forwards[:, None, :]
    normal = across.mean(dim=0)
    if torch.linalg.eigvalsh(normal)[0] < PARALLEL:
        spread = (positions - positions.mean(dim=0)).norm(dim=1).max().clamp_min(1.0 / 3)
        return positions.mean(dim=0) + 3 * spread * torch.nn.functional.normalize(forwards.mean(dim=0), dim=0)
    return torch.linalg.solve(normal, (across @ positions[:, :, None]).mean(dim=0)[:, 0])


def up_direction(cameras: Sequence[Camera]) -> Tensor:
    """The (3,) axis that is most nearly at right angles to what is right in every picture, unit length, float64.

    It points to the upper side of the pictures, or backwards if all cameras look straight down. The mean of the
    pictures' upper sides alone would lean towards cameras that look down from one side.
    """
    rights = torch.stack([camera.world_to_camera[0, :3].detach().cpu().double() for camera in cameras])
    mean_up = -torch.stack([camera.world_to_camera[1, :3].detach().cpu().double() for camera in cameras]).mean(dim=0)
    crossed = rights.T @ rights / len(cameras) - SLIGHT * mean_up[:, None] * mean_up
    up = torch.linalg.eigh(crossed).eigenvectors[:, 0]
    side = mean_up if mean_up.norm() > 0.1 else -_positions_and_forwards(cameras)[1].mean(dim=0)
    return -up if up @ side < 0 else up


def orbit(
    cameras: Sequence[Camera],
    n_frames: int,
    *,
    turns: float = 1.0,
    times: tuple[float, float] | None = None,
    up: Tensor | None = None,
) -> list[Camera]:
    """`n_frames` cameras on the way around a scene, starting beside the first of `cameras` and with its K and size.

    Cameras all around give an ellipse fitted to them; cameras on an arc give a swing along the arc and back. Those that
    look away from the point their axes meet in (a room seen from its middle) give an orbit that looks outwards. `times`
    are the moments of the first and the last frame in seconds, by default the first and the last of the cameras; (3,)
    `up` replaces the mean of the cameras'. Raises ValueError without cameras or frames.
    """
    if not cameras or n_frames < 1:
        raise ValueError("orbit needs at least one camera and one frame.")
    positions, forwards = _positions_and_forwards(cameras)
    target = look_at_point(cameras)
    vertical = up_direction(cameras) if up is None else torch.nn.functional.normalize(up.cpu().double(), dim=0)

    offsets = positions - target
    height = (offsets @ vertical).median()
    level = offsets - (offsets @ vertical)[:, None] * vertical
    # The small multiple of the horizontal plane decides when all cameras are right above the target.
    plane_of_ring = torch.eye(3, dtype=torch.float64) - vertical[:, None] * vertical
    first_axis = torch.linalg.eigh(level.T @ level + 1e-12 * plane_of_ring).eigenvectors[:, -1]
    axes = torch.stack([first_axis, torch.linalg.cross(vertical, first_axis)])
    plane = level @ axes.T

    azimuths = torch.atan2(plane[:, 1], plane[:, 0])
    gap, after_gap = _widest_gap(azimuths)
    fraction = torch.arange(n_frames, dtype=torch.float64) / n_frames
    radii = plane.norm(dim=1).median().clamp_min(0.1 * height.abs()).expand(2)
    if gap <= WIDEST_GAP:
        radii = _ellipse(plane, radii)
        start = torch.atan2(plane[0, 1] / radii[1], plane[0, 0] / radii[0])
        angles = start + 2 * math.pi * turns * fraction
    else:
        half = max(0.5 * (2 * math.pi - gap), SMALLEST_SWING)
        middle = after_gap + 0.5 * (2 * math.pi - gap)
        angles = middle - half * torch.cos(2 * math.pi * turns * fraction)

    places = target + height * vertical + (torch.stack([angles.cos(), angles.sin()], dim=1) * radii) @ axes
    inwards = 1.0 if (offsets * forwards).sum() < 0 else -1.0
    moments = _moments(cameras, times, n_frames)
    like = cameras[0]
    return [
        look_at(
            place, place + inwards * (target - place), vertical, K=like.K.detach().cpu().double(), width=like.width,
            height=like.height, time=moment,
        ).to(like.K.device, like.K.dtype)
        for place, moment in zip(places, moments, strict=True)
    ]  # fmt: skip


def _widest_gap(angles: Tensor) -> tuple[float, float]:
    """The widest angle with no camera in it, and the angle at which it ends."""
    ordered = angles.sort().values
    gaps = torch.diff(ordered, append=ordered[:1] + 2 * math.pi)
    widest = int(gaps.argmax())
    return gaps[widest].item(), ordered[(widest + 1) % len(ordered)].item()


def _ellipse(plane: Tensor, circle: Tensor) -> Tensor:
    """Half axes (2,) of the least-squares ellipse through (N, 2) points, or `circle` if there is no good one."""
    squares = torch.linalg.lstsq(plane.square(), torch.ones(len(plane), 1, dtype=plane.dtype)).solution[:, 0]
    if not (squares > 0).all() or squares.max() > FLATTEST_ELLIPSE**2 * squares.min():
        return circle
    return squares.rsqrt()


def _moments(cameras: Sequence[Camera], times: tuple[float, float] | None, n_frames: int) -> list[float | None]:
    known = [camera.time for camera in cameras if camera.time is not None]
    if times is None and not known:
        return [None] * n_frames
    first, last = times if times is not None else (min(known), max(known))
    return torch.linspace(first, last, n_frames, dtype=torch.float64).tolist()
