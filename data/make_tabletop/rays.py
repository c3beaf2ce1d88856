"""Rays against the stage's triangles: exact depth at pixel centres, and which points the cameras see.

Independent of the renderer: it only knows the triangles and the cameras' matrices.
"""

from collections.abc import Sequence

import bpy  # noqa: F401  (mathutils is only found once bpy is there)
import numpy as np
from make_tabletop.cameras import RigCamera
from make_tabletop.stage import Thing
from mathutils import Vector
from mathutils.bvhtree import BVHTree

SLACK = 5e-4
"""Metres by which a ray may stop short of a point that counts as seen."""


class StageRays:
    """The triangles of the stage at one time, ready for rays."""

    def __init__(self, things: Sequence[Thing], time: float):
        vertices, triangles, n_vertices = [], [], 0
        for thing in things:
            if thing.is_present(time):
                vertices.append(thing.vertices(time))
                triangles.append(thing.mesh.triangles + n_vertices)
                n_vertices += len(vertices[-1])
        self._tree = BVHTree.FromPolygons(
            np.concatenate(vertices).tolist(), np.concatenate(triangles).tolist(), all_triangles=True
        )

    def depth(self, camera: RigCamera) -> np.ndarray:
        """Distance along the camera's axis (height, width) in metres at the pixel centres, 0 where nothing is hit."""
        K, rotation = camera.K, camera.world_to_camera[:3, :3]
        x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
        local = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1).reshape(-1, 3)
        # Directions are made unit length by the tree, so lengths along the ray are divided by this.
        length = np.linalg.norm(local, axis=1)
        origin = Vector(_position(camera))
        depth = np.zeros(len(local))
        cast = self._tree.ray_cast
        for index, direction in enumerate((local @ rotation).tolist()):
            distance = cast(origin, direction)[3]
            if distance is not None:
                depth[index] = distance / length[index]
        return depth.reshape(x.shape)

    def seen(self, points: np.ndarray, normals: np.ndarray, cameras: Sequence[RigCamera], enough: int) -> np.ndarray:
        """Which of the points (n, 3) at least `enough` cameras see from their outer side; bool (n,)."""
        n_views = np.zeros(len(points), dtype=int)
        cast = self._tree.ray_cast
        for camera in cameras:
            position = _position(camera)
            away = points - position
            distance = np.linalg.norm(away, axis=1)
            local = points @ camera.world_to_camera[:3, :3].T + camera.world_to_camera[:3, 3]
            pixel = local @ camera.K.T
            pixel = pixel[:, :2] / pixel[:, 2:]
            inside = ((pixel > 0.0) & (pixel < (camera.width, camera.height))).all(axis=1) & (local[:, 2] > 0.0)
            facing = (away * normals).sum(axis=1) < 0.0
            origin = Vector(position)
            for index in np.nonzero(inside & facing & (n_views < enough))[0]:
                hit = cast(origin, away[index].tolist())[3]
                n_views[index] += hit is None or hit > distance[index] - SLACK
        return n_views >= enough


def _position(camera: RigCamera) -> np.ndarray:
    return -camera.world_to_camera[:3, :3].T @ camera.world_to_camera[:3, 3]
