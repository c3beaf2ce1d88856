"""Opens whatever was trained or exported: a run's folder, or a file of Gaussians of any format that can be read.

Files that say little get sensible answers: the cameras of an orbit around where most Gaussians are, a clip as long as
the Gaussians live. What cannot be opened raises InputError with one sentence.
"""

from __future__ import annotations

import math
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
from kinosplat.render.camera import Camera, look_at
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.output import RenderOutput
from kinosplat.render.rasterize import RasterSettings
from kinosplat.scenes import Scene
from kinosplat.scenes.scene import Similarity, View
from kinosplat.trainers.method import Method
from kinosplat.trainers.methods.gaussians import GaussianMethod
from kinosplat.trainers.run import LoadedRun, load_run
from kinosplat.trainers.training import choose_device
from kinosplat.viewer.subject import GaussianSubject, Painter, Subject
from kinosplat.viewer.training import TrainingTurn

UNKNOWN_UP = (0.0, -1.0, 0.0)
"""Up in a file that does not say: that of the photos in most scenes COLMAP made."""
UNKNOWN_FPS = 30.0
"""Frames a second of a clip that does not say."""
START_SIZE = (960, 720)
"""Pixels of the cameras laid around a file's Gaussians; only their shape matters to a page."""
START_FOV = math.radians(50)


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
        """Nothing besides the common pictures."""
        return {}

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
    upwards = up or metadata.up or UNKNOWN_UP
    cameras = [start.camera() for start in metadata.cameras]
    if len(cameras) < 3:
        cameras += cameras_around(gaussians.at(times[0]) if times else gaussians, upwards, times[0] if times else None)
    return GaussianSubject(
        label=path.name,
        model=gaussians.to(device),
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


def cameras_around(gaussians: Gaussians, up: tuple[float, float, float], time: float | None) -> list[Camera]:
    """Eight cameras in a ring around where most of the Gaussians are, far enough to see them all."""
    means = gaussians.means.detach().double().cpu()
    visible = torch.sigmoid(gaussians.opacity_logits.detach().cpu()) > 0.1
    means = means[visible] if visible.any() else means
    middle = means.median(dim=0).values
    radius = max(float(torch.quantile((means - middle).norm(dim=1)[:100_000], 0.8)), 1e-3)
    width, height = START_SIZE
    focal = 0.5 * height / math.tan(0.5 * START_FOV)
    K = torch.tensor([[focal, 0, 0.5 * width], [0, focal, 0.5 * height], [0, 0, 1]], dtype=torch.float64)
    vertical = torch.nn.functional.normalize(torch.tensor(up, dtype=torch.float64), dim=0)
    across = torch.eye(3, dtype=torch.float64)[int(vertical.abs().argmin())]
    right = torch.nn.functional.normalize(torch.linalg.cross(vertical, across), dim=0)
    ahead = torch.linalg.cross(right, vertical)
    distance = 1.3 * radius / math.tan(0.5 * START_FOV)
    cameras = []
    for i in range(8):
        angle = 2 * math.pi * i / 8
        place = middle + distance * (math.cos(angle) * ahead + math.sin(angle) * right) + 0.35 * distance * vertical
        cameras.append(
            look_at(place, middle, vertical, K=K, width=width, height=height, time=time).to(dtype=torch.float32)
        )
    return cameras
