"""What the Gaussian methods ask of a densification strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from kinosplat.render import GaussianStatistics
from kinosplat.render.camera import Camera
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.gaussian_rows import GaussianRows


class Strategy(Protocol):
    """Adds, removes and moves Gaussians while they are trained; never more than the cap it was made with."""

    wants_statistics: bool
    """Whether `after_step` needs statistics, which take time to collect."""

    def penalties(
        self,
        rows: GaussianRows,
        visible: Tensor,
        cameras: Sequence[Camera],
        gradients: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Terms to add to the loss of pictures from `cameras`; `visible` (N,) bool says who is in them.

        `gradients` are those of the loss by the parameters, by name: the gradients of the terms are added to them, and
        the terms have no history. Without, torch can differentiate the terms.
        """

    def after_step(self, rows: GaussianRows, statistics: GaussianStatistics | None, moment: Moment) -> None:
        """Called after the optimiser with the statistics of the step's passes, if they are wanted."""

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over `tensors()`."""


class NoDensification:
    """The number of Gaussians stays what it was at first."""

    wants_statistics = False

    def penalties(
        self,
        rows: GaussianRows,
        visible: Tensor,
        cameras: Sequence[Camera],
        gradients: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """None."""
        return {}

    def after_step(self, rows: GaussianRows, statistics: GaussianStatistics | None, moment: Moment) -> None:
        """Nothing to do."""

    def tensors(self) -> dict[str, Tensor]:
        """Nothing to keep."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to take over."""
