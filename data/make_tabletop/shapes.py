"""Triangle meshes made in numpy, so that the very triangles that Blender renders are known outside of it.

Every mesh is one or more grids of (u, v) whose coinciding corners are welded; (u, v) is kept per triangle corner.
"""

from dataclasses import dataclass

import numpy as np

WELD = 1e-6
"""Corners closer than this (metres) become one vertex."""


@dataclass(frozen=True)
class Mesh:
    """Triangles with texture coordinates, in metres."""

    vertices: np.ndarray
    """(n_vertices, 3) float64."""
    triangles: np.ndarray
    """(n_triangles, 3) int64, counter-clockwise seen from outside."""
    corner_uv: np.ndarray
    """(n_triangles, 3, 2) float64 in [0, 1]."""


def grid(points: np.ndarray, uv: np.ndarray) -> Mesh:
    """A mesh from an (n_v, n_u, 3) array of points and (n_v, n_u, 2) of texture coordinates."""
    n_v, n_u, _ = points.shape
    index = np.arange(n_v * n_u).reshape(n_v, n_u)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return weld(Mesh(points.reshape(-1, 3), triangles, uv.reshape(-1, 2)[triangles]))


def weld(mesh: Mesh) -> Mesh:
    """Joins coinciding vertices and drops the triangles that have no area then (at poles)."""
    keys = np.round(mesh.vertices / WELD).astype(np.int64)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    triangles = inverse.reshape(-1)[mesh.triangles]
    a, b, c = triangles.T
    kept = (a != b) & (b != c) & (a != c)
    return Mesh(mesh.vertices[first], triangles[kept], mesh.corner_uv[kept])


def join(meshes: list[Mesh]) -> Mesh:
    """Several meshes as one, welded."""
    offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    return weld(
        Mesh(
            np.concatenate([mesh.vertices for mesh in meshes]),
            np.concatenate([mesh.triangles + offset for mesh, offset in zip(meshes, offsets, strict=True)]),
            np.concatenate([mesh.corner_uv for mesh in meshes]),
        )
    )


def _uv_grid(n_u: int, n_v: int) -> tuple[np.ndarray, np.ndarray]:
    return np.meshgrid(np.linspace(0.0, 1.0, n_u + 1), np.linspace(0.0, 1.0, n_v + 1))


def sphere(radius: float, n_u: int = 64, n_v: int = 32) -> Mesh:
    """A ball about the origin; v runs from the south pole to the north pole."""
    u, v = _uv_grid(n_u, n_v)
    longitude, latitude = 2.0 * np.pi * u, np.pi * (v - 0.5)
    ring = np.cos(latitude)
    ring[[0, -1]] = 0.0
    points = np.stack([ring * np.cos(longitude), ring * np.sin(longitude), np.sin(latitude)], -1)
    points[:, -1] = points[:, 0]
    return grid(radius * points, np.stack([u, v], -1))


def revolve(profile: list[tuple[float, float]], n_u: int = 72, n_v: int = 60, corner: float = 2.0) -> Mesh:
    """A surface of revolution about z through the (radius, height) `profile`, smoothed by a Catmull-Rom curve.

    `corner` above 2 turns the circle into a rounded square |x|^corner + |y|^corner = radius^corner.
    """
    u, v = _uv_grid(n_u, n_v)
    curve = _catmull_rom(np.array(profile), n_v + 1)
    cosine, sine = np.cos(2.0 * np.pi * u), np.sin(2.0 * np.pi * u)
    norm = (np.abs(cosine) ** corner + np.abs(sine) ** corner) ** (-1.0 / corner)
    radius = np.maximum(curve[:, :1], 0.0) * norm
    points = np.stack([radius * cosine, radius * sine, np.broadcast_to(curve[:, 1:], u.shape)], -1)
    points[:, -1] = points[:, 0]
    return grid(points, np.stack([u, v], -1))


def _catmull_rom(knots: np.ndarray, n_points: int) -> np.ndarray:
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    position = np.linspace(0.0, len(knots) - 1.0, n_points)
    segment = np.minimum(position.astype(int), len(knots) - 2)
    t = (position - segment)[:, None]
    a, b, c, d = (padded[segment + k] for k in range(4))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    curve[[0, -1]] = knots[[0, -1]]
    return curve


def torus(radius: float, tube: float, n_u: int = 80, n_v: int = 28) -> Mesh:
    """A ring that stands upright in the x-z plane about the origin."""
    u, v = _uv_grid(n_u, n_v)
    along, around = 2.0 * np.pi * u, 2.0 * np.pi * v
    reach = radius + tube * np.cos(around)
    points = np.stack([reach * np.cos(along), -tube * np.sin(around), reach * np.sin(along)], -1)
    points[:, -1] = points[:, 0]
    points[-1] = points[0]
    return grid(points, np.stack([u, v], -1))


def disk(radius: float, n_u: int = 128, n_v: int = 24) -> Mesh:
    """A flat disk in the plane z = 0 that looks up; (u, v) spans the square around it."""
    u, v = _uv_grid(n_u, n_v)
    reach = radius * v
    points = np.stack([reach * np.cos(2 * np.pi * u), reach * np.sin(2 * np.pi * u), 0.0 * u], -1)
    points[:, -1] = points[:, 0]
    uv = points[..., :2] / (2.0 * radius) + 0.5
    return grid(points[::-1], uv[::-1])


def board(radius: float, thickness: float, rounding: float) -> Mesh:
    """A round table top whose upper face is z = 0, with a rounded edge; texture coordinates as for `disk`."""
    bend = np.linspace(0.0, np.pi / 2.0, 9)
    reach = np.concatenate([np.linspace(0.0, radius - rounding, 20)[:-1], radius - rounding + rounding * np.sin(bend)])
    height = np.concatenate([np.zeros(19), -rounding + rounding * np.cos(bend)])
    reach = np.concatenate([reach, [radius, 0.0]])
    height = np.concatenate([height, [-thickness, -thickness]])
    angle = np.linspace(0.0, 2.0 * np.pi, 129)
    cosine, sine = np.cos(angle), np.sin(angle)
    points = np.stack([np.outer(reach, cosine), np.outer(reach, sine), np.outer(height, np.ones(129))], -1)
    points[:, -1] = points[:, 0]
    uv = points[..., :2] / (2.0 * radius) + 0.5
    return grid(points[::-1], uv[::-1])


def rounded_box(size: tuple[float, float, float], rounding: float, n: int = 16) -> Mesh:
    """A box about the origin with rounded edges.

    Its faces -x +x -y +y -z +z lie in an atlas of 3 columns and 2 rows.
    """
    half = np.array(size) / 2.0
    u, v = _uv_grid(n, n)
    # More grid lines where the edge bends than on the flat of the face.
    a, b = (np.sin(np.pi / 2.0 * (2.0 * axis - 1.0)) for axis in (u, v))
    faces = []
    for face in range(6):
        axis, sign = face // 2, 1.0 if face % 2 else -1.0
        cube = np.empty((*u.shape, 3))
        cube[..., axis] = sign
        cube[..., (axis + 1) % 3] = a * sign
        cube[..., (axis + 2) % 3] = b
        outer = cube * half
        inner = np.clip(outer, -(half - rounding), half - rounding)
        away = outer - inner
        points = inner + rounding * away / np.linalg.norm(away, axis=-1, keepdims=True)
        margin = 0.004
        local = np.clip(np.stack([a, b], -1) * 0.5 + 0.5, margin, 1.0 - margin)
        faces.append(grid(points, (local + np.array([face % 3, face // 3])) / np.array([3.0, 2.0])))
    return join(faces)
