"""What a user may choose when a scene is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kinosplat.errors import InputError


@dataclass(frozen=True)
class LoadOptions:
    """How a scene is read: size of the pictures, split, part of the clip, masks."""

    downscale: float = 1.0
    """Make pictures this many times smaller on each side, by an area filter; 1 keeps them."""
    resolution: tuple[int, int] | None = None
    """Width and height of the pictures instead of `downscale`; the field of view is kept on both axes."""
    split: Literal["auto", "every"] = "auto"
    """Held-out views: the data set's own if it has a split, else every `test_every`-th camera; or always the latter."""
    test_every: int = 8
    """Hold out the first camera of every this many, in order of names; 0 holds out none."""
    train_views: Literal[3, 6, 9] | None = None
    """Train on this few cameras: the usual sparse split of DTU scenes, evenly spaced cameras elsewhere."""
    frames: tuple[int, int] | None = None
    """First frame of a clip, and the one after the last; the whole clip without it."""
    frame: int | None = None
    """Only this frame of a clip, as a static scene."""
    masks: Literal["auto", "ignore"] = "auto"
    """Use the masks that come with the data, or do as if there were none."""

    def __post_init__(self) -> None:
        if not self.downscale >= 1:
            raise InputError(f"downscale must be at least 1, got {self.downscale}; pictures are never enlarged.")
        if self.resolution is not None and min(self.resolution) < 1:
            raise InputError(f"resolution must be at least 1 1, got {self.resolution[0]} {self.resolution[1]}.")
        if self.resolution is not None and self.downscale != 1:
            raise InputError("resolution and downscale exclude each other; give one of them.")
        if self.test_every < 0 or self.test_every == 1:
            raise InputError(
                f"test_every must be 0 or at least 2, got {self.test_every}; 1 would leave nothing to learn from."
            )
        if self.frames is not None and self.frame is not None:
            raise InputError("frame and frames exclude each other; give one of them.")
        if self.frames is not None and not 0 <= self.frames[0] < self.frames[1]:
            raise InputError(
                f"frames must be a first frame and a later one, counted from 0, got {self.frames[0]} {self.frames[1]}."
            )
        if self.frame is not None and self.frame < 0:
            raise InputError(f"frame counts from 0, got {self.frame}.")
