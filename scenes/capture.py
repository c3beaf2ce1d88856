"""What a format reader returns: the data as it is on disk, in the input's frame, before anything is chosen or scaled.

`kinosplat.scenes.assemble` makes a `Scene` of it, the same way for every format: split, part of the clip, size,
normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kinosplat.scenes.distortion import Lens
from kinosplat.scenes.scene import Similarity

NO_LENS = Lens()
"""A pinhole."""


@dataclass(frozen=True)
class RawPicture:
    """An image file, or one frame of a video file."""

    path: Path
    """The file; it exists."""
    frame: int | None = None
    """Index of the frame when the file is a video."""
    marks_outside: bool = False
    """For a mask: whether its file is white on what does not count."""


@dataclass(frozen=True)
class Shot:
    """One picture with its calibration as the data set gives it."""

    name: str
    """Unique in the data set; frames of one camera are named `camera/frame`."""
    camera_index: int
    """Which physical camera took it."""
    world_to_camera: NDArray[np.float64]
    """(4, 4) rigid, OpenCV axes, in the input's frame."""
    K: NDArray[np.float64]
    """(3, 3) in pixels of the picture on disk."""
    width: int
    """Width of the picture on disk."""
    height: int
    """Height of the picture on disk."""
    picture: RawPicture
    """Where the picture is."""
    mask: RawPicture | None = None
    """Where its mask is, if it has one."""
    lens: Lens = NO_LENS
    """Distortion still in the picture."""
    time: float | None = None
    """Seconds from the start of the whole clip, or None in a static data set."""
    frame: int | None = None
    """Which moment of the clip, counted from 0 over all cameras, or None in a static data set."""
    split: Literal["train", "test"] | None = None
    """Which part the data set puts it in, when it has a split."""


@dataclass(frozen=True)
class RawPoints:
    """First points in the input's frame."""

    positions: NDArray[np.float64]
    """(P, 3) in the input's frame."""
    colors: NDArray[np.uint8]
    """(P, 3) sRGB."""
    times: NDArray[np.float64] | None = None
    """(P,) seconds from the start of the whole clip, or None when they hold for all of it."""


@dataclass(frozen=True)
class Capture:
    """A data set."""

    format: str
    """Which reader made it."""
    shots: tuple[Shot, ...]
    """At least one, ordered by camera, then time."""
    points: RawPoints | None = None
    """First points that came with it."""
    fps: float | None = None
    """Frames a second of a clip."""
    near: float | None = None
    """Distance from a camera within which nothing is, in the input's units, when the format says so."""
    colors_differ: bool = False
    """Whether the format is known for cameras that were not matched in exposure and white balance."""
    masks_cut_out: bool = False
    """Whether masks outline the object that the scene consists of; else they say which pixels to trust."""
    up: tuple[float, float, float] | None = None
    """World up axis, when the format fixes one."""
    background: tuple[float, float, float] | None = None
    """Colour to composite pictures with alpha on, when the format fixes one."""
    normalisation: Similarity | None = None
    """From scene coordinates to the input's frame, when the data set has its own."""
    depth: float | None = None
    """Typical distance of what is seen from the cameras, when the format tells; used where the cameras cannot."""
    downscaled: float = 1.0
    """How many times smaller the chosen pictures on disk are than the originals (a folder such as images_4)."""
    is_dtu: bool = False
    """Whether this is one of DTU's 49-camera scenes in their original order, for which sparse splits are customary."""
