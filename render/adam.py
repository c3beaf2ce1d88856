"""Adam in place over rows that belong together, in all their tensors at once; rows nobody saw are left untouched.

Same arithmetic as torch.optim.Adam without weight decay (Kingma and Ba 2015), but rows with `visible` False keep
parameters and moments; the bias correction counts the steps of the whole tensor. A row with a gradient that is not
finite, in any of the tensors, loses the step in all of them. Tensors of other shapes, types or layouts are refused with
ValueError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.render.backend import step_passes_for


@dataclass(frozen=True)
class AdamTensor:
    """One parameter of a row set, its moments and its constants; all (N, ...) of one dtype, contiguous."""

    parameter: Tensor
    """Moved in place."""
    exp_avg: Tensor
    """First moment."""
    exp_avg_sq: Tensor
    """Second moment."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the moments a step."""
    eps: float = 1e-15
    """Added to the root of the second moment."""

    def __post_init__(self) -> None:
        for name in ("parameter", "exp_avg", "exp_avg_sq"):
            _check(name, getattr(self, name), self.parameter)


class DroppedRows:
    """Counts of what lost a step, kept on the device so that nobody waits for them."""

    def __init__(self, device: torch.device | str) -> None:
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)
        """Rows, steps, and the last step that lost rows."""

    @property
    def n_rows(self) -> Tensor:
        """() int64: rows that lost a step."""
        return self.counts[0]

    @property
    def n_steps(self) -> Tensor:
        """() int64: steps in which that happened."""
        return self.counts[1]


class RowAdam:
    """The tensors of one row set, checked once and stepped with one native call."""

    def __init__(self, tensors: Sequence[AdamTensor], *, sparse: bool = False) -> None:
        """`tensors` must hold at least one, all with the same number of rows and on one device.

        sparse: rows whose gradient is zero keep parameter and moments, for a single tensor.
        """
        lengths = {tensor.parameter.shape[0] for tensor in tensors}
        if len(lengths) != 1:
            raise InputError(f"tensors must be at least one, all with as many rows, got {sorted(lengths)} rows.")
        if sparse and len(tensors) > 1:
            raise InputError(f"tensors must be a single one where rows are sparse, got {len(tensors)}.")
        self.tensors = tuple(tensors)
        self.n_rows = lengths.pop()
        self._table = step_passes_for(tensors[0].parameter.device).AdamTable(self.n_rows, self.tensors, sparse)

    def step(
        self,
        gradients: Sequence[Tensor | None],
        rates: Sequence[float],
        step: int,
        *,
        visible: Tensor | None = None,
        dropped: DroppedRows | None = None,
    ) -> None:
        """One update with a gradient and a learning rate for each tensor; one without a gradient stays as it is.

        step: number of this step, from 1. visible: (N,) bool, the rows to update; None updates all.
        """
        if step < 1:
            raise InputError(f"step must be at least 1, got {step}.")
        for tensor, gradient in zip(self.tensors, gradients, strict=True):
            if gradient is not None:
                _check("gradient", gradient, tensor.parameter)
        if visible is not None:
            if visible.dtype != torch.bool:
                raise InputError(f"visible must be bool, got {_name(visible.dtype)}; convert it first.")
            if visible.shape != (self.n_rows,):
                raise InputError(f"visible must have shape ({self.n_rows},), got {tuple(visible.shape)}.")
        if self.n_rows > 0:
            self._table.step(gradients, rates, step, visible, None if dropped is None else dropped.counts)


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
    """Update one `parameter` and both moments, all (N, ...), in place; see `RowAdam`."""
    RowAdam([AdamTensor(parameter, exp_avg, exp_avg_sq, betas, eps)]).step([gradient], [lr], step, visible=visible)


def _check(name: str, tensor: Tensor, like: Tensor) -> None:
    if tensor.shape != like.shape:
        raise InputError(f"{name} must have shape {tuple(like.shape)}, got {tuple(tensor.shape)}.")
    if tensor.dtype != like.dtype:
        raise InputError(f"{name} must be {_name(like.dtype)}, got {_name(tensor.dtype)}; convert it first.")
    if not tensor.is_contiguous():
        raise InputError(f"{name} must be contiguous; call .contiguous() on it first.")
    if tensor.device != like.device:
        raise InputError(f"{name} must be on {like.device}, got {tensor.device}; move it there first.")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
