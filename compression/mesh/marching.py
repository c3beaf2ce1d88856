"""A surface from a density: the level set by marching cubes (Lorensen and Cline 1987, as scikit-image has it).

The extra `mesh` installs scikit-image; without it BackendError says so.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kinosplat.compression.mesh.mesh import Mesh
from kinosplat.errors import BackendError, InputError

MISSING_SKIMAGE = "Marching cubes need scikit-image; run 'pip install \"kinosplat[mesh]\"'"
CHUNK = 1 << 18
"""Points asked for together; bounds memory, changes no value."""


class Density(Protocol):
    """What a method without Gaussians offers, so that it can become a mesh."""

    @property
    def density_box(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Lower and upper corner of the box that has the surface, scene coordinates."""

    @property
    def density_device(self) -> torch.device:
        """Where points are expected."""

    def density_at(self, points: Tensor) -> Tensor:
        """(S,) density in 1 / scene units at (S, 3) points; 0 where nothing is rendered."""

    def colour_at(self, points: Tensor, directions: Tensor) -> Tensor:
        """(S, 3) colours in [0, 1] at points, seen along (S, 3) unit directions."""


@torch.no_grad()
def mesh_of_density(density: Density, *, resolution: int, level: float, scale: float = 1.0) -> Mesh:
    """The surface where the density is `level`, on `resolution` cells along the longest side.

    The level is in 1 / units of the input, of which a scene unit has `scale`; the mesh is in scene units. Colours are
    those seen along the inward normal. InputError where the density never reaches the level.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise BackendError(f"{MISSING_SKIMAGE}.") from error

    lower, upper = (np.asarray(corner, np.float64) for corner in density.density_box)
    cell = float((upper - lower).max()) / resolution
    axes = [np.arange(round((upper[i] - lower[i]) / cell) + 1) * cell + lower[i] for i in range(3)]
    device = density.density_device
    rows = [torch.tensor(axis, dtype=torch.float32, device=device) for axis in axes[1:]]
    plane = torch.stack(torch.meshgrid(*rows, indexing="ij"), dim=-1).reshape(-1, 2)
    values = np.zeros([len(axis) for axis in axes], np.float32)
    for i, x in enumerate(axes[0]):
        points = torch.cat([plane.new_full((len(plane), 1), x), plane], dim=1)
        found = torch.cat([density.density_at(part) for part in points.split(CHUNK)])
        values[i] = found.reshape(values.shape[1:]).float().cpu().numpy()
    values /= scale
    if not values.min() < level < values.max():
        raise InputError(
            f"The density is nowhere {level:g}; its largest value is {values.max():.3g}: give another --level."
        )
    # A density grows inwards, so that its gradient points against the normal.
    vertices, faces, normals, _ = marching_cubes(values, level, spacing=(cell,) * 3, gradient_direction="ascent")
    vertices = vertices + lower
    places = torch.tensor(vertices, dtype=torch.float32, device=device)
    inward = torch.nn.functional.normalize(torch.tensor(-np.ascontiguousarray(normals), device=device), dim=1)
    seen = [density.colour_at(p, d) for p, d in zip(places.split(CHUNK), inward.split(CHUNK), strict=True)]
    colours = (torch.cat(seen) * 255).round().clamp(0, 255).byte().cpu().numpy()
    return Mesh(vertices.astype(np.float64), faces.astype(np.int64), colours)
