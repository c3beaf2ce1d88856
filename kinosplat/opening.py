"""Opens whatever was trained or exported: a run's folder, or a file of Gaussians of any format that can be read.

Files that say little get sensible answers: where to look from (starting.py), and a clip as long as the Gaussians live.
What cannot be opened raises InputError with one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from kinosplat.compression.formats import import_gaussians
from kinosplat.compression.hollow import KIND, StoredField, load_field
from kinosplat.compression.kino import KinoFile, read_kino
from kinosplat.compression.kino.metadata import Metadata
from kinosplat.errors import InputError
from kinosplat.render.camera import Camera
from kinosplat.render.field.paint import painters
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.output import RenderOutput
from kinosplat.render.settings import RasterSettings
from kinosplat.scenes import Scene
from kinosplat.scenes.scene import Similarity, View
from kinosplat.starting import UNKNOWN_UP, cameras_around, likely_up
from kinosplat.trainers.method import Method
from kinosplat.trainers.methods.gaussians import GaussianMethod
from kinosplat.trainers.run import LoadedRun, load_run
from kinosplat.trainers.training import choose_device
from kinosplat.viewer.subject import GaussianSubject, Painter, Subject
from kinosplat.viewer.training import TrainingTurn

UNKNOWN_FPS = 30.0
"""Frames a second of a clip that does not say."""


@dataclass(frozen=True)
class MethodSubject:
    """What a method has learned, or is learning, with the scene it learns from."""

    label: str
    """Title."""
    method: Method
    """`gaussians` is used where it has Gaussians."""
    scene: Scene
    """As the method sees it."""
    background: Tensor
    """(3,) colour behind everything."""
    folder: Path | None
    """The run's folder."""
    shared_turn: TrainingTurn = field(default_factory=TrainingTurn)
    """Whose turn it is, where the method is being trained."""
    steps_done: list[int] = field(default_factory=lambda: [0])
    """One number, which the training thread replaces."""

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
    def views(self) -> tuple[View, ...]:
        """All photos, training views first."""
        return self.scene.views

    @property
    def n_train(self) -> int:
        """Photos that are learned from."""
        return len(self.scene.train)

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
        return self.steps_done[0]

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
        """Pictures of the method's own, if it has any."""
        return getattr(self.method, "painters", {})

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
    views: tuple[View, ...] = ()
    """A file has no photos."""
    n_train: int = 0
    """None of them."""
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


def open_subject(
    what: str | Path,
    *,
    checkpoint: str = "last",
    device: str = "auto",
    up: tuple[float, float, float] | None = None,
    background: tuple[float, float, float] | None = None,
) -> Subject:
    """The run in a folder, or the Gaussians of a file; InputError where `what` is neither.

    `up` and `background` replace what a file says, or does not say.
    """
    path = Path(what).expanduser()
    if not path.exists():
        raise InputError(f"{path} does not exist; give the folder of a run, or a file of Gaussians.")
    if (path / "config.json").exists():
        return run_subject(load_run(path, checkpoint, device))
    if path.is_dir() and not (path / "meta.json").exists():
        raise InputError(f"{path} is not the folder of a run: it has no config.json; give one that has, or a file.")
    return file_subject(path, choose_device(device), up, background)


def run_subject(loaded: LoadedRun) -> Subject:
    """A loaded run with its scene."""
    scene = loaded.scene()
    label = f"{scene.name} · {loaded.method.name}"
    return MethodSubject(label, loaded.method, scene, loaded.background, loaded.run_dir)


def file_subject(
    path: Path,
    device: torch.device,
    up: tuple[float, float, float] | None = None,
    background: tuple[float, float, float] | None = None,
) -> Subject:
    """The Gaussians or the field of a file, on `device`."""
    if path.suffix.lower() == ".kino":
        file = read_kino(path)
        gaussians, metadata = file.gaussians, file.metadata
        if file.kind == KIND:
            return field_subject(path, file, device, up, background)
        if len(gaussians) == 0 and file.kind != "gaussians":
            raise InputError(f"{path} holds a model of the kind {file.kind}, which the viewer cannot draw yet.")
    else:
        gaussians, metadata = import_gaussians(path), Metadata()
    if len(gaussians) == 0:
        raise InputError(f"{path} holds no Gaussians; export it again.")
    fps = metadata.fps or UNKNOWN_FPS
    times = moments(gaussians, metadata.duration, fps)
    model = gaussians.to(device)
    still = model.at(times[0]) if times else model
    upwards = up or metadata.up or likely_up(still)
    cameras = [start.camera() for start in metadata.cameras]
    if len(cameras) < 3:
        cameras += cameras_around(still, upwards, times[0] if times else None)
    return GaussianSubject(
        label=path.name,
        model=model,
        cameras=cameras,
        background=torch.tensor(background or metadata.background or (0.0, 0.0, 0.0), device=device),
        times=times,
        fps=fps if times else None,
        up=upwards,
        to_input=metadata.to_input,
        settings=metadata.settings,
    )


def field_subject(
    path: Path,
    file: KinoFile,
    device: torch.device,
    up: tuple[float, float, float] | None,
    background: tuple[float, float, float] | None,
) -> FieldSubject:
    """The radiance field of a .kino file, on `device`."""
    stored, metadata = load_field(file, str(path), device), file.metadata
    cameras = [start.camera() for start in metadata.cameras]
    if not cameras:
        raise InputError(f"{path} names no camera to look from; compress its run again.")
    return FieldSubject(
        label=path.name,
        stored=stored,
        cameras=cameras,
        background=torch.tensor(background or metadata.background or (0.0, 0.0, 0.0), device=device),
        up=up or metadata.up or UNKNOWN_UP,
        to_input=metadata.to_input,
    )


def moments(gaussians: Gaussians, duration: float | None, fps: float) -> tuple[float, ...]:
    """Moments of the clip of moving Gaussians, one a frame; empty for still ones."""
    if gaussians.time_centres is None or gaussians.log_durations is None:
        return ()
    first, last = 0.0, duration
    if last is None:
        fading = torch.isfinite(gaussians.log_durations)
        centres = gaussians.time_centres[fading] if fading.any() else gaussians.time_centres
        first, last = min(0.0, float(centres.min())), float(centres.max())
    n_frames = max(2, round((last - first) * fps) + 1)
    return tuple(first + i / fps for i in range(n_frames))
