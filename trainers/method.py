"""What the loop asks of a method.

The loop knows pictures, rays, steps and parameter groups; whether Gaussians, a hash grid or anything else explains the
pictures is the method's affair. A method says whether it learns from whole pictures or from rays out of many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from kinosplat.render.camera import Camera
from kinosplat.render.output import RenderOutput
from kinosplat.trainers.batch import Batch
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.config import MethodConfig
from kinosplat.trainers.optim import Group
from kinosplat.trainers.ray_batch import RayBatch


@dataclass(frozen=True)
class Losses:
    """What one batch costs."""

    terms: dict[str, Tensor]
    """Scalars that are summed and differentiated; their names appear in metrics.jsonl."""
    squared_error: Tensor
    """Mean squared error of the pixels looked at, detached; shown as PSNR."""
    gradients: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Tensors, and the gradient by each of those terms that have no history: what the method knows already."""

    def backward(self) -> None:
        """Bring the gradient of the sum of the terms to the leaves, which must not have any yet; once.

        On the calling thread: torch would hand a GPU's part to a thread of its own, on a processor whose caches know
        nothing of this step.
        """
        roots: list[Tensor] = []
        of_roots: list[Tensor | None] = []
        for tensor, gradient in self.gradients:
            if tensor.is_leaf:
                tensor.grad = gradient
            else:
                roots.append(tensor)
                of_roots.append(gradient)
        # Whoever still looks at the terms must not hold gradients of all Gaussians through the next step.
        self.gradients.clear()
        for term in self.terms.values():
            if term.requires_grad:
                roots.append(term)
                of_roots.append(None)
        if roots:
            with torch.autograd.set_multithreading_enabled(False):
                torch.autograd.backward(roots, of_roots)


@dataclass(frozen=True)
class MethodState:
    """Everything a method needs to go on, besides the parameters and moments in its groups."""

    tensors: dict[str, Tensor]
    """Flat, by name."""
    metadata: dict[str, Any]
    """What JSON can hold."""


Measure = Callable[[], float | None]
"""PSNR in dB of the held-out views as the method is now; None without any."""


class CommonMethod(Protocol):
    """What all methods have; made by `create_method` from a scene, or by `restore_method`."""

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

    def touched(self) -> Mapping[str, Tensor]:
        """Names of row sets to (N,) masks of the rows this step may move, after backward; others move as a whole."""

    def after_step(self, moment: Moment) -> None:
        """Called after the optimiser has stepped: densification, conversions; must draw from `draws.generator` only."""

    def render(self, cameras: Sequence[Camera], background: Tensor, *, geometry: bool = False) -> RenderOutput:
        """Pictures of cameras of one size at full quality; called without gradients. `background` is (3,).

        With `geometry` the output also has depth, median depth and normals.
        """

    def finish(self, measure: Measure) -> dict[str, float]:
        """Called once when training is over, before the final evaluation; numbers for the report.

        What is done here for good (hardening a mask) may be done again when a finished run is resumed.
        """

    def state(self) -> MethodState:
        """What a checkpoint holds besides the groups."""

    def load(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Take over `state()`; the groups have been loaded before."""

    def summary(self) -> dict[str, float]:
        """A few numbers for progress lines and metrics.jsonl, besides `n_primitives`; may wait for the device."""


class Renderer(Protocol):
    """What evaluation asks for: pictures."""

    def render(self, cameras: Sequence[Camera], background: Tensor, *, geometry: bool = False) -> RenderOutput:
        """As of `CommonMethod`."""


class PictureMethod(CommonMethod, Protocol):
    """A method that learns from whole pictures."""

    learns_from: Literal["pictures"]

    def loss(self, batch: Batch, moment: Moment) -> Losses:
        """Draw the batch and compare; called once a step, before backward."""


class RayMethod(CommonMethod, Protocol):
    """A method that learns from single rays, drawn from all pictures."""

    learns_from: Literal["rays"]

    @property
    def n_rays(self) -> int:
        """How many rays the next step should have."""

    def halve_samples(self) -> MethodConfig:
        """Learn from half as many samples a step from now on, for want of memory; the config that says so."""

    def loss(self, batch: RayBatch, moment: Moment) -> Losses:
        """See along the rays and compare; called once a step, before backward."""


Method = PictureMethod | RayMethod
"""One way to explain the pictures."""
