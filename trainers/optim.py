"""Adam over groups of rows, and the row edits that densification needs.

A group is one parameter tensor whose first axis counts rows: Gaussians, cameras, or a single row. Groups of one row set
(all tensors of the Gaussians) have the same rows, lose a step together when any of their gradients is not finite, and
are edited together, moments included. Rows that a step did not touch are skipped, as if Adam had not been called for
them. Nothing here waits for a device: counts of dropped rows stay in tensors until somebody reads them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kinosplat.render.adam import AdamTensor, DroppedRows, RowAdam
from kinosplat.trainers.clock import Moment

LearningRate = Callable[[float], float]


def exponential_decay(start: float, end: float, warm_up: float = 0.0, hold: float = 0.0) -> LearningRate:
    """Rate as a function of progress: `start` up to `hold`, `end` at 1, geometric between; rises linearly over
    `warm_up`.
    """
    if start <= 0.0 or end <= 0.0:
        return lambda progress: start

    def rate(progress: float) -> float:
        ramp = min(progress / warm_up, 1.0) if warm_up > 0.0 else 1.0
        decayed = max(progress - hold, 0.0) / (1.0 - hold)
        return ramp * start * math.exp(decayed * math.log(end / start))

    return rate


@dataclass
class Group:
    """One parameter with its learning rate and Adam's moments."""

    name: str
    """Unique in a run; names the tensors in checkpoints."""
    parameter: Tensor
    """(N, ...) leaf that requires gradients; replaced when rows are edited, so always reach it through the group."""
    learning_rate: LearningRate
    """Progress in [0, 1] to the learning rate."""
    rows: str
    """Name of the row set."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of Adam's first and second moment a step."""
    hastens: bool = False
    """Whether the rate is multiplied by `Moment.haste`."""
    eps: float = 1e-15
    """Added to the root of the second moment; tiny, since gradients of Gaussians are."""
    sparse: bool = False
    """Whether rows whose gradient is zero stay as they are; for groups that are alone in their row set."""
    exp_avg: Tensor = field(init=False)
    """First moment, shaped like the parameter."""
    exp_avg_sq: Tensor = field(init=False)
    """Second moment, shaped like the parameter."""

    def __post_init__(self) -> None:
        self.parameter = self.parameter.detach().clone().requires_grad_()
        self.exp_avg = torch.zeros_like(self.parameter, requires_grad=False)
        self.exp_avg_sq = torch.zeros_like(self.parameter, requires_grad=False)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the group."""
        return {
            self.name: self.parameter.detach(),
            f"{self.name}.exp_avg": self.exp_avg,
            f"{self.name}.exp_avg_sq": self.exp_avg_sq,
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned; a missing name raises KeyError, moments of another shape ValueError."""
        device = self.parameter.device
        self.parameter = tensors[self.name].to(device).clone().requires_grad_()
        self.exp_avg = tensors[f"{self.name}.exp_avg"].to(device).clone()
        self.exp_avg_sq = tensors[f"{self.name}.exp_avg_sq"].to(device).clone()
        if not self.parameter.shape == self.exp_avg.shape == self.exp_avg_sq.shape:
            raise ValueError(f"moments of {self.name} must have shape {tuple(self.parameter.shape)}.")


def append_rows(groups: Iterable[Group], values: Mapping[str, Tensor]) -> None:
    """Add rows at the end, with moments of zero; `values` has one (M, ...) tensor for every group, by name."""
    for group in groups:
        new = values[group.name].detach()
        zeros = torch.zeros_like(new)
        group.parameter = torch.cat([group.parameter.detach(), new]).requires_grad_()
        group.exp_avg = torch.cat([group.exp_avg, zeros])
        group.exp_avg_sq = torch.cat([group.exp_avg_sq, zeros])


def keep_rows(groups: Iterable[Group], index: Tensor) -> None:
    """Keep the rows that `index` picks, in its order: (M,) int64 positions or (N,) bool mask."""
    for group in groups:
        group.parameter = group.parameter.detach()[index].requires_grad_()
        group.exp_avg = group.exp_avg[index]
        group.exp_avg_sq = group.exp_avg_sq[index]


@torch.no_grad()
def assign_rows(groups: Iterable[Group], index: Tensor, values: Mapping[str, Tensor]) -> None:
    """Give the rows at `index` (M,) new values and moments of zero; groups that `values` does not name stay as they
    are.
    """
    for group in groups:
        if group.name in values:
            group.parameter[index] = values[group.name].detach()
            group.exp_avg[index] = 0.0
            group.exp_avg_sq[index] = 0.0


class Optimizer:
    """Adam over the groups of a run; counts the rows it had to leave out."""

    def __init__(self, groups: list[Group]) -> None:
        """`groups` must have distinct names."""
        names = [group.name for group in groups]
        if len(set(names)) != len(names):
            raise ValueError(f"groups must have distinct names, got {sorted(names)}.")
        self.groups = groups
        self._row_sets: dict[str, _RowSet] = {}
        for group in groups:
            self._row_sets.setdefault(group.rows, _RowSet()).groups.append(group)
        self._dropped = DroppedRows(groups[0].parameter.device)

    @property
    def n_dropped_rows(self) -> Tensor:
        """() int64 on the device: rows that lost a step because of a gradient that was not finite."""
        return self._dropped.n_rows

    @property
    def n_dropped_steps(self) -> Tensor:
        """() int64 on the device: steps in which that happened."""
        return self._dropped.n_steps

    @torch.no_grad()
    def step(self, moment: Moment, touched: Mapping[str, Tensor], rate_factor: float = 1.0) -> None:
        """One step with the gradients that are there, which are taken away afterwards.

        `touched` maps the name of a row set to an (N,) bool mask of the rows to move; row sets it does not name move as
        a whole. Rows with a gradient that is not finite, in any group of their row set, do not move and are counted.
        """
        for name, row_set in self._row_sets.items():
            gradients = [group.parameter.grad for group in row_set.groups]
            row_set.adam().step(
                gradients,
                [
                    group.learning_rate(moment.progress) * rate_factor * (moment.haste if group.hastens else 1.0)
                    for group in row_set.groups
                ],
                moment.step + 1,
                visible=touched.get(name),
                dropped=self._dropped,
            )
            for group in row_set.groups:
                group.parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds: every group's tensors and the counts."""
        tensors = {name: tensor for group in self.groups for name, tensor in group.tensors().items()}
        return tensors | {"n_dropped_rows": self.n_dropped_rows, "n_dropped_steps": self.n_dropped_steps}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned; the groups may hold another number of rows before."""
        for group in self.groups:
            group.load(tensors)
        self.n_dropped_rows.copy_(tensors["n_dropped_rows"])
        self.n_dropped_steps.copy_(tensors["n_dropped_steps"])


class _RowSet:
    """Groups whose rows belong together, and the Adam made for their tensors as they are."""

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self._adam: RowAdam | None = None

    def adam(self) -> RowAdam:
        """Made anew when a tensor was replaced."""
        if self._adam is None or any(
            group.parameter is not tensor.parameter
            or group.exp_avg is not tensor.exp_avg
            or group.exp_avg_sq is not tensor.exp_avg_sq
            for group, tensor in zip(self.groups, self._adam.tensors, strict=True)
        ):
            self._adam = RowAdam(
                [
                    AdamTensor(group.parameter, group.exp_avg, group.exp_avg_sq, group.betas, group.eps)
                    for group in self.groups
                ],
                sparse=any(group.sparse for group in self.groups),
            )
        return self._adam
