"""How large a picture may be so that a client gets the frames a second it asked for.

The cost of a frame is taken to grow with its pixels, at a rate that is learned from the frames that were made.
"""

from __future__ import annotations

import math

SMALLEST_SCALE = 0.15
"""Of the width; below this nothing can be recognised."""
FIRST_SCALE = 0.25
"""While nothing is known yet: a field on a CPU may need seconds for what a GPU does in one millisecond."""
LONGEST_STILL = 3.0
"""Seconds that a picture of full quality may take; while it is made nobody gets another."""
STEPS = 16
"""Scales are multiples of one sixteenth, so that the picture does not swim by a pixel from frame to frame."""
BUDGET = 0.85
"""Part of the time between two frames that making one may take."""
MEMORY = 0.3
"""Weight of the newest frame in the moving averages."""


class AdaptiveResolution:
    """Learns what a pixel costs and picks the scale of the next moving frame."""

    def __init__(self) -> None:
        self._seconds_per_pixel: float | None = None

    def learn(self, n_pixels: int, seconds: float) -> None:
        """One frame of `n_pixels` took `seconds` to render and encode."""
        if n_pixels < 1 or seconds <= 0:
            return
        found = seconds / n_pixels
        known = self._seconds_per_pixel
        # A single slow frame (a page fault, a garbage collection) must not halve the picture.
        if known is not None:
            found = min(found, 4 * known)
            found = known + MEMORY * (found - known)
        self._seconds_per_pixel = found

    def scale(self, n_pixels: int, target_fps: float, n_sharing: int = 1) -> float:
        """Factor in (0, 1] of width and height for a full picture of `n_pixels`, when `n_sharing` clients move."""
        return self._scale_within(BUDGET / (target_fps * max(n_sharing, 1)), n_pixels)

    def still_scale(self, n_pixels: int) -> float:
        """The same for a picture that nothing moves in: all pixels, unless that would hold up everybody else."""
        return self._scale_within(LONGEST_STILL, n_pixels)

    def _scale_within(self, seconds: float, n_pixels: int) -> float:
        if self._seconds_per_pixel is None:
            return FIRST_SCALE
        exact = math.sqrt(seconds / self._seconds_per_pixel / n_pixels)
        return min(1.0, max(SMALLEST_SCALE, math.floor(exact * STEPS) / STEPS))


def scaled_size(width: int, height: int, scale: float) -> tuple[int, int]:
    """Width and height in whole pixels, at least 16 each; even, as pictures with halved colour want them."""
    return tuple(max(16, 2 * round(0.5 * scale * side)) if scale < 1 else side for side in (width, height))  # type: ignore[return-value]


def limited_size(width: int, height: int, longest: int) -> tuple[int, int]:
    """The size, shrunk if its longer side exceeds `longest` pixels."""
    return scaled_size(width, height, min(1.0, longest / max(width, height)))
