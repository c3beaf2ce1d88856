"""What stands on the table: the list of objects, each a mesh, a texture, a finish and a motion."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from make_tabletop import motions, shapes, textures
from make_tabletop.motions import Motion, rotation, spin, still, translation
from make_tabletop.shapes import Mesh

FPS = 15.0
N_FRAMES = 30
CLIP = (N_FRAMES - 1) / FPS
"""Seconds from the first frame to the last."""
TABLE_RADIUS = 0.8
"""Metres."""


@dataclass(frozen=True)
class Thing:
    """One object of the stage."""

    name: str
    mesh: Mesh
    """In the object's own frame."""
    picture: np.ndarray
    """Texture (height, width, 3), sRGB in [0, 1], row 0 at v = 0."""
    motion: Motion
    """Time in seconds -> object-to-world (4, 4)."""
    deform: Callable[[np.ndarray, float], np.ndarray] | None = None
    """(vertices in the object's own frame, time) -> vertices; None for what a matrix moves."""
    roughness: float = 0.6
    """Of Blender's principled material; 1 is chalk."""
    coat: float = 0.0
    """Weight of a clear glossy coat."""
    appears: float = 0.0
    """Seconds; the object is not in the scene before."""
    n_points: int = 1500
    """Ground-truth points on its surface."""
    on_table: bool = True
    """False for the floor, which the object data set leaves out."""

    def is_present(self, time: float) -> bool:
        return time >= self.appears - 1e-9

    def vertices(self, time: float) -> np.ndarray:
        """World positions (n_vertices, 3) at a time."""
        local = self.mesh.vertices if self.deform is None else self.deform(self.mesh.vertices, time)
        matrix = self.motion(time)
        return local @ matrix[:3, :3].T + matrix[:3, 3]


def make_stage() -> list[Thing]:
    """All objects, in the order of the ground truth's object index."""
    picture = textures.texture
    vase = [(0.0, 0.0), (0.055, 0.0), (0.07, 0.012), (0.105, 0.08), (0.118, 0.15), (0.09, 0.225), (0.05, 0.28)]
    vase += [(0.048, 0.31), (0.068, 0.34), (0.062, 0.342), (0.04, 0.31), (0.0, 0.30)]
    cap = [(0.0, 0.0), (0.045, 0.0), (0.036, 0.05), (0.032, 0.10), (0.034, 0.125), (0.09, 0.115), (0.118, 0.122)]
    cap += [(0.122, 0.14), (0.10, 0.185), (0.055, 0.217), (0.0, 0.23)]
    tower = [(0.0, 0.0), (0.078, 0.0), (0.083, 0.02), (0.074, 0.12), (0.068, 0.22), (0.06, 0.32), (0.055, 0.39)]
    tower += [(0.035, 0.418), (0.0, 0.42)]
    # A cube on its corner: its diagonal turned upright.
    diagonal = rotation((1.0, -1.0, 0.0), -np.arccos(1.0 / np.sqrt(3.0)))
    return [
        Thing(
            "floor",
            shapes.disk(12.0),
            picture(textures.floor, 128, 128),
            still(translation(0.0, 0.0, -0.3)),
            roughness=1.0,
            n_points=2500,
            on_table=False,
        ),
        Thing(
            "table",
            shapes.board(TABLE_RADIUS, 0.05, 0.015),
            picture(textures.table, 1024, 1024),
            still(np.eye(4)),
            roughness=0.5,
            n_points=6000,
        ),
        Thing(
            "tower",
            shapes.revolve(tower, corner=3.5),
            picture(textures.jelly, 384, 384),
            still(translation(0.02, 0.03, 0.0)),
            deform=motions.sway,
            roughness=0.45,
            n_points=1500,
        ),
        Thing(
            "vase",
            shapes.revolve(vase),
            picture(textures.vase, 512, 384),
            still(translation(0.47, 0.14, 0.0)),
            roughness=0.16,
            coat=0.6,
        ),
        Thing(
            "dice",
            shapes.rounded_box((0.2, 0.2, 0.2), 0.024),
            picture(textures.dice, 384, 256),
            spin(translation(-0.42, 0.16, 0.156), diagonal, 100.0),
            roughness=0.4,
        ),
        Thing(
            "ring",
            shapes.torus(0.105, 0.036),
            picture(textures.ring, 512, 192),
            spin(translation(0.06, 0.40, 0.141), np.eye(4), -80.0),
            roughness=0.5,
        ),
        Thing(
            "beach ball",
            shapes.sphere(0.095),
            picture(textures.beach_ball, 384, 192),
            motions.bounce((-0.16, -0.58), (0.46, -0.30), 0.095, CLIP, 0.24, 0.85, 0.35),
            roughness=0.5,
        ),
        Thing(
            "marble",
            shapes.sphere(0.07),
            picture(textures.marble, 384, 192),
            motions.roll(0.64, 0.07, 72.0, 30.0),
            roughness=0.35,
            n_points=1200,
        ),
        Thing(
            "mushroom",
            shapes.revolve(cap, n_v=80),
            picture(textures.mushroom, 512, 384),
            motions.grow(translation(-0.36, -0.25, 0.0), 0.6, 0.8),
            appears=0.6,
            roughness=0.5,
        ),
        Thing(
            "lower book",
            shapes.rounded_box((0.26, 0.19, 0.05), 0.008),
            picture(textures.book("#2d6a6a", "#f0d9a0"), 384, 256),
            still(translation(0.31, -0.16, 0.025) @ rotation((0, 0, 1), np.radians(24.0))),
        ),
        Thing(
            "upper book",
            shapes.rounded_box((0.21, 0.15, 0.04), 0.008),
            picture(textures.book("#a63a3a", "#f3e2bb"), 384, 256),
            still(translation(0.315, -0.165, 0.07) @ rotation((0, 0, 1), np.radians(-8.0))),
            n_points=1000,
        ),
    ]
