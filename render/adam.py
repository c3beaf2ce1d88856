"""One Adam update in place that leaves the rows nobody saw untouched.

Same arithmetic as torch.optim.Adam without weight decay (Kingma and Ba 2015), but rows with `visible` False keep
parameter and moments; the bias correction counts the steps of the whole tensor. Tensors of other shapes, types or
layouts are refused with ValueError.
"""

from __future__ import annotations

from torch import Tensor

from kinosplat.render.backend import passes_for


def adam_step(
    parameter: Tensor,
    gradient: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    step: int,
    visible: Tensor | None = None,
) -> None:
    """Update `parameter` and both moments, all (N, ...) of one dtype and contiguous, in place.

    step: number of this step, from 1. visible: (N,) bool, the rows to update; None updates all.
    """
    if step < 1:
        raise ValueError(f"step must be at least 1, got {step}.")
    if parameter.numel() == 0:
        return
    n = parameter.shape[0]
    rows = []
    for name, tensor in {
        "parameter": parameter,
        "gradient": gradient,
        "exp_avg": exp_avg,
        "exp_avg_sq": exp_avg_sq,
    }.items():
        if tensor.shape != parameter.shape:
            raise ValueError(f"{name} must have shape {tuple(parameter.shape)}, got {tuple(tensor.shape)}.")
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous; call .contiguous() on it first.")
        rows.append(tensor.detach().view(n, -1))
    passes_for(parameter.device).adam_step(
        *rows,
        visible,
        beta1=betas[0],
        beta2=betas[1],
        eps=eps,
        step_size=lr / (1 - betas[0] ** step),
        inverse_sqrt_second_correction=(1 - betas[1] ** step) ** -0.5,
    )
