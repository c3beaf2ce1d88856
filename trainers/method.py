"""What the loop asks of a method.

The loop knows pictures, steps and parameter groups; whether Gaussians, a hash grid or anything else explains the
pictures is the method's affair. A method that learns from rays instead of whole pictures picks its pixels out of the
batch itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from kinosplat.render.camera import Camera
from kinosplat.render.output import RenderOutput
from kinosplat.trainers.batch import Batch
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.optim import Group


@dataclass(frozen=True)
class Losses:
    """What one batch costs."""

    terms: dict[str, Tensor]
    """Scalars that are summed and differentiated; their names appear in metrics.jsonl."""
    squared_error: Tensor
    """Mean squared error of the pixels looked at, detached; shown as PSNR."""


@dataclass(frozen=True)
class MethodState:
    """Everything a method needs to go on, besides the parameters and moments in its groups."""

    tensors: dict[str, Tensor]
    """Flat, by name."""
    metadata: dict[str, Any]
    """What JSON can hold."""


class Method(Protocol):
    """One way to explain the pictures; made by `create_method` from a scene, or by `restore_method`."""

    name: str
    """As on the command line."""

    @property
    def n_primitives(self) -> int:
        """How many Gaussians (or table entries) there are now."""

    @property
    def n_bytes(self) -> int:
        """Bytes of the model as it would be stored plainly: parameters only, no optimiser state."""

    def groups(self) -> list[Group]:
        """The parameters; the same objects during the whole run, though their rows may change."""

    def loss(self, batch: Batch, moment: Moment) -> Losses:
        """Draw the batch and compare; called once a step, before backward."""

    def touched(self) -> Mapping[str, Tensor]:
        """Names of row sets to (N,) masks of the rows this step may move, after backward; others move as a whole."""

    def after_step(self, moment: Moment) -> None:
        """Called after the optimiser has stepped: densification, conversions; must draw from `draws.generator` only."""

    def render(self, cameras: Sequence[Camera], background: Tensor, *, geometry: bool = False) -> RenderOutput:
        """Pictures of cameras of one size at full quality; called without gradients. `background` is (3,).

        With `geometry` the output also has depth, median depth and normals.
        """

    def state(self) -> MethodState:
        """What a checkpoint holds besides the groups."""

    def load(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Take over `state()`; the groups have been loaded before."""

    def summary(self) -> dict[str, float]:
        """A few numbers for progress lines and metrics.jsonl, besides `n_primitives`; may wait for the device."""
