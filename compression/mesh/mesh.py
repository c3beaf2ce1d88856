"""A triangle mesh, and its PLY file (binary, triangles, colours a vertex), which every mesh tool opens.

What is no mesh of triangles raises InputError; files appear whole or not at all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinosplat.compression.formats.ply_container import read_elements
from kinosplat.errors import InputError

Points = NDArray[np.float64]
"""(N, 3)."""


@dataclass(frozen=True)
class Mesh:
    """Triangles with shared vertices."""

    vertices: Points
    """(V, 3)."""
    faces: NDArray[np.int64]
    """(F, 3) numbers of vertices, anticlockwise seen from outside."""
    colours: NDArray[np.uint8] | None = None
    """(V, 3) sRGB."""

    def without_specks(self, least: float) -> Mesh:
        """Only the connected parts that have at least `least` of the largest part's triangles."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        if len(self.faces) == 0:
            return self
        n = len(self.vertices)
        ends = np.concatenate([self.faces[:, [0, 1]], self.faces[:, [1, 2]]])
        links = coo_matrix((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(n, n))
        part = connected_components(links, directed=False)[1][self.faces[:, 0]]
        sizes = np.bincount(part)
        return self._keep(self.faces[sizes[part] >= least * sizes.max()])

    def _keep(self, faces: NDArray[np.int64]) -> Mesh:
        used = np.unique(faces)
        number = np.full(len(self.vertices), -1)
        number[used] = np.arange(len(used))
        return Mesh(self.vertices[used], number[faces], None if self.colours is None else self.colours[used])


def write_mesh(path: str | Path, mesh: Mesh) -> None:
    """Write a binary little-endian PLY; vertices as float32."""
    path = Path(path)
    columns: list[Any] = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    if mesh.colours is not None:
        columns += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
    vertices = np.zeros(len(mesh.vertices), columns)
    for i, name in enumerate("xyz"):
        vertices[name] = mesh.vertices[:, i]
    if mesh.colours is not None:
        for i, name in enumerate(("red", "green", "blue")):
            vertices[name] = mesh.colours[:, i]
    faces = np.zeros(len(mesh.faces), [("count", "u1"), ("vertex_indices", "<i4", (3,))])
    faces["count"] = 3
    faces["vertex_indices"] = mesh.faces
    words = {"<f4": "float", "u1": "uchar"}
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(vertices)}",
        *(f"property {words[kind]} {name}" for name, kind in columns),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(("\n".join(header) + "\n").encode() + vertices.tobytes() + faces.tobytes())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_mesh(path: str | Path) -> Mesh:
    """Vertices and triangles of a PLY file; InputError where it has none."""
    path = Path(path)
    elements = read_elements(path, triangles=True)
    vertices = _points_of(elements, path)
    face = elements.get("face")
    names = () if face is None else face.dtype.names or ()
    found = next((name for name in ("vertex_indices", "vertex_index") if name in names), None)
    if face is None or found is None or len(face) == 0:
        raise InputError(f"{path} has no triangles; give a mesh, such as `kinosplat export --format mesh` writes.")
    faces = face[found].astype(np.int64)
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise InputError(f"{path} has triangles of vertices that are not there; export it again.")
    return Mesh(vertices, faces)


def read_points(path: str | Path) -> Points:
    """Vertices of a PLY file, (N, 3); InputError where it has none."""
    path = Path(path)
    return _points_of(read_elements(path, triangles=True), path)


def _points_of(elements: dict[str, NDArray[Any]], path: Path) -> Points:
    table = elements.get("vertex")
    if table is None or not {"x", "y", "z"} <= set(table.dtype.names or ()):
        raise InputError(f"{path} has no vertices; give a mesh or a point cloud.")
    points = np.stack([table[name] for name in "xyz"], axis=1).astype(np.float64)
    finite: Points = points
    if len(points) == 0 or not np.isfinite(points).all():
        raise InputError(f"{path} has no vertices, or some that are no numbers; export it again.")
    return finite
