"""Opens whatever was trained or exported: a run's folder, or a file of any format that can be read.

Files that say little get sensible answers: where to look from (starting.py), and a clip as long as the Gaussians live.
What cannot be opened raises InputError with one sentence.
"""

from __future__ import annotations

from pathlib import Path

import torch

from kinosplat.compression.canonical import clip_seconds, without_idle_time
from kinosplat.compression.formats import import_scene
from kinosplat.compression.hollow import KIND, load_field
from kinosplat.compression.kino import KinoFile, read_kino
from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians
from kinosplat.starting import UNKNOWN_UP, cameras_around, likely_up
from kinosplat.subjects import FieldSubject, MethodSubject
from kinosplat.trainers.run import LoadedRun, load_run
from kinosplat.trainers.training import choose_device
from kinosplat.viewer.subject import GaussianSubject, Subject

UNKNOWN_FPS = 30.0
"""Frames a second of a clip that does not say."""


def open_subject(
    what: str | Path,
    *,
    checkpoint: str = "last",
    device: str = "auto",
    up: tuple[float, float, float] | None = None,
    background: tuple[float, float, float] | None = None,
) -> Subject:
    """The run in a folder, or what a file holds; InputError where `what` is neither.

    `up` and `background` replace what a file says, or does not say; a run has its own.
    """
    if background is not None and not all(0.0 <= value <= 1.0 for value in background):
        raise InputError(f"--background must be three numbers in [0, 1], got {' '.join(map(str, background))}.")
    path = Path(what).expanduser()
    if not path.exists():
        raise InputError(f"{path} does not exist; give the folder of a run, or a file of Gaussians or of a field.")
    if (path / "config.json").exists():
        if up is not None or background is not None:
            raise InputError(
                f"--up and --background are for files, but {path} is a run, which has its own; leave them out."
            )
        return run_subject(load_run(path, checkpoint, device))
    if path.is_dir() and not (path / "meta.json").exists():
        raise InputError(f"{path} is not the folder of a run: it has no config.json; give one that has, or a file.")
    return file_subject(path, choose_device(device), up, background)


def check_time(subject: Subject, time: float | None) -> None:
    """InputError where a moment is asked for of what stands still, such as a field, which has learned one frame."""
    if time is not None and not subject.times:
        raise InputError(f"--time chooses a moment of a clip, but {subject.label} stands still; leave it out.")


def run_subject(loaded: LoadedRun) -> MethodSubject:
    """A loaded run with its scene."""
    scene = loaded.scene()
    label = f"{scene.name} · {loaded.method.name}"
    mask_use = loaded.config.image.settled_mask_use
    return MethodSubject(label, loaded.method, scene, lambda: loaded.background, mask_use, loaded.run_dir)


def file_subject(
    path: Path,
    device: torch.device,
    up: tuple[float, float, float] | None = None,
    background: tuple[float, float, float] | None = None,
) -> Subject:
    """The Gaussians or the field of a file, on `device`."""
    if path.suffix.lower() == ".kino":
        file = read_kino(path)
        gaussians, metadata = without_idle_time(file.gaussians), file.metadata
        if file.kind == KIND:
            return field_subject(path, file, device, up, background)
        if len(gaussians) == 0 and file.kind != "gaussians":
            raise InputError(f"{path} holds a model of the kind {file.kind}, which the viewer cannot draw yet.")
    else:
        imported = import_scene(path)
        gaussians, metadata = imported.gaussians, imported.metadata
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
    if not gaussians.is_moving:
        return ()
    n_frames = max(2, round(clip_seconds(gaussians, duration) * fps) + 1)
    return tuple(i / fps for i in range(n_frames))
