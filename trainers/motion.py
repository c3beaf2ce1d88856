"""What is asked of motion beyond explaining the pictures: long lives, and neighbours that move alike.

Training pictures can be explained by Gaussians that flash up for a frame and never move; between the cameras such a
person is learned over and over again from the noise of single pictures. Two terms speak for one that lasts:

* lifetime: the mean of log(clip length / duration) of what is in view, so that a Gaussian that may as well live longer
  does;
* coherence: the mean distance by which a Gaussian's displacement differs from the one it would have with the mean
  velocity of its neighbourhood, a cell in space and time (local rigidity in its simplest form; Luiten et al. 2024 ask
  it of fixed neighbours). The grid of cells is shifted at random in each step, so no place is always at a border.

Both count what is visible only, as far as it is there at the time of the picture, and leave still Gaussians alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kinosplat.trainers.gaussian_rows import GaussianRows
from kinosplat.trainers.methods.config import MotionConfig

N_CELLS = 1 << 18
"""Places in the table of cells; cells that share one average their velocities, which is rare and does little harm."""
SHIFT_BITS = 15
"""Bits of the key that say how far the cells are shifted along an axis."""
HASH_FACTORS = (1, 2_654_435_761, 805_459_861, 3_674_653_429)
"""Primes of the spatial hash of Müller et al. 2022, and one more for time."""


def motion_penalties(
    config: MotionConfig,
    rows: GaussianRows,
    visible: Tensor,
    times: Sequence[float],
    clip: tuple[float, float],
    key: int,
) -> dict[str, Tensor]:
    """Terms to add to the loss of pictures at `times` (seconds); where the cells lie follows from `key` (63 bits)."""
    log_durations, displacements = rows["log_durations"], rows["displacements"]
    lives = torch.isfinite(log_durations.detach())
    durations = torch.where(lives, log_durations.detach(), 0.0).exp()
    present = torch.stack([(time - rows["time_centres"].detach()) / durations for time in times]).abs().amin(dim=0)
    weights = torch.where(visible & lives, torch.exp(-0.5 * present.square()), 0.0) / len(rows)
    length = clip[1] - clip[0]
    terms = {}
    if config.lifetime > 0.0:
        log_share = torch.where(lives, log_durations, 0.0) - torch.tensor(length).log().item()
        terms["lifetime"] = -config.lifetime * (weights * log_share.clamp_max(0.0)).sum()
    if config.coherence > 0.0:
        velocities = neighbourhood_velocities(rows, durations, lives, config, key)
        apart = displacements - velocities * durations[:, None]
        distance = torch.sqrt(apart.square().sum(dim=1) + (1e-4 * rows.radius) ** 2)
        terms["coherence"] = config.coherence / rows.radius * (weights * distance).sum()
    return terms


@torch.no_grad()
def neighbourhood_velocities(
    rows: GaussianRows, durations: Tensor, lives: Tensor, config: MotionConfig, key: int
) -> Tensor:
    """(N, 3) mean velocity, weighted by opacity, of the moving Gaussians in each one's cell; world units a second."""
    cells = torch.cat(
        [
            rows["means"] / (config.neighbourhood * rows.radius),
            rows["time_centres"][:, None] / config.neighbourhood_time,
        ],
        dim=1,
    )
    shift = [(key >> SHIFT_BITS * axis) % (1 << SHIFT_BITS) / (1 << SHIFT_BITS) for axis in range(4)]
    numbers = torch.floor(cells + cells.new_tensor(shift)).long()
    keys = numbers[:, 0]
    for axis in range(1, 4):
        keys = keys ^ (numbers[:, axis] * HASH_FACTORS[axis])
    keys = keys & (N_CELLS - 1)
    weights = torch.where(lives, rows.opacities, 0.0)[:, None]
    moments = torch.cat([weights * rows["displacements"] / durations[:, None], weights], dim=1)
    table = moments.new_zeros(N_CELLS, 4).index_add_(0, keys, moments)[keys]
    return table[:, :3] / table[:, 3:].clamp_min(1e-12)
