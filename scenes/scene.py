"""The one type every reader returns and every trainer takes.

Cameras are undistorted, in scene coordinates, and at the resolution the pictures are delivered in. Scene coordinates
differ from the input's only by a uniform scale and a translation (`Scene.to_input`), so that rotations and spherical
harmonics mean the same in both.
Nothing here touches pixels: a `View` knows where its picture comes from, `FrameLoader` fetches it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinosplat.render.camera import Camera


class ImageSource(Protocol):
    """One picture somewhere: an image file, or one frame of a video; hashable, cheap to hold, loaded on demand."""

    @property
    def description(self) -> str:
        """What an error message calls this picture, such as `images/000.png` or `videos/cam00.mp4 frame 12`."""

    def load(self) -> NDArray[np.uint8]:
        """(H, W, 3 or 4) uint8 sRGB, undistorted and downscaled; raises InputError when it cannot be read."""


@dataclass(frozen=True)
class View:
    """One picture of the scene with its camera."""

    name: str
    """Unique in the scene, such as `cam03/000012`; test renders are saved under it."""
    camera: Camera
    """Undistorted camera at the delivered resolution, in scene coordinates, with the time of the picture."""
    camera_index: int
    """Which physical camera took it; exposure and pose corrections are per physical camera."""
    image: ImageSource
    """Where the picture comes from; a fourth channel is alpha."""
    mask: ImageSource | None = None
    """Where the mask comes from, if there is one: (H, W) or (H, W, 1) uint8, 0 is outside."""


@dataclass(frozen=True)
class PointCloud:
    """First points for the trainer."""

    positions: Tensor
    """(P, 3) float32, scene coordinates."""
    colors: Tensor
    """(P, 3) uint8 sRGB."""
    times: Tensor | None = None
    """(P,) float32 seconds at which each point was seen, or None when they hold for the whole clip."""
    durations: Tensor | None = None
    """(P,) float32 seconds for which each point holds around its time, inf for the whole clip; None when unknown."""

    def __len__(self) -> int:
        return self.positions.shape[0]

    def subset(self, chosen: Tensor) -> PointCloud:
        """The points at indices, or where a mask is true."""
        times = None if self.times is None else self.times[chosen]
        durations = None if self.durations is None else self.durations[chosen]
        return PointCloud(self.positions[chosen], self.colors[chosen], times, durations)


@dataclass(frozen=True)
class Similarity:
    """x_input = scale * x_scene + offset; no rotation."""

    scale: float = 1.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def apply(self, points: Tensor) -> Tensor:
        """Scene coordinates (..., 3) to the input's frame."""
        return points * self.scale + torch.tensor(self.offset, dtype=points.dtype, device=points.device)

    def invert(self, points: Tensor) -> Tensor:
        """The input's frame (..., 3) to scene coordinates."""
        return (points - torch.tensor(self.offset, dtype=points.dtype, device=points.device)) / self.scale


@dataclass(frozen=True)
class Scene:
    """Calibrated pictures with a split, maybe first points, and the way back to the input's frame."""

    name: str
    """Short name used in output folders."""
    root: Path
    """Folder the scene was read from."""
    format: str
    """Which reader made it, such as `idr` or `panoptic`."""
    train: tuple[View, ...]
    """Views to learn from, ordered by camera, then time."""
    test: tuple[View, ...]
    """Views never seen in training."""
    split: str
    """How the split came about, in words for the report, such as `the data set's own` or `every 8th camera`."""
    times: tuple[float, ...] = ()
    """Distinct times in seconds in increasing order; empty for a static scene."""
    fps: float | None = None
    """Frames a second of a moving scene."""
    points: PointCloud | None = None
    """First points that came with the data."""
    to_input: Similarity = field(default_factory=Similarity)
    """From scene coordinates to the input's frame and scale."""
    up: tuple[float, float, float] | None = None
    """World up axis when the format or the cameras tell it."""
    background: tuple[float, float, float] | None = None
    """Colour to composite pictures with alpha on, when the format fixes one."""
    near: float | None = None
    """Distance from a camera within which nothing is, in scene units, when the format says so."""
    colors_differ: bool = False
    """Whether the format is known for cameras that were not matched in exposure and white balance."""
    masks_cut_out: bool = False
    """Whether masks outline the object that the scene consists of, as in IDR; else they say which pixels to trust."""
    resolution_note: str = "full resolution"
    """How pictures were scaled, in words for the report, such as `area filter, 1600x1200 -> 400x300`."""

    @property
    def is_moving(self) -> bool:
        """Whether the pictures were taken at more than one time."""
        return len(self.times) > 1

    @property
    def duration(self) -> float:
        """Seconds from the first to the last time; 0 for a static scene."""
        return self.times[-1] - self.times[0] if self.is_moving else 0.0

    @property
    def views(self) -> tuple[View, ...]:
        """Training and test views."""
        return self.train + self.test

    @property
    def radius(self) -> float:
        """1.1 x the largest distance of a training camera from their mean (INRIA's `cameras_extent`), at least 1e-6."""
        positions = torch.stack([view.camera.position for view in self.train])
        return max(1.1 * (positions - positions.mean(dim=0)).norm(dim=1).max().item(), 1e-6)
