"""Tiny scenes on disk, drawn by the plain-torch reference: a handful of coloured blobs seen by a ring of cameras.

Each is a folder in the nerfstudio layout (transforms.json, PNG pictures, points.ply), so that a run can find it again.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor

from kinosplat.render.camera import Camera, look_at
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.media import to_uint8
from kinosplat.render.reference import rasterize_reference
from kinosplat.scenes import LoadOptions, Scene, load_scene
from kinosplat.trainers.config import CheckpointConfig, EvaluationConfig, ScheduleConfig, TrainConfig
from kinosplat.trainers.methods.config import FourDGS, GaussianConfig, ThreeDGS

WIDTH, HEIGHT = 48, 36
OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))


@dataclass(frozen=True)
class Toy:
    """A toy scene and how it came about."""

    folder: Path
    truth: Gaussians

    def scene(self, options: LoadOptions | None = None) -> Scene:
        """Read it from disk."""
        return load_scene(self.folder, options)


def blobs(n: int = 40, seed: int = 0) -> Gaussians:
    """`n` round blobs in a ball of radius 1, of bright colours."""
    draws = torch.Generator().manual_seed(seed)
    means = torch.randn(n, 3, generator=draws)
    means = means / means.norm(dim=1, keepdim=True) * torch.rand(n, 1, generator=draws).sqrt()
    quats = torch.zeros(n, 4)
    quats[:, 0] = 1.0
    return Gaussians(
        means=means,
        quats=quats,
        log_scales=torch.full((n, 3), math.log(0.12)),
        opacity_logits=torch.full((n,), 2.0),
        sh_dc=torch.rand(n, 3, generator=draws) * 3.0 - 1.5,
        sh_rest=torch.zeros(n, 0, 3),
    )


def ring(n: int, turn: float = 0.0, time: float | None = None) -> list[Camera]:
    """`n` cameras around the origin, looking at it from a distance of 4."""
    K = torch.tensor([[60.0, 0.0, WIDTH / 2], [0.0, 60.0, HEIGHT / 2], [0.0, 0.0, 1.0]])
    angles = [2.0 * math.pi * (i + turn) / n for i in range(n)]
    return [
        look_at(
            torch.tensor([4.0 * math.cos(a), 4.0 * math.sin(a), 1.0 + 0.5 * math.sin(3.0 * a)]),
            torch.zeros(3),
            torch.tensor([0.0, 0.0, 1.0]),
            K=K,
            width=WIDTH,
            height=HEIGHT,
            time=time,
        )
        for a in angles
    ]


def write_toy(
    folder: Path,
    *,
    n_train: int = 8,
    n_test: int = 2,
    times: tuple[float, ...] | None = None,
    mask: Tensor | None = None,
    with_alpha: bool = False,
    background: Tensor | None = None,
    exposures: Tensor | None = None,
    first_points_noise: float = 0.02,
) -> Toy:
    """Draw a toy scene and write it down; with `times` (seconds) half of the blobs circle the vertical axis.

    `mask` (H, W) bool goes with every picture, `exposures` (n_train, 3, 4) distort the colours of training cameras.
    """
    truth = blobs()
    (folder / "images").mkdir(parents=True)
    frames, names = [], {"train": [], "test": []}
    for split, cameras in (("train", ring(n_train)), ("test", ring(n_test, turn=0.3))):
        for c, camera in enumerate(cameras):
            for f, time in enumerate(times or (None,)):
                name = f"images/{split}{c:02d}_{f:02d}.png"
                picture = _draw(at_time(truth, time), camera, background, with_alpha)
                if exposures is not None and split == "train":
                    picture = (picture @ exposures[c, :, :3].T + exposures[c, :, 3]).clamp(0.0, 1.0)
                iio.imwrite(folder / name, to_uint8(picture))
                frame = {"file_path": name, "transform_matrix": _opengl(camera)}
                if time is not None:
                    frame["time"] = time
                if mask is not None:
                    frame["mask_path"] = "mask.png"
                frames.append(frame)
                names[split].append(name)
    if mask is not None:
        iio.imwrite(folder / "mask.png", (mask.numpy() * 255).astype(np.uint8))
    K = ring(1)[0].K
    top = {
        "fl_x": K[0, 0].item(), "fl_y": K[1, 1].item(), "cx": K[0, 2].item(), "cy": K[1, 2].item(),
        "w": WIDTH, "h": HEIGHT, "camera_model": "PINHOLE", "ply_file_path": "points.ply",
        "train_filenames": names["train"], "test_filenames": names["test"], "frames": frames,
    }  # fmt: skip
    (folder / "transforms.json").write_text(json.dumps(top))
    _write_points(folder / "points.ply", truth, first_points_noise)
    return Toy(folder, truth)


def at_time(truth: Gaussians, time: float | None) -> Gaussians:
    """The blobs at `time` seconds: every second one circles the vertical axis, once in eight seconds."""
    if time is None:
        return truth
    angle = 2.0 * math.pi * time / 8.0
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0], [0.0, 0.0, 1.0]]
    )
    means = truth.means.clone()
    means[::2] = means[::2] @ turn.T
    return replace(truth, means=means)


def tiny_config(method: ThreeDGS | FourDGS, toy: Toy, *, steps: int = 30, **changes: object) -> TrainConfig:
    """A config that trains a toy in a few seconds; `changes` are fields of TrainConfig."""
    config = TrainConfig(
        method=replace(method, gaussians=replace(method.gaussians, max_gaussians=80, sh_degree=1, near=0.05)),
        scene=str(toy.folder),
        schedule=ScheduleConfig(steps=steps),
        evaluation=EvaluationConfig(save_test_renders=False),
        checkpoints=CheckpointConfig(save_every=10, log_every=1),
        device="cpu",
    )
    return replace(config, **changes)


def with_batch(config: TrainConfig, batch_size: int) -> TrainConfig:
    """The config with so many pictures a step."""
    return replace(config, schedule=replace(config.schedule, batch_size=batch_size))


def with_options(method: ThreeDGS | FourDGS, **changes: object) -> ThreeDGS | FourDGS:
    """The method with other fields in its GaussianConfig."""
    gaussians: GaussianConfig = replace(method.gaussians, **changes)
    return replace(method, gaussians=gaussians)


def _draw(truth: Gaussians, camera: Camera, background: Tensor | None, with_alpha: bool) -> Tensor:
    output = rasterize_reference(truth, [camera.at(None)], background=background)
    if not with_alpha:
        return output.rgb[0]
    alpha = output.alpha[0, ..., None]
    return torch.cat([output.rgb[0] / alpha.clamp_min(1e-6), alpha], dim=-1)


def _opengl(camera: Camera) -> list[list[float]]:
    return (torch.linalg.inv(camera.world_to_camera.double()) @ OPENGL.double()).tolist()


def _write_points(path: Path, truth: Gaussians, noise: float) -> None:
    draws = torch.Generator().manual_seed(1)
    positions = truth.means + noise * torch.randn(len(truth), 3, generator=draws)
    header = ["ply", "format ascii 1.0", f"element vertex {len(truth)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"property uchar {color}" for color in ("red", "green", "blue")] + ["end_header"]
    lines = [f"{x:.6f} {y:.6f} {z:.6f} 128 128 128" for x, y, z in positions.tolist()]
    path.write_text("\n".join(header + lines) + "\n")


def moving_blobs(duration: float) -> Gaussians:
    """Six that live around the beginning of the clip, where they stand still."""
    still = blobs(6)
    return Gaussians(
        **still.parameters(),
        displacements=torch.zeros(6, 3),
        time_centres=torch.zeros(6),
        log_durations=torch.full((6,), math.log(duration)),
    )
