"""Where a field's numbers lie: levels of the hash grid, the space it covers, and the steps along a ray.

Everything here is a plain number, fixed for the life of a field, and checked when it is made: a ValueError names the
argument. Formulas: docs/fields.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

OCCUPANCY_RESOLUTION = 128
"""Cells along an axis of one cascade of the occupancy grid."""
HASH_PRIMES = (1, 2654435761, 805459861)
"""Factors of x, y and z in the spatial hash (Teschner et al. 2003, as in Mueller et al. 2022, equation 4)."""


@dataclass(frozen=True)
class GridLayout:
    """Levels of a multi-resolution hash grid (Mueller et al. 2022) and where their entries stand in one table.

    Level l has resolution N_l, that is (N_l + 1)^3 vertices. Where they fit into a table of 2^log2_table_size entries,
    entry x + (N_l + 1) (y + (N_l + 1) z) is the vertex's own; else vertices share 2^log2_table_size entries by hash.
    """

    n_levels: int = 16
    """Number of levels L."""
    n_features: int = 2
    """Features an entry F; the encoding has L * F."""
    base_resolution: int = 16
    """Cells along an axis of the coarsest level."""
    finest_resolution: int = 2048
    """Cells along an axis of the finest level; the levels between grow geometrically."""
    log2_table_size: int = 19
    """Log 2 of the most entries that a level may have."""

    def __post_init__(self) -> None:
        if not 1 <= self.n_levels <= 32:
            raise ValueError(f"n_levels must be 1 to 32, got {self.n_levels}.")
        if self.n_features not in (1, 2, 4, 8):
            raise ValueError(f"n_features must be 1, 2, 4 or 8, got {self.n_features}.")
        if not 1 <= self.base_resolution <= self.finest_resolution:
            raise ValueError(
                f"base_resolution must be 1 to finest_resolution {self.finest_resolution}, got {self.base_resolution}."
            )
        if not 4 <= self.log2_table_size <= 24:
            raise ValueError(f"log2_table_size must be 4 to 24, got {self.log2_table_size}.")

    @property
    def table_size(self) -> int:
        """The most entries that a level may have."""
        return 2**self.log2_table_size

    @property
    def resolutions(self) -> tuple[int, ...]:
        """(L,) cells along an axis of each level, floor(base * growth^l)."""
        if self.n_levels == 1:
            return (self.base_resolution,)
        growth = (self.finest_resolution / self.base_resolution) ** (1 / (self.n_levels - 1))
        # The tiny addend keeps rounding from flooring the finest level to one cell less.
        return tuple(math.floor(self.base_resolution * growth**level + 1e-6) for level in range(self.n_levels))

    @property
    def sizes(self) -> tuple[int, ...]:
        """(L,) entries of each level."""
        return tuple(min((n + 1) ** 3, self.table_size) for n in self.resolutions)

    @property
    def hashed(self) -> tuple[bool, ...]:
        """(L,) whether vertices of a level share entries."""
        return tuple((n + 1) ** 3 > self.table_size for n in self.resolutions)

    @property
    def offsets(self) -> tuple[int, ...]:
        """(L + 1,) the first entry of each level, and the end of the last."""
        offsets = [0]
        for size in self.sizes:
            offsets.append(offsets[-1] + size)
        return tuple(offsets)

    @property
    def n_entries(self) -> int:
        """Entries of the whole table."""
        return self.offsets[-1]

    @property
    def width(self) -> int:
        """Features of an encoded position, L * F."""
        return self.n_levels * self.n_features


@dataclass(frozen=True)
class Space:
    """The part of the world that a field covers, with u = (x - center) / half_extent.

    A bounded space is the cube |u| <= 1. An unbounded one is everything, contracted into |c| <= 2 with the infinity
    norm (Barron et al. 2022, equation 10): c = u where |u| <= 1, else (2 - 1 / |u|) u / |u|. Samples lie in the cubes
    |u| <= 2^k of its cascades.
    """

    center: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """World position of u = 0."""
    half_extent: float = 1.0
    """World units that |u| = 1 stands for."""
    n_cascades: int = 1
    """Cubes |u| <= 2^k, k from 0, that have an occupancy grid each; nothing is seen beyond the last."""
    contract: bool = False
    """Whether the space is unbounded."""

    def __post_init__(self) -> None:
        if not (self.half_extent > 0 and math.isfinite(self.half_extent)):
            raise ValueError(f"half_extent must be positive and finite, got {self.half_extent}.")
        if not all(math.isfinite(value) for value in self.center):
            raise ValueError(f"center must be finite, got {self.center}.")
        if not 1 <= self.n_cascades <= 16:
            raise ValueError(f"n_cascades must be 1 to 16, got {self.n_cascades}.")
        if self.n_cascades > 1 and not self.contract:
            raise ValueError(f"a space without contraction has 1 cascade, got n_cascades {self.n_cascades}.")

    @property
    def reach(self) -> float:
        """Largest |u| that a sample can have."""
        return 2.0 ** (self.n_cascades - 1)


@dataclass(frozen=True)
class StepRule:
    """Length of the step at distance t along a ray, dt(t) = clamp(t * cone_angle, dt_min, dt_max)."""

    n_steps: int = 1024
    """Steps along the diagonal of the innermost cube."""
    cone_angle: float = 0.0
    """Growth of the step with distance: 0 for objects, 1/256 for scenes without bounds."""

    def __post_init__(self) -> None:
        if self.n_steps < 1:
            raise ValueError(f"n_steps must be at least 1, got {self.n_steps}.")
        if not 0.0 <= self.cone_angle < 1.0:
            raise ValueError(f"cone_angle must be in [0, 1), got {self.cone_angle}.")

    def limits(self, space: Space, occupancy_resolution: int = OCCUPANCY_RESOLUTION) -> tuple[float, float]:
        """(dt_min, dt_max) in world units; the longest step is a cell of the outermost cascade."""
        dt_min = 2.0 * math.sqrt(3.0) / self.n_steps * space.half_extent
        dt_max = 2.0 * space.reach / occupancy_resolution * space.half_extent
        return dt_min, max(dt_min, dt_max)
