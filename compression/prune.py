"""Drops what no score holds up."""

from __future__ import annotations

import torch
from torch import Tensor

from kinosplat.compression.scores import Scores


def prune(scores: Scores, quantile: float) -> Tensor:
    """Mask (N,) of what is kept: Gaussians above the `quantile` of any score, and with some blend weight at all."""
    if not 0.0 <= quantile < 1.0:
        raise ValueError(f"quantile must be in [0, 1), got {quantile:g}.")
    kept = torch.zeros_like(scores.blend_weight, dtype=torch.bool)
    for part in scores.normalised():
        # Still Gaussians have no gradient in time: that score speaks of the others only.
        spoken_of = part > 0
        given = part[spoken_of]
        if len(given):
            threshold = torch.kthvalue(given, min(len(given), int(quantile * len(given)) + 1)).values
            kept |= spoken_of & (part >= threshold)
    return kept & (scores.blend_weight > 0)


def largest(importance: Tensor, n_kept: int) -> Tensor:
    """Positions (n_kept,), in order, of the largest of `importance` (N,)."""
    return torch.topk(importance, min(n_kept, len(importance))).indices.sort().values
