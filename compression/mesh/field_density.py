"""The density of a radiance field on a hash grid, as marching cubes ask for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.render.field import reference
from kinosplat.render.field.field import Field
from kinosplat.render.field.occupancy import OccupancyGrid


@dataclass(frozen=True)
class FieldDensity:
    """A `Density`; members as there."""

    field: Field
    """Parameters, without gradients."""
    grid: OccupancyGrid
    """Where pictures march through; elsewhere there is nothing."""

    @property
    def density_box(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Corners of the innermost cube."""
        x, y, z = self.grid.space.center
        half = self.grid.space.half_extent
        return (x - half, y - half, z - half), (x + half, y + half, z + half)

    @property
    def density_device(self) -> torch.device:
        """Where the field is."""
        return self.grid.bits.device

    def density_at(self, points: Tensor) -> Tensor:
        """(S,) at (S, 3); 0 in cells that are never marched through."""
        cells = reference.occupancy_cells(points, self.grid.space, self.grid.resolution)
        reached = (cells >= 0) & self.grid.occupied()[cells.clamp_min(0)]
        density = torch.zeros(len(points), device=points.device)
        if reached.any():
            density[reached] = self._evaluated(points[reached])[0].float()
        return density

    def colour_at(self, points: Tensor, directions: Tensor) -> Tensor:
        """(S, 3) at (S, 3) points, seen along (S, 3) unit directions."""
        return self.field.colour(self._evaluated(points)[1], directions)

    def _evaluated(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return self.field.density(reference.grid_positions(points, self.grid.space))
