"""Which part of a scene a field covers, from the cameras alone."""

from __future__ import annotations

import torch
from torch import Tensor

from kinosplat.render.field.layout import Space, StepRule
from kinosplat.render.field.point_depths import PointDepths
from kinosplat.render.paths.orbit import look_at_point
from kinosplat.scenes import FrameLoader, PointCloud, Scene
from kinosplat.trainers.methods.field_config import FieldConfig

FINEST_CONE = 1 / 256
"""Growth of steps with distance in unbounded scenes, about a pixel (Mueller et al. 2022)."""
MOST_LOOKED_AT = 16
"""Pictures that are asked whether an object leaves them."""
BORDER_SHARE = 0.02
"""Part of a picture's outermost pixels from which on an object leaves it."""


def space_of(config: FieldConfig, scene: Scene) -> Space:
    """The space that the config asks for.

    Its centre is the point that the training cameras look at. Half its side is by default what the median camera sees
    of the plane through that point, along the shorter side of the picture.
    """
    extent = seen_extent(scene) if config.extent is None else config.extent
    x, y, z = look_at_point([view.camera for view in scene.train]).tolist()
    bounded = config.bounds == "object"
    return Space((x, y, z), extent, 1 if bounded else config.cascades, contract=not bounded)


def seen_extent(scene: Scene, *, to_the_corners: bool = False) -> float:
    """How far from the point that the training cameras look at the median camera sees, in scene units: to the nearer
    edges of its picture, or to the corners.
    """
    cameras = [view.camera for view in scene.train]
    centre = look_at_point(cameras)
    distances = torch.stack([(camera.position.double() - centre).norm() for camera in cameras])
    sides = torch.stack([torch.stack([c.width / c.K[0, 0], c.height / c.K[1, 1]]) for c in cameras]).double()
    tangents = 0.5 * (sides.norm(dim=1) if to_the_corners else sides.amin(dim=1))
    return (distances * tangents).median().item()


def object_reaches_out(scene: Scene) -> bool:
    """Whether what masks or alpha cut out touches the border of most pictures, so that there is more of it than they
    show at once.
    """
    step = -(-len(scene.train) // MOST_LOOKED_AT)
    views = scene.train[::step]
    with FrameLoader(views, cache_bytes=0, n_workers=2) as loader:
        touching = [touches_border(f) for i in range(len(views)) if (f := loader.get(i).foreground) is not None]
    return sum(touching) > 0.5 * len(views)


def touches_border(foreground: Tensor) -> bool:
    """Whether a noticeable part of the outermost pixels of (H, W) belongs to the foreground."""
    border = torch.cat([foreground[0], foreground[-1], foreground[:, 0], foreground[:, -1]])
    return (border > 0.5).float().mean().item() > BORDER_SHARE


def cells_as_pixels(config: FieldConfig, scene: Scene) -> int:
    """Cells along an axis of the cube that are as wide as a pixel where the median camera looks."""
    space = space_of(config, scene)
    centre = torch.tensor(space.center, dtype=torch.float64)
    cameras = [view.camera for view in scene.train]
    widths = [(c.position.double() - centre).norm() / min(c.K[0, 0], c.K[1, 1]) for c in cameras]
    return round(2 * space.half_extent / torch.stack(widths).median().item())


def steps_of(config: FieldConfig) -> StepRule:
    """The steps along rays: even in a bounded space, growing in an unbounded one, faster where steps are few."""
    assert config.ray_steps is not None
    return StepRule(config.ray_steps, 0.0 if config.bounds == "object" else max(FINEST_CONE, 2 / config.ray_steps))


def point_depths(scene: Scene, points: PointCloud, near: float, device: torch.device) -> PointDepths | None:
    """What the training pictures and first points say of depths; None without points."""
    if len(points) == 0:
        return None
    positions, colours = points.positions.to(device), points.colors.to(device).float() / 255
    with FrameLoader(scene.train, cache_bytes=0, n_workers=2, device=device) as loader:
        views = ((view.camera.to(device), loader.get(i).image) for i, view in enumerate(scene.train))
        return PointDepths.of(views, positions, colours, near)


def cuts_object_out(scene: Scene, object_only: bool) -> bool:
    """Whether the pictures show an object and nothing else: by masks that cut it out, or by their alpha."""
    if object_only and any(view.mask is not None for view in scene.train):
        return True
    with FrameLoader(scene.train[:1], cache_bytes=0, n_workers=1) as loader:
        alpha = loader.get(0).alpha
    return alpha is not None and bool((alpha < 0.5).any())
