"""What the viewer can show: a scene that stands still in memory, or one that is being learned meanwhile.

The command line opens a run or a file and hands over a `Subject`; the viewer never learns how it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from kinosplat.render.camera import Camera
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.output import RenderOutput
from kinosplat.render.rasterize import rasterize
from kinosplat.render.settings import RasterSettings
from kinosplat.scenes.scene import Similarity, View

Painter = Callable[[Camera], Tensor]
"""(H, W, 3) float32 in [0, 1] for a camera on the subject's device; what a method shows beside the common pictures."""


@dataclass(frozen=True)
class Comparison:
    """A photo and the picture that should be the same, on the CPU."""

    photo: Tensor
    """(H, W, 3) in [0, 1], over the subject's background where it has alpha."""
    rendered: Tensor
    """(H, W, 3) in [0, 1]."""
    psnr: float
    """dB, as a report has it."""
    region: str
    """Which pixels count, in words."""


class Photos(Protocol):
    """At least one photo with its camera."""

    @property
    def views(self) -> Sequence[View]:
        """Training views first."""

    @property
    def n_train(self) -> int:
        """How many of `views`, from the first on, were learned from; the others were held out."""

    def compare(self, view: View) -> Comparison:
        """Load the photo and draw the same; called during the subject's turn. InputError if it cannot be read."""


class Subject(Protocol):
    """Something to look at. Everything but `turn` and `version` is called inside of `with subject.turn()`."""

    @property
    def label(self) -> str:
        """A short name for the title of the page."""

    @property
    def device(self) -> torch.device:
        """Where it is rendered."""

    @property
    def background(self) -> Tensor:
        """(3,) colour behind everything unless the page chooses another."""

    @property
    def cameras(self) -> Sequence[Camera]:
        """At least one camera a visitor may start from, scene coordinates; orbits are laid around them."""

    @property
    def photos(self) -> Photos | None:
        """What it was learned from and measured on, to be shown in the scene; None without any."""

    @property
    def times(self) -> tuple[float, ...]:
        """Distinct moments of the clip in increasing order, seconds; empty for what stands still."""

    @property
    def fps(self) -> float | None:
        """Frames a second of the clip."""

    @property
    def up(self) -> tuple[float, float, float] | None:
        """World axis that points up, if it is known."""

    @property
    def to_input(self) -> Similarity:
        """From scene coordinates to the frame of the user's input, in which camera paths are saved."""

    @property
    def folder(self) -> Path | None:
        """The only folder the page may store files in; None where there is none."""

    @property
    def version(self) -> int:
        """A number that changes with the model."""

    @property
    def n_primitives(self) -> int:
        """Gaussians, or entries of a table."""

    @property
    def settings(self) -> RasterSettings:
        """How it was learned to be drawn: anti-aliasing and the nearest distance; what the page starts with."""

    @property
    def painters(self) -> Mapping[str, Painter]:
        """Further pictures of the method's own by the name they have on the page."""

    def gaussians(self) -> Gaussians | None:
        """The set on `device` without gradients; None for a method that has none, which only `render` can draw."""

    def render(self, camera: Camera, background: Tensor, *, geometry: bool) -> RenderOutput:
        """One picture; with `geometry` also depth and normals, as far as there are any."""

    def turn(self) -> AbstractContextManager[None]:
        """Held while the model is read, so that nobody changes it meanwhile."""


@dataclass(frozen=True)
class GaussianSubject:
    """Gaussians that do not change."""

    label: str
    """Title of the page."""
    model: Gaussians
    """What is shown."""
    cameras: Sequence[Camera]
    """Where to start from."""
    background: Tensor
    """(3,) colour behind everything."""
    photos: Photos | None = None
    """None for most files."""
    times: tuple[float, ...] = ()
    """Seconds."""
    fps: float | None = None
    """Frames a second."""
    up: tuple[float, float, float] | None = None
    """World up axis."""
    to_input: Similarity = field(default_factory=Similarity)
    """To the input's frame."""
    folder: Path | None = None
    """Where the page may store files."""
    settings: RasterSettings = field(default_factory=RasterSettings)
    """Anti-aliasing and the nearest distance."""
    painters: Mapping[str, Painter] = field(default_factory=dict)
    """Further pictures."""
    version: int = 0
    """Never changes."""

    @property
    def device(self) -> torch.device:
        """Where the Gaussians are."""
        return self.model.device

    @property
    def n_primitives(self) -> int:
        """How many there are."""
        return len(self.model)

    def gaussians(self) -> Gaussians:
        """The set."""
        return self.model

    def render(self, camera: Camera, background: Tensor, *, geometry: bool) -> RenderOutput:
        """One picture; with `geometry` also depth and normals."""
        settings = replace(self.settings, depth=geometry, normal=geometry)
        return rasterize(self.model, [camera], background=background, settings=settings)

    def turn(self) -> AbstractContextManager[None]:
        """Nobody else is there."""
        return nullcontext()
