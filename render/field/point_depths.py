"""Where along a camera's rays surfaces are, as far as first points say.

A point whose colour a camera sees where the point should be says that nothing is before it. Depths of such points, by
patches of a picture, bound the depth of the surface; a patch without points, or with many that are not seen, says
nothing. Points and colours that are not finite are never seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.render.camera import Camera

POINTS_A_PATCH = 4.0
"""A patch is so large that it holds so many points in the mean: patches of a textured surface seldom hold none."""
LARGEST_DIFFERENCE = 0.1
"""A camera is taken to see a point when colours in [0, 1] differ by no more than this in the mean of the channels, else
something is before it."""
LEAST_SEEN = 0.5
"""A patch says nothing when less than this part of the points in it is seen: something else is before them."""
SLACK = 0.03
"""The surface may be nearer and farther than the points say by this part of the depth; points found in pictures of
150x150 pixels are off by 1%."""


@torch.no_grad()
def depth_bounds(camera: Camera, picture: Tensor, points: Tensor, colours: Tensor, near: float) -> tuple[float, Tensor]:
    """Side of a patch in pixels, and (rows, columns, 2) the least and the largest depth of the surface in each patch.

    Bounds come from the points in a patch and the eight around it; they are 0 and inf where nothing is known. `picture`
    (H, W, 3) and `colours` (P, 3) are in [0, 1], `points` (P, 3) in world units; those nearer than `near` do not count.
    """
    matrix = camera.K @ camera.world_to_camera[:3]
    x, y, z = (points @ matrix[:, :3].T + matrix[:, 3]).unbind(-1)
    x, y = x / z, y / z
    inside = (z > near) & (x >= 0) & (y >= 0) & (x < camera.width) & (y < camera.height)
    x, y, z = x[inside], y[inside], z[inside]
    is_seen = (picture[y.long(), x.long()] - colours[inside]).abs().mean(dim=1) <= LARGEST_DIFFERENCE
    patch = max(math.sqrt(camera.width * camera.height * POINTS_A_PATCH / max(int(is_seen.sum()), 1)), 1.0)
    n_rows, n_columns = math.ceil(camera.height / patch), math.ceil(camera.width / patch)
    patches = (y / patch).long() * n_columns + (x / patch).long()
    surplus = torch.bincount(patches, weights=is_seen.float() - LEAST_SEEN, minlength=n_rows * n_columns)

    def farthest(signed_depth: Tensor) -> Tensor:
        largest = signed_depth.new_full((n_rows * n_columns,), -math.inf)
        largest.scatter_reduce_(0, patches[is_seen], signed_depth[is_seen], "amax")
        return torch.nn.functional.max_pool2d(largest.view(1, n_rows, n_columns), 3, stride=1, padding=1)[0]

    seen = torch.zeros(n_rows * n_columns, dtype=torch.bool, device=z.device)
    seen[patches[is_seen]] = True
    known = (seen & (surplus >= 0)).view(n_rows, n_columns)
    least = torch.where(known, -(1 - SLACK) * farthest(-z), 0.0)
    return patch, torch.stack([least, torch.where(known, (1 + SLACK) * farthest(z), math.inf)], dim=-1)


@dataclass(frozen=True)
class PointDepths:
    """Depth bounds of V views, so that rays can look theirs up on the device."""

    inverse_K: Tensor
    """(V, 3, 3)."""
    patches: Tensor
    """(V,) side of a patch, pixels."""
    bounds: Tensor
    """(V, rows, columns, 2) of `depth_bounds`; pictures with fewer patches fill the first rows and columns."""

    @staticmethod
    def of(views: Iterable[tuple[Camera, Tensor]], points: Tensor, colours: Tensor, near: float) -> PointDepths:
        """From each view's camera and picture; the other arguments are those of `depth_bounds`."""
        inverses, patches, bounds = [], [], []
        for camera, picture in views:
            patch, bound = depth_bounds(camera, picture, points, colours, near)
            inverses.append(torch.linalg.inv(camera.K))
            patches.append(patch)
            bounds.append(bound)
        n_rows, n_columns = (max(bound.shape[axis] for bound in bounds) for axis in (0, 1))
        together = points.new_zeros(len(bounds), n_rows, n_columns, 2)
        for place, bound in zip(together, bounds, strict=True):
            place[: bound.shape[0], : bound.shape[1]] = bound
        return PointDepths(torch.stack(inverses), points.new_tensor(patches), together)

    def along(self, views: Tensor, places: Tensor) -> Tensor:
        """(R, 2) the least and the largest distance of the surface along rays through (R, 2) pixel coordinates of (R,)
        views, world units; 0 and inf where nothing is known.
        """
        patch = (places / self.patches[views, None]).long()
        homogeneous = torch.nn.functional.pad(places, (0, 1), value=1.0)
        distance_a_depth = (self.inverse_K[views] * homogeneous[:, None]).sum(-1).norm(dim=1, keepdim=True)
        return self.bounds[views, patch[:, 1], patch[:, 0]] * distance_a_depth

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of it."""
        return {"depths.inverse_K": self.inverse_K, "depths.patches": self.patches, "depths.bounds": self.bounds}

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor], device: torch.device) -> PointDepths | None:
        """What `tensors` returned, or None where there is nothing of it."""
        if "depths.bounds" not in tensors:
            return None
        names = ("depths.inverse_K", "depths.patches", "depths.bounds")
        return PointDepths(*(tensors[name].to(device) for name in names))
