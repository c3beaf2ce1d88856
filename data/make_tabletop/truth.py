"""Ground truth from the meshes alone: points on the true surfaces at every frame, and depth maps of the test cameras.

Writes `points.npz` and `depth.npz` in the form that `kinosplat.data.ground_truth` documents and reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from make_tabletop.cameras import RigCamera
from make_tabletop.rays import StageRays
from make_tabletop.stage import FPS, N_FRAMES, Thing
from make_tabletop.textures import look_up

SEED = 3
FLOOR_REACH = 1.6
"""Metres; ground-truth points of the floor lie in this circle about the origin, not on all of its 12 m."""
DEFORMED_UNIT = 2e-5
"""Metres a step of the int16 positions of the deforming object."""
DEPTH_UNIT = 1e-3
"""Metres a step of the depth maps."""
ENOUGH_VIEWS = 2
"""Training cameras that have to see a point before it counts as visible."""


@dataclass(frozen=True)
class SurfacePoints:
    """Points bound to the triangles of one thing, so that they move with it."""

    thing: Thing
    triangle: np.ndarray
    """(n,) index of each point's triangle."""
    weights: np.ndarray
    """(n, 3) barycentric coordinates in it."""

    def on(self, vertices: np.ndarray) -> np.ndarray:
        """The points (n, 3) on the thing's triangles with these vertices."""
        return (vertices[self.thing.mesh.triangles[self.triangle]] * self.weights[..., None]).sum(axis=1)

    def local(self, time: float) -> np.ndarray:
        """The points (n, 3) in the thing's own frame, deformed."""
        thing = self.thing
        return self.on(thing.mesh.vertices if thing.deform is None else thing.deform(thing.mesh.vertices, time))

    def normals(self, time: float) -> np.ndarray:
        """Outward unit normals (n, 3) of their triangles in the world."""
        a, b, c = np.moveaxis(self.thing.vertices(time)[self.thing.mesh.triangles[self.triangle]], 1, 0)
        normal = np.cross(b - a, c - a)
        return normal / np.linalg.norm(normal, axis=1, keepdims=True)

    def colours(self) -> np.ndarray:
        """Unlit surface colours (n, 3), uint8 sRGB."""
        uv = (self.thing.mesh.corner_uv[self.triangle] * self.weights[..., None]).sum(axis=1)
        return np.round(look_up(self.thing.picture, uv) * 255.0).astype(np.uint8)


def sample(thing: Thing, generator: np.random.Generator) -> SurfacePoints:
    """`thing.n_points` points, uniform over the area of its surface at rest."""
    a, b, c = np.moveaxis(thing.mesh.vertices[thing.mesh.triangles], 1, 0)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not thing.on_table:
        area = area * (np.linalg.norm((a + b + c)[:, :2] / 3.0, axis=1) < FLOOR_REACH)
    triangle = generator.choice(len(area), size=thing.n_points, p=area / area.sum())
    first, second = generator.random((2, thing.n_points))
    # The square root makes the points uniform in the triangle instead of crowded at a corner.
    root = np.sqrt(first)
    weights = np.stack([1.0 - root, root * (1.0 - second), root * second], -1)
    return SurfacePoints(thing, triangle, weights)


def write_evaluation(folder: Path, things: Sequence[Thing], rig: Sequence[RigCamera]) -> None:
    """Writes points.npz and depth.npz (a few minutes: every pixel and every point is a ray cast from Python)."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(SEED)
    surfaces = [sample(thing, generator) for thing in things]
    training = [camera for camera in rig if camera.split == "train"]
    testing = [camera for camera in rig if camera.split == "test"]
    times = np.arange(N_FRAMES) / FPS

    visible: list[np.ndarray] = []
    depth: dict[str, list[np.ndarray]] = {camera.name: [] for camera in testing}
    for frame, time in enumerate(times):
        rays = StageRays(things, time)
        world = np.concatenate([surface.on(surface.thing.vertices(time)) for surface in surfaces])
        normals = np.concatenate([surface.normals(time) for surface in surfaces])
        present = np.repeat([thing.is_present(time) for thing in things], [thing.n_points for thing in things])
        visible.append(present & rays.seen(world, normals, training, ENOUGH_VIEWS))
        for camera in testing:
            depth[camera.name].append(np.round(rays.depth(camera) / DEPTH_UNIT).astype(np.uint16))
        print(f"ground truth of frame {frame}: {visible[-1].mean():.0%} of the points visible", flush=True)

    (deformed,) = (index for index, thing in enumerate(things) if thing.deform is not None)
    shapes = np.stack([surfaces[deformed].local(time) for time in times])
    np.savez_compressed(
        folder / "points.npz",
        object_names=np.array([thing.name for thing in things]),
        object_index=np.repeat(np.arange(len(things)), [thing.n_points for thing in things]).astype(np.uint8),
        rest_points=np.concatenate([surface.on(surface.thing.mesh.vertices) for surface in surfaces]).astype(
            np.float32
        ),
        colours=np.concatenate([surface.colours() for surface in surfaces]),
        transforms=np.array([[thing.motion(time) for time in times] for thing in things]),
        present=np.array([[thing.is_present(time) for time in times] for thing in things]),
        deformed_object=np.uint8(deformed),
        deformed_points=np.round(shapes / DEFORMED_UNIT).astype(np.int16),
        deformed_unit=np.float64(DEFORMED_UNIT),
        visible=np.packbits(np.stack(visible), axis=1),
    )
    # Most pixels show something still, so differences from frame to frame are mostly 0 and pack well.
    changes: dict[str, Any] = {
        name: np.diff(np.stack(maps), axis=0, prepend=np.uint16(0)) for name, maps in depth.items()
    }
    np.savez_compressed(folder / "depth.npz", **changes)
