"""Everything one run is made of, at its start or from a checkpoint, and back into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.render.camera import Camera, cameras_to
from kinosplat.scenes import PointCloud, Scene, View
from kinosplat.trainers.background import Background
from kinosplat.trainers.checkpoint import LAST, Checkpoint, checkpoint_path, load_checkpoint, save_checkpoint
from kinosplat.trainers.checkpoint_writer import CheckpointWriter
from kinosplat.trainers.clock import Clock
from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.exposure import Exposure
from kinosplat.trainers.method import Method
from kinosplat.trainers.methods.registry import create_method, learns_motion, restore_method, settle_method
from kinosplat.trainers.optim import Optimizer
from kinosplat.trainers.poses import Poses
from kinosplat.trainers.serialize import write_config


@dataclass
class Training:
    """A run in memory; only the loop changes it."""

    config: TrainConfig
    """Resolved: nothing is left to a preset."""
    scene: Scene
    """As the method sees it: without times when the method learns no motion."""
    run_dir: Path
    """Folder of the run."""
    device: torch.device
    """Where everything is."""
    method: Method
    """What is trained."""
    background: Background
    """What is behind it."""
    exposure: Exposure | None
    """Colour corrections, if they are learned."""
    poses: Poses | None
    """Pose corrections, if they are learned."""
    optimizer: Optimizer
    """Over the groups of all of these."""
    cameras: list[Camera]
    """Of the training views, on the device once and for all: a copy a step would make Python wait for it."""
    clock: Clock
    """How far the run is."""
    points_source: str
    """Where the first points came from."""
    step: int = 0
    """Steps done."""
    best_psnr: float | None = None
    """dB, highest of the evaluations so far."""
    has_halved_work: bool = False
    """Whether this session had to do with half the work a step, for want of memory."""
    writer: CheckpointWriter = field(default_factory=CheckpointWriter)
    """Writes checkpoints beside training."""

    def halve_work(self) -> bool:
        """Learn from half as many pictures or samples a step, also when the run is resumed; False where that cannot be,
        or has been done before.
        """
        if self.has_halved_work:
            return False
        if self.method.learns_from == "rays":
            self.config = dataclasses.replace(self.config, method=self.method.halve_samples())
        elif self.config.schedule.batch_size > 1:
            schedule = dataclasses.replace(self.config.schedule, batch_size=self.config.schedule.batch_size // 2)
            self.config = dataclasses.replace(self.config, schedule=schedule)
        else:
            return False
        self.has_halved_work = True
        write_config(self.run_dir, self.config)
        return True

    def save(self, which: str = LAST) -> Path:
        """Write a checkpoint of the run as it is now; atomic, and after the one that is on its way."""
        self.writer.wait()
        path = checkpoint_path(self.run_dir, which)
        save_checkpoint(path, self._checkpoint())
        return path

    def begin_save(self, which: str = LAST, written: Callable[[int, Path], None] = lambda step, path: None) -> None:
        """Have the same written while training goes on; `written` is told the step and the file (checkpoint_writer.py
        says when).
        """
        path, step = checkpoint_path(self.run_dir, which), self.step
        self.writer.begin(path, self._checkpoint(), lambda: written(step, path))

    def _checkpoint(self) -> Checkpoint:
        state = self.method.state()
        metadata = {
            "method": self.method.name,
            "step": self.step,
            "elapsed": self.clock.elapsed,
            "progress": self.clock.progress,
            "best_psnr": self.best_psnr,
            "points_source": self.points_source,
            "background": self.background.evaluation_color().tolist(),
            "state": state.metadata,
        }
        return Checkpoint(self.optimizer.tensors() | state.tensors, metadata)


def choose_device(name: str) -> torch.device:
    """The device of `--device`; one that is not there is an InputError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name} is no device; use auto, cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {name} needs a CUDA device and a torch built for it; use --device cpu.")
    return device


def still_scene(scene: Scene, frame: int) -> Scene:
    """One moment of a moving scene as a static scene; a frame that does not exist is an InputError."""
    if not 0 <= frame < len(scene.times):
        raise InputError(f"--frame {frame} does not exist; {scene.name} has frames 0 to {len(scene.times) - 1}.")
    moment = scene.times[frame]

    def at_moment(views: tuple[View, ...]) -> tuple[View, ...]:
        kept = (view for view in views if view.camera.time == moment)
        return tuple(dataclasses.replace(view, camera=view.camera.at(None)) for view in kept)

    train = at_moment(scene.train)
    if not train:
        raise InputError(f"--frame {frame}: no training view of {scene.name} was taken then; choose another frame.")
    points = scene.points
    if points is not None and points.times is not None:
        near = (points.times - moment).abs() <= (points.times - moment).abs().min() + 1e-6
        if points.durations is not None:
            near |= torch.isinf(points.durations)
        points = PointCloud(points.positions[near], points.colors[near])
    return dataclasses.replace(scene, train=train, test=at_moment(scene.test), times=(), fps=None, points=points)


def scene_for(config: TrainConfig, scene: Scene) -> Scene:
    """The scene as the method of `config` sees it; one without training views is an InputError."""
    if not scene.train:
        raise InputError(f"{scene.name} has no training views; choose another split.")
    if scene.is_moving and not learns_motion(config.method):
        return still_scene(scene, config.data.frame or 0)
    return scene


def settle(config: TrainConfig, scene: Scene) -> TrainConfig:
    """The config with the options decided that are left to the scene: what its masks mean, whether colours are
    corrected, and those of the method.
    """
    image = config.image
    if image.mask_use == "auto":
        use: Literal["object-only", "ignore-outside"] = "object-only" if scene.masks_cut_out else "ignore-outside"
        image = dataclasses.replace(image, mask_use=use)
    if image.saturation is None:
        image = dataclasses.replace(image, saturation=scene.colors_differ)
    corrections = config.corrections
    if corrections.exposure is None:
        corrections = dataclasses.replace(corrections, exposure=scene.colors_differ)
    method = settle_method(config, scene, image.settled_mask_use, choose_device(config.device))
    return dataclasses.replace(config, image=image, corrections=corrections, method=method)


def start(
    config: TrainConfig, scene: Scene, points: PointCloud, points_source: str, run_dir: Path, elapsed: float
) -> Training:
    """A new run; `scene` comes from `scene_for`, `elapsed` seconds went into the first points."""
    device = choose_device(config.device)
    method = create_method(config, scene, points, device)
    return _equip(config, scene, run_dir, method, device, points_source, _clock(config, elapsed, 0.0))


def restore(config: TrainConfig, scene: Scene, run_dir: Path) -> Training:
    """The run as its last checkpoint holds it."""
    device = choose_device(config.device)
    path = checkpoint_path(run_dir)
    checkpoint = load_checkpoint(path, config.method.name)
    metadata = checkpoint.metadata
    try:
        method = restore_method(config, checkpoint.tensors, metadata["state"], device)
        clock = _clock(config, metadata["elapsed"], metadata["progress"])
        training = _equip(config, scene, run_dir, method, device, metadata["points_source"], clock)
        training.optimizer.load(checkpoint.tensors)
        method.load(on_device(checkpoint.tensors, device), metadata["state"])
        training.step = metadata["step"]
        training.best_psnr = metadata["best_psnr"]
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path} does not fit {run_dir / 'config.json'} ({error}); restore the config it was trained with."
        ) from error
    return training


def on_device(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The tensors on `device`."""
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _clock(config: TrainConfig, elapsed: float, progress: float) -> Clock:
    assert config.schedule.steps is not None
    return Clock(config.schedule.steps, config.schedule.time_limit, elapsed, progress)


def _equip(
    config: TrainConfig,
    scene: Scene,
    run_dir: Path,
    method: Method,
    device: torch.device,
    points_source: str,
    clock: Clock,
) -> Training:
    background = make_background(config, scene, device, method.learns_from == "rays")
    cameras = cameras_to([view.camera for view in scene.train], device)
    pairs = list(zip(scene.train, cameras, strict=True))
    poses_of_cameras = {view.camera_index: camera.world_to_camera for view, camera in reversed(pairs)}
    n_cameras = 1 + max(view.camera_index for view in scene.views)
    corrections = config.corrections
    exposure, poses = None, None
    if corrections.exposure:
        exposure = Exposure(sorted(poses_of_cameras), n_cameras, corrections.exposure_lr, device)
    if corrections.refine_poses:
        poses = Poses(poses_of_cameras, n_cameras, scene.radius, corrections.pose_lr)
    groups = [*method.groups(), *(part.group for part in (exposure, poses) if part is not None)]
    if background.group is not None:
        groups.append(background.group)
    return Training(
        config=config,
        scene=scene,
        run_dir=run_dir,
        device=device,
        method=method,
        background=background,
        exposure=exposure,
        poses=poses,
        optimizer=Optimizer(groups),
        cameras=cameras,
        clock=clock,
        points_source=points_source,
    )


def make_background(config: TrainConfig, scene: Scene, device: torch.device, of_rays: bool) -> Background:
    """The background that `--background` asks for; auto takes the scene's own, or random colours behind what is cut
    out and behind single rays.
    """
    kind = config.image.background
    if kind != "auto":
        return Background(kind, config.schedule.seed, device)
    if scene.background is not None:
        return Background(scene.background, config.schedule.seed, device)
    cut_out = config.image.settled_mask_use == "object-only" and any(view.mask is not None for view in scene.train)
    return Background("random" if cut_out or of_rays else "black", config.schedule.seed, device)
