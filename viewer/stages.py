"""What is timed while the viewer runs, in the words the page shows beside each number.

Render FPS is how fast pictures could be made; delivered FPS is how many the page confirmed in the last seconds. They
are never the same thing: the viewer makes a picture only when somebody wants one, and at most as many as asked for.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

Stage = Literal["render", "project", "bin", "blend", "read", "encode", "send"]
"""What follows one after another; project, bin and blend are the rasterizer's passes within render."""
STAGE_NAMES: dict[Stage, str] = {
    "render": "Render",
    "project": "Slice and project",
    "bin": "Bin",
    "blend": "Blend",
    "read": "Read",
    "encode": "Encode",
    "send": "Send",
}
STAGE_WORDS: dict[Stage, str] = {
    "render": "a picture from camera to colours, until the device has finished",
    "project": "to the moment, onto the screen, and into colours",
    "bin": "memory, and a list of Gaussians for every tile, sorted by depth",
    "blend": "front to back in every pixel",
    "read": "8-bit rounding and the copy from the device",
    "encode": "JPEG, in strips by several threads, or WebP; and the depth where objects are drawn into the picture",
    "send": "from handing over to the page's confirmation: network both ways and the page's own queue",
}
REMEMBERED = 120
"""Frames that the figures are taken over."""
WINDOW = 2.0
"""Seconds that delivered FPS is counted over."""


@dataclass(frozen=True)
class FrameTimes:
    """One picture from wish to confirmation, seconds."""

    render: float
    """See STAGE_WORDS, as the next six."""
    project: float
    bin: float
    blend: float
    read: float
    encode: float
    send: float
    latency: float
    """From the arrival of the input here to the page's confirmation of the picture made for it."""
    confirmed_at: float
    """Time of day (monotonic)."""
    n_bytes: int
    """Of picture and depth."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    n_visible: int
    """Gaussians that took part."""

    @property
    def made(self) -> float:
        """From the beginning of rendering until the picture was handed over, seconds."""
        return self.render + self.read + self.encode


class FrameMeter:
    """The last frames of one client; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames: deque[FrameTimes] = deque(maxlen=REMEMBERED)
        self.n_confirmed = 0

    def add(self, frame: FrameTimes) -> None:
        """A picture was confirmed."""
        with self._lock:
            self._frames.append(frame)
            self.n_confirmed += 1

    def last(self) -> FrameTimes | None:
        """The newest frame, None before the first."""
        with self._lock:
            return self._frames[-1] if self._frames else None

    def median_ms(self, stage: Stage | Literal["made", "latency"]) -> float:
        """Median of a stage over the last frames of the newest one's size, milliseconds; 0 before the first."""
        with self._lock:
            frames = list(self._frames)
        if not frames:
            return 0.0
        size = (frames[-1].width, frames[-1].height)
        return 1e3 * float(np.median([getattr(f, stage) for f in frames if (f.width, f.height) == size]))

    def render_fps(self) -> float:
        """Frames a second if nothing but rendering had to be done; 0 before the first frame."""
        milliseconds = self.median_ms("render")
        return 1e3 / milliseconds if milliseconds > 0 else 0.0

    def delivered_fps(self, now: float) -> float:
        """Pictures the page confirmed in the last seconds, a second."""
        with self._lock:
            recent = [f for f in self._frames if now - f.confirmed_at < WINDOW]
        return len(recent) / WINDOW

    def history(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frame numbers, render and whole milliseconds (input to confirmation) of the last `n` frames."""
        with self._lock:
            frames = list(self._frames)[-n:]
            first = self.n_confirmed - len(frames)
        numbers = np.arange(first, first + len(frames), dtype=np.float64)
        return numbers, 1e3 * np.array([f.render for f in frames]), 1e3 * np.array([f.latency for f in frames])
