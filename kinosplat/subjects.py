"""What the commands show, film and time: a run, one that is still learning, or a field of a file.

Gaussians of a file are the viewer's own `GaussianSubject`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from kinosplat.compression.hollow import StoredField
from kinosplat.render.camera import Camera
from kinosplat.render.field.paint import painters
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.output import RenderOutput
from kinosplat.render.settings import RasterSettings
from kinosplat.scenes import FrameLoader, Scene
from kinosplat.scenes.scene import Similarity, View
from kinosplat.trainers.batch import MaskUse
from kinosplat.trainers.evaluate import compare
from kinosplat.trainers.method import Method
from kinosplat.trainers.methods.gaussians import GaussianMethod
from kinosplat.trainers.methods.hash_grid import FieldMethod
from kinosplat.viewer.subject import Comparison, Painter
from kinosplat.viewer.training import TrainingTurn


@dataclass(frozen=True)
class RunPhotos:
    """The photos of a scene, each of which is measured as a report does."""

    scene: Scene
    """As the method sees it."""
    method: Method
    """What draws them."""
    background: Callable[[], Tensor]
    """(3,) colour that held-out views are drawn over."""
    mask_use: MaskUse
    """What masks mean."""

    @property
    def views(self) -> tuple[View, ...]:
        """Training views first."""
        return self.scene.views

    @property
    def n_train(self) -> int:
        """How many are learned from."""
        return len(self.scene.train)

    def compare(self, view: View) -> Comparison:
        """Loads the photo and draws the same; called during a turn. InputError where the photo cannot be read."""
        background = self.background()
        with FrameLoader([view], n_workers=1, device=background.device) as loader:
            compared = compare(self.method, view, loader.get_batch([0]), background, mask_use=self.mask_use)
        return Comparison(
            compared.target.cpu(), compared.rendered.clamp(0, 1).cpu(), compared.metrics.psnr, compared.region
        )


@dataclass(frozen=True)
class MethodSubject:
    """What a method has learned, or is learning, with the scene it learns from."""

    label: str
    """Title."""
    method: Method
    """`gaussians` is used where it has Gaussians."""
    scene: Scene
    """As the method sees it."""
    background_now: Callable[[], Tensor]
    """(3,) colour that held-out views are drawn over; what is learned changes."""
    mask_use: MaskUse
    """What masks mean where photos are compared."""
    folder: Path | None
    """The run's folder."""
    shared_turn: TrainingTurn = field(default_factory=TrainingTurn)
    """Whose turn it is, where the method is being trained."""
    steps_done: Callable[[], int] = lambda: 0
    """Steps until now, where it is being trained."""

    @property
    def background(self) -> Tensor:
        """(3,) colour behind everything: what held-out views are drawn over."""
        return self.background_now()

    @property
    def device(self) -> torch.device:
        """Where it is rendered."""
        return self.background.device

    @property
    def cameras(self) -> list[Camera]:
        """Those of the first photo of every training camera."""
        first = {view.camera_index: view.camera for view in reversed(self.scene.train)}
        return [first[index] for index in sorted(first)]

    @property
    def photos(self) -> RunPhotos:
        """All of the scene's."""
        return RunPhotos(self.scene, self.method, self.background_now, self.mask_use)

    @property
    def times(self) -> tuple[float, ...]:
        """Moments of the clip."""
        return self.scene.times

    @property
    def fps(self) -> float | None:
        """Frames a second."""
        return self.scene.fps

    @property
    def up(self) -> tuple[float, float, float] | None:
        """The scene's up axis."""
        return self.scene.up

    @property
    def to_input(self) -> Similarity:
        """To the frame of the photos' calibration."""
        return self.scene.to_input

    @property
    def version(self) -> int:
        """Steps done."""
        return self.steps_done()

    @property
    def n_primitives(self) -> int:
        """Gaussians or table entries."""
        return self.method.n_primitives

    @property
    def settings(self) -> RasterSettings:
        """As it is trained."""
        return self.method.settings if isinstance(self.method, GaussianMethod) else RasterSettings()

    @property
    def painters(self) -> Mapping[str, Painter]:
        """Pictures of a field's own."""
        return self.method.painters if isinstance(self.method, FieldMethod) else {}

    def gaussians(self) -> Gaussians | None:
        """The set as it is now."""
        return self.method.gaussians() if isinstance(self.method, GaussianMethod) else None

    def render(self, camera: Camera, background: Tensor, *, geometry: bool) -> RenderOutput:
        """One picture; with `geometry` also depth and normals."""
        return self.method.render([camera], background, geometry=geometry)

    def turn(self) -> AbstractContextManager[None]:
        """Between two steps."""
        return self.shared_turn.turn()


@dataclass(frozen=True)
class FieldSubject:
    """A radiance field that stands still in memory."""

    label: str
    """Title."""
    stored: StoredField
    """What is drawn."""
    cameras: list[Camera]
    """To start from."""
    background: Tensor
    """(3,) colour behind it."""
    up: tuple[float, float, float] | None
    """World up axis."""
    to_input: Similarity
    """To the input's frame."""
    photos: None = None
    """A file has none."""
    times: tuple[float, ...] = ()
    """It stands still."""
    fps: float | None = None
    """It stands still."""
    folder: Path | None = None
    """Nowhere to store files."""
    version: int = 0
    """Never changes."""
    settings: RasterSettings = field(default_factory=RasterSettings)
    """Of no use to a field."""

    @property
    def painters(self) -> Mapping[str, Painter]:
        """Occupied cells, and the mask if there is one."""
        field = self.stored.field
        return painters(lambda: field, self.stored.grid, self.stored.near, hollow=field.saliency is not None)

    @property
    def device(self) -> torch.device:
        """Where it is rendered."""
        return self.stored.field.device

    @property
    def n_primitives(self) -> int:
        """Entries of the table that are not zero."""
        return int((self.stored.field.table != 0).any(dim=1).sum())

    def gaussians(self) -> Gaussians | None:
        """There are none."""
        return None

    def render(self, camera: Camera, background: Tensor, *, geometry: bool) -> RenderOutput:
        """One picture."""
        return self.stored.render([camera], background, geometry=geometry)

    def turn(self) -> AbstractContextManager[None]:
        """Nobody else is there."""
        return nullcontext()
