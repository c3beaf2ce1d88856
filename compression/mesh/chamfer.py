"""How far a mesh is from points on the true surface: the Chamfer protocol of the DTU data set (Jensen et al. 2014).

Accuracy is the mean distance from the mesh to the points, completeness that from the points to the mesh; both leave out
distances of `cap` and more. The mesh is represented by points spread over it so that no two are nearer than `spacing`,
taken only where the data set says that the truth was observed; of the true points, those below the table do not count.
These are the steps of DTU's own Matlab code; lengths are those of the input, millimetres with DTU's calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinosplat.compression.mesh.mesh import Mesh, Points
from kinosplat.errors import InputError

SPACING = 0.2
"""Millimetres; of DTU's own protocol."""
CAP = 20.0
"""Millimetres; of DTU's own protocol."""
MARGIN = 60.0
"""Millimetres around the observed box in which points of the mesh may still be nearest to true ones."""
CHUNK = 1 << 16
"""Points whose neighbours are looked up together; bounds memory, changes no value."""


@dataclass(frozen=True)
class Observed:
    """Where a DTU scan saw anything, and the table below it."""

    mask: NDArray[np.bool_]
    """(X, Y, Z) cells."""
    lower: Points
    """(3,) centre of the first cell."""
    upper: Points
    """(3,) corner of the box."""
    cell: float
    """Edge of a cell."""
    plane: Points
    """(4,) true points with plane . (x, 1) > 0 count."""

    def is_near(self, points: Points) -> NDArray[np.bool_]:
        """(N,) whether points are in the box or a margin around it."""
        near = (points >= self.lower - MARGIN) & (points < self.upper + 2 * MARGIN)
        return np.all(near, axis=1)

    def has_seen(self, points: Points) -> NDArray[np.bool_]:
        """(N,) whether points lie in an observed cell."""
        cells = np.around((points - self.lower) / self.cell).astype(np.int64)
        inside = ((cells >= 0) & (cells < self.mask.shape)).all(axis=1)
        seen = np.zeros(len(points), dtype=bool)
        seen[inside] = self.mask[tuple(cells[inside].T)]
        return seen

    def is_above(self, points: Points) -> NDArray[np.bool_]:
        """(N,) whether points lie above the table."""
        above: NDArray[np.bool_] = points @ self.plane[:3] + self.plane[3] > 0
        return above


@dataclass(frozen=True)
class Chamfer:
    """What was measured, in the input's unit of length."""

    accuracy: float
    """Mean distance from the mesh to the true points."""
    completeness: float
    """Mean distance from the true points to the mesh."""
    mean: float
    """Of the two."""
    n_mesh: int
    """Points the mesh was represented by, after masking."""
    n_truth: int
    """True points that counted."""
    spacing: float
    """Distance that no two points of the mesh fall below."""
    cap: float
    """Distances of this and more do not count."""


def chamfer(
    mesh: Mesh,
    truth: Points,
    *,
    spacing: float = SPACING,
    cap: float = CAP,
    observed: Observed | None = None,
    seed: int = 0,
) -> Chamfer:
    """Compare a mesh with (N, 3) true points of the same frame."""
    from scipy.spatial import cKDTree

    points = thinned(surface_points(mesh, spacing), spacing, np.random.default_rng(seed))
    if observed is not None:
        points = points[observed.is_near(points)]
    counted = points if observed is None else points[observed.has_seen(points)]
    above = truth if observed is None else truth[observed.is_above(truth)]
    if len(counted) == 0 or len(above) == 0:
        raise InputError("The mesh and the true points have nothing in common; check that both are in one frame.")
    to_truth = cKDTree(truth).query(counted, distance_upper_bound=cap, workers=-1)[0]
    to_mesh = cKDTree(points).query(above, distance_upper_bound=cap, workers=-1)[0]
    accuracy, completeness = _mean_below(to_truth, cap), _mean_below(to_mesh, cap)
    return Chamfer(
        accuracy, completeness, 0.5 * (accuracy + completeness), len(counted), len(above), spacing=spacing, cap=cap
    )


def _mean_below(distances: Points, cap: float) -> float:
    near = distances[distances < cap]
    if len(near) == 0:
        raise InputError(
            f"No point of the mesh is within {cap:g} of a true one; check that both are in one frame, or raise --cap."
        )
    return float(near.mean())


def surface_points(mesh: Mesh, spacing: float) -> Points:
    """The vertices, and a grid of points in each triangle so that neighbours are about `spacing` apart."""
    corner = mesh.vertices[mesh.faces]
    a, b = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    long_a, long_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    area = np.linalg.norm(np.cross(a, b), axis=1)
    # The grid's cells are as large as squares of the spacing, whatever angle its two directions enclose.
    with np.errstate(divide="ignore", invalid="ignore"):
        step = spacing * np.sqrt(long_a * long_b / area)
        n_a, n_b = np.floor(long_a / step), np.floor(long_b / step)
    large = (area > 0) & (n_a >= 1) & (n_b >= 1)
    sizes = np.stack([n_a[large], n_b[large]], axis=1).astype(np.int64)
    rows = np.flatnonzero(large)
    parts = [mesh.vertices]
    kinds, kind = np.unique(sizes, axis=0, return_inverse=True)
    order = np.argsort(kind.ravel(), kind="stable")
    starts = np.searchsorted(kind.ravel()[order], np.arange(len(kinds) + 1))
    for i, (columns, lines) in enumerate(kinds):
        u, v = np.meshgrid((np.arange(columns + 1) + 0.5) / columns, (np.arange(lines + 1) + 0.5) / lines)
        u, v = u[u + v < 1], v[u + v < 1]
        chosen = rows[order[starts[i] : starts[i + 1]]]
        grid = corner[chosen, None, 0] + u[None, :, None] * a[chosen, None] + v[None, :, None] * b[chosen, None]
        parts.append(grid.reshape(-1, 3))
    return np.concatenate(parts)


def thinned(points: Points, spacing: float, generator: np.random.Generator) -> Points:
    """A part of the points of which no two are nearer than `spacing`, chosen in random order."""
    from scipy.spatial import cKDTree

    points = points[generator.permutation(len(points))]
    tree = cKDTree(points)
    is_left = np.ones(len(points), dtype=bool)
    for first in range(0, len(points), CHUNK):
        numbers = first + np.flatnonzero(is_left[first : first + CHUNK])
        for number, neighbours in zip(
            numbers, tree.query_ball_point(points[numbers], spacing, workers=-1), strict=True
        ):
            if is_left[number]:
                is_left[neighbours] = False
                is_left[number] = True
    return points[is_left]


def read_observed(mask: str | Path, plane: str | Path) -> Observed:
    """DTU's `ObsMask*_10.mat` and `Plane*.mat`; InputError where they are not what they should be."""
    found = _read_mat(mask, ("ObsMask", "BB", "Res"))
    table = _read_mat(plane, ("P",))
    box = np.asarray(found["BB"], np.float64)
    cells, normal = np.asarray(found["ObsMask"]).astype(bool), np.asarray(table["P"], np.float64).ravel()
    if box.shape != (2, 3) or cells.ndim != 3 or normal.shape != (4,):
        raise InputError(f"{mask} and {plane} are not the ObsMask and Plane files of a DTU scan; check the paths.")
    return Observed(cells, box[0], box[1], float(np.asarray(found["Res"]).ravel()[0]), normal)


def _read_mat(path: str | Path, names: tuple[str, ...]) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(str(path))
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path} cannot be read as a MATLAB file; check the path.") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise InputError(f"{path} has no {missing[0]}; give the file of the DTU evaluation data.")
    return content
