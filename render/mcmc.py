"""What training as Markov chain Monte Carlo (Kheradmand et al. 2024) asks of every Gaussian at every step.

Noise on positions that grows with the covariance and with transparency, and penalties on opacity and scale of what is
in view. Each is one native call: as single operations they would cost more than drawing the picture. Tensors that do
not fit the set are refused with ValueError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kinosplat.errors import InputError
from kinosplat.render.backend import step_passes_for
from kinosplat.render.gaussians import Gaussians


@dataclass(frozen=True)
class PenaltyInputs:
    """What the two penalties are sums over, as the backends read it."""

    opacity_logits: Tensor
    """(N,)."""
    log_scales: Tensor
    """(N, 3)."""
    visible: Tensor
    """(N,) bool."""
    time_centres: Tensor | None
    """(N,) seconds, None in a static set."""
    log_durations: Tensor | None
    """(N,), None in a static set."""
    times: tuple[float, ...]
    """Seconds; empty in a static set."""
    weights: tuple[float, float]
    """Factors of the sum of opacities and of the sum of scales."""


@torch.no_grad()
def shake(gaussians: Gaussians, strength: float, key: int) -> None:
    """Add the noise of the paper's equation 8 to the means, in place.

    `strength` is the factor on the covariance times a standard normal vector; opacity fades it out, and from 0.1 on
    nothing is added, nor where the result would not be finite. The draws follow from `key` (0 to 2^63 - 1) and the
    place of the Gaussian alone, the same on every device.
    """
    if len(gaussians) > 0:
        step_passes_for(gaussians.device).shake(gaussians, strength, key)


def view_penalties(
    gaussians: Gaussians,
    visible: Tensor,
    times: Sequence[float | None],
    *,
    opacity_weight: float,
    scale_weight: float,
    add_to: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Two scalars: the weighted mean opacity and the weighted mean scale (world units) of what is in view.

    visible: (N,) bool, in view of any camera of the batch. times: seconds, one a camera; opacity and scale of a moving
    Gaussian count as far as it is there at the nearest of them. Means are taken over all N. Differentiable in opacity
    logits and log-scales; the fade is no variable, so that a penalty cannot push a Gaussian out of the moment.
    add_to: gradients (N,) by the opacity logits and (N, 3) by the log-scales, to which those of the sum of both terms
    are added at once; the scalars have no history then.
    """
    n = len(gaussians)
    if visible.shape != (n,):
        raise InputError(f"visible must have shape ({n},), got {tuple(visible.shape)}.")
    moments = tuple(time for time in times if time is not None) if gaussians.is_moving else ()
    if gaussians.is_moving and not moments:
        raise InputError("times must hold at least one time when the Gaussians move.")
    inputs = PenaltyInputs(
        gaussians.opacity_logits,
        gaussians.log_scales,
        visible,
        gaussians.time_centres,
        gaussians.log_durations,
        moments,
        (opacity_weight / max(n, 1), scale_weight / max(3 * n, 1)),
    )
    if add_to is not None:
        with torch.no_grad():
            return step_passes_for(gaussians.device).penalties(inputs, add_to)
    opacity, scale = _ViewPenalties.apply(*vars(inputs).values())
    return opacity, scale


class _ViewPenalties(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        opacity_logits: Tensor,
        log_scales: Tensor,
        visible: Tensor,
        time_centres: Tensor | None,
        log_durations: Tensor | None,
        times: tuple[float, ...],
        weights: tuple[float, float],
    ) -> tuple[Tensor, Tensor]:
        ctx.times, ctx.weights = times, weights
        tensors = (opacity_logits, log_scales, visible, time_centres, log_durations)
        ctx.save_for_backward(*tensors)
        return step_passes_for(log_scales.device).penalties(PenaltyInputs(*tensors, times, weights))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dL_dopacity: Tensor, dL_dscale: Tensor) -> Any:
        opacity_logits, log_scales, visible, time_centres, log_durations = ctx.saved_tensors
        inputs = PenaltyInputs(opacity_logits, log_scales, visible, time_centres, log_durations, ctx.times, ctx.weights)
        passes = step_passes_for(inputs.log_scales.device)
        gradients = passes.penalties_backward(inputs, dL_dopacity, dL_dscale)
        return (*gradients, None, None, None, None, None)
