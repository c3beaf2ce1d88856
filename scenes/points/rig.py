"""Pictures of one moment and how their cameras stand to each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GOOD_ANGLE = 12.0
"""Degrees between two rays to a point that are best for matching: enough parallax, and still the same look."""
NARROW, WIDE = 5.0, 15.0
"""Degrees by which an angle below or above that may be off before it counts half as good."""


@dataclass(frozen=True)
class Rig:
    """Pictures of one size, taken at one moment (or of things that do not move)."""

    images: Tensor
    """(V, H, W, 3) float32 in [0, 1]."""
    world_to_camera: Tensor
    """(V, 4, 4) float32."""
    K: Tensor
    """(V, 3, 3) float32, for the size of the images."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.images.shape[1], self.images.shape[2]

    @property
    def positions(self) -> Tensor:
        """(V, 3) centres of the cameras."""
        return -(self.world_to_camera[:, :3, :3].mT @ self.world_to_camera[:, :3, 3:])[..., 0]

    @property
    def camera_to_world(self) -> Tensor:
        """(V, 4, 4)."""
        turned = self.world_to_camera[:, :3, :3].mT
        inverse = self.world_to_camera.clone()
        inverse[:, :3, :3] = turned
        inverse[:, :3, 3:] = -turned @ self.world_to_camera[:, :3, 3:]
        return inverse

    @property
    def forwards(self) -> Tensor:
        """(V, 3) unit viewing directions."""
        return self.world_to_camera[:, 2, :3]

    def only(self, views: list[int]) -> Rig:
        """Some of the views."""
        return Rig(self.images[views], self.world_to_camera[views], self.K[views])

    def rays(self, views: slice = slice(None)) -> Tensor:
        """(V, 3, H * W): camera coordinates of each pixel's centre at depth 1, for some of the views."""
        height, width = self.size
        K = self.K[views, :, :, None, None]
        # K is upper triangular; a solver on the GPU would take seconds to load, and make Python wait at every call.
        y = (torch.arange(height, device=K.device)[:, None] + 0.5 - K[:, 1, 2]) / K[:, 1, 1]
        x = (torch.arange(width, device=K.device) + 0.5 - K[:, 0, 2] - K[:, 0, 1] * y) / K[:, 0, 0]
        return torch.stack([x, y.expand_as(x), torch.ones_like(x)], dim=1).flatten(2)

    def unproject(self, view: int, depth: Tensor) -> Tensor:
        """World coordinates (H, W, 3) of a depth map (H, W) of view `view`."""
        camera = self.rays(slice(view, view + 1))[0] * depth.reshape(-1)
        rotation, translation = self.world_to_camera[view, :3, :3], self.world_to_camera[view, :3, 3:]
        return (rotation.T @ (camera - translation)).T.reshape(*depth.shape, 3)

    def project(self, points: Tensor, view: int) -> tuple[Tensor, Tensor]:
        """Pixel coordinates (..., 2) and depths (...) of world points (..., 3) in view `view`."""
        camera = points @ self.world_to_camera[view, :3, :3].T + self.world_to_camera[view, :3, 3]
        depth = camera[..., 2]
        pixels = camera @ self.K[view].T
        return pixels[..., :2] / pixels[..., 2:].clamp(min=1e-9), depth


def focus_point(positions: Tensor, forwards: Tensor) -> Tensor | None:
    """(3,) the point nearest to all optical axes, or None when the cameras do not look at a common place in front of
    them.

    Least squares: sum over cameras of (I - f fT)(x - c) = 0.
    """
    device = positions.device
    positions, forwards = positions.cpu(), forwards.cpu()
    projectors = torch.eye(3) - forwards[:, :, None] * forwards[:, None, :]
    total = projectors.sum(dim=0)
    if torch.linalg.eigvalsh(total)[0] < 1e-3 * len(positions):
        return None
    point = torch.linalg.solve(total, (projectors @ positions[..., None]).sum(dim=0))[:, 0]
    depth = ((point - positions) * forwards).sum(dim=1)
    return point.to(device) if (depth > 0).float().mean() > 0.9 else None


def near_depths(rig: Rig) -> Tensor:
    """(V,) the depth nearer than which nothing is looked for.

    There the nearest neighbour sees a thing half a picture away; with cameras around a place, at most a quarter of the
    way to it.
    """
    positions = rig.positions
    distances = torch.cdist(positions, positions).fill_diagonal_(torch.inf)
    baseline = distances.amin(dim=1).median().clamp(min=1e-9)
    near = 2 * rig.K[:, 0, 0] * baseline / rig.size[1]
    focus = focus_point(positions, rig.forwards)
    if focus is not None:
        near = torch.minimum(near, 0.25 * (focus - positions).norm(dim=1))
    return near


def choose_neighbours(rig: Rig, n_neighbours: int, typical_depth: Tensor, among: list[int] | None = None) -> Tensor:
    """(V, n) for each view the others that see what it sees at `typical_depth` (V,), at angles good for matching.

    Only the views in `among` are chosen from, if given.
    """
    positions, forwards = rig.positions, rig.forwards
    n_views = len(positions)
    scores = torch.full((n_views, n_views), -torch.inf)
    for v in range(n_views):
        middle = positions[v] + forwards[v] * typical_depth[v]
        towards = torch.nn.functional.normalize(middle - positions, dim=1)
        angle = torch.rad2deg(torch.acos((towards @ towards[v]).clamp(-1, 1)))
        spread = torch.where(angle < GOOD_ANGLE, NARROW, WIDE)
        seen = (towards * forwards).sum(dim=1)
        score = torch.exp(-0.5 * ((angle - GOOD_ANGLE) / spread) ** 2) * seen.clamp(min=0)
        score -= 1e-3 * angle / 180  # Where all are too wide, the least wide.
        score[v] = -torch.inf
        scores[v] = score.cpu()
    candidates = torch.arange(n_views) if among is None else torch.tensor(among)
    best = scores[:, candidates].topk(max(min(n_neighbours, len(candidates) - 1), 1), dim=1).indices
    return candidates[best]
