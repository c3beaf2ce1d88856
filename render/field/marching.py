"""What marching takes, whichever backend does it: parts of rays, and the cells in which there may be something.

The samples of a ray are members of t_0 = near + jitter dt(near), t_(i+1) = t_i + dt(t_i), with the steps of the rule;
where these all have one length, t_i = t_0 + i dt.
A member counts when its midpoint lies between near and far and in an occupied cell; the cell is that of the smallest
cascade which holds the midpoint. How empty space is passed is a backend's own affair: the samples do not depend on it.
Rays without a direction (zero or not finite) have no samples.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kinosplat.render.field.layout import OCCUPANCY_RESOLUTION, Space, StepRule


@dataclass(frozen=True)
class RayParts:
    """R rays in world coordinates, and from where to where each is marched."""

    origins: Tensor
    """(R, 3) world units."""
    directions: Tensor
    """(R, 3) of length 1."""
    near: Tensor
    """(R,) distance at which the part begins, world units."""
    far: Tensor
    """(R,) distance at which it ends."""
    jitter: Tensor
    """(R,) in [0, 1): by how much of a step the samples are moved."""

    def __len__(self) -> int:
        return self.origins.shape[0]


@dataclass(frozen=True)
class OccupiedCells:
    """A space with the cells of its cascades that are not known to be empty, and the steps through it."""

    bits: Tensor
    """(n_cascades * resolution^3 / 8,) uint8, cell i is bit i % 8 of byte i / 8; cascade after cascade, x fastest."""
    space: Space
    """What the cascades cover."""
    rule: StepRule
    """Length of the steps."""
    resolution: int = OCCUPANCY_RESOLUTION
    """Cells along an axis of a cascade, a multiple of 8."""
