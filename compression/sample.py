"""Keeps the best part of a set: those whose scores are high together."""

from __future__ import annotations

import torch
from torch import Tensor

from kinosplat.compression.scores import Scores


def sample(scores: Scores, fraction: float) -> Tensor:
    """Positions (M,), in order, of the `fraction` of Gaussians with the largest product of min-max normalised scores.

    The temporal score takes no part for still Gaussians, whose gradient in time is zero: they get the median of the
    others.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction must be in (0, 1], got {fraction:g}.")
    parts = scores.normalised()
    if scores.temporal is not None:
        moves = scores.temporal > 0
        typical = parts[2][moves].median() if moves.any() else parts[2].new_ones(())
        parts[2] = torch.where(moves, parts[2], typical)
    # The sum of logarithms orders like the product and does not underflow.
    product = torch.stack([torch.log(part.double() + 1e-12) for part in parts]).sum(dim=0)
    n_kept = max(1, round(fraction * len(product)))
    return torch.topk(product, n_kept).indices.sort().values
