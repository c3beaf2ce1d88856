"""What keeps Gaussians from explaining the training pictures in ways that no other view would confirm.

All of it is off by default or mild, and has no part in rendering. Sources and reasons: docs/mathematics.md.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from kinosplat.render.gaussians import Gaussians

LEAST_DENSITY = 1e-9
"""Optical densities are taken as at least this much, so that the logarithm of one is finite."""
GONE = -40.0
"""Opacity logit of a Gaussian that is left out: far below the least that is drawn."""


def thinned(gaussians: Gaussians, rate: float, draws: torch.Generator) -> Gaussians:
    """The set without a share `rate` in [0, 1) of it, drawn evenly; the rest made denser. Rows stay where they are.

    A Gaussian of opacity o that stays gets o' = 1 - (1 - o)^(1 / (1 - rate)): the mean over draws of -log(1 - o'), its
    optical density, is what it was, so that nothing grows just to make up for those that are missing. (DropGaussian,
    Park et al. 2025, multiplies o itself, which can exceed 1.) With r = -log(1 - o') the logit is r + log(1 - e^-r).
    """
    logits = gaussians.opacity_logits
    density = (torch.nn.functional.softplus(logits) / (1.0 - rate)).clamp_min(LEAST_DENSITY)
    left_out = torch.rand(logits.shape, generator=draws, device=logits.device) < rate
    denser = density + torch.log(-torch.expm1(-density))
    return replace(gaussians, opacity_logits=torch.where(left_out, GONE, denser))


def brevity(log_durations: Tensor, visible: Tensor, clip_length: float) -> Tensor:
    """Mean over all N of log(clip length / duration) of the Gaussians in view, 0 for those that outlive the clip.

    log_durations (N,), of seconds; visible (N,) bool. The pull towards a longer life is the same at every duration, so
    it lengthens all lives that the pictures do not object to, and what lives longer is seen in more pictures.
    """
    shortness = (math.log(clip_length) - log_durations).clamp_min(0.0)
    return (shortness * visible).sum() / max(len(log_durations), 1)
