"""The learning rates that fine-tuning uses throughout, and sets with some of their parameters replaced.

Rates are those of the end of training, a little raised: a stage takes something away, and the rest has to close the
gap within a few hundred steps without forgetting what was learned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinosplat.compression.kino.networks import LATENTS
from kinosplat.compression.surroundings import Surroundings
from kinosplat.render.gaussians import TIME_PARAMETER_NAMES, Gaussians


def fine_rates(surroundings: Surroundings) -> dict[str, float]:
    """Adam's rate for each parameter, world units and seconds."""
    length = surroundings.radius
    return {
        "means": 4e-5 * length,
        "quats": 5e-4,
        "log_scales": 2e-3,
        "opacity_logits": 1e-2,
        "sh_dc": 1.5e-3,
        "sh_rest": 1e-4,
        "displacements": 4e-5 * length,
        "time_centres": 2e-4 * surroundings.duration,
        "log_durations": 2e-3,
        LATENTS: 2e-3,
    }


def moving_rows(gaussians: Gaussians) -> Tensor:
    """Positions (M,) of the Gaussians that are not still; none in a static set."""
    if gaussians.log_durations is None:
        return torch.zeros(0, dtype=torch.int64, device=gaussians.device)
    return torch.nonzero(torch.isfinite(gaussians.log_durations))[:, 0]


def with_parameters(fixed: Gaussians, values: dict[str, Tensor], moving: Tensor) -> Gaussians:
    """`fixed` with some parameters replaced; those of time are given for the `moving` rows only."""
    parameters = fixed.parameters()
    for name, value in values.items():
        if name in TIME_PARAMETER_NAMES:
            parameters[name] = parameters[name].index_copy(0, moving, value)
        else:
            parameters[name] = value
    return Gaussians(**parameters)
