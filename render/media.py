"""Pictures out: 8-bit images, colour maps for scalar channels, image files and videos.

Files are written beside and renamed, so an interrupted run leaves no half file under the final name.
An ending that no writer knows is refused with an InputError.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import imageio.v3 as iio
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinosplat.errors import InputError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
PICTURE_WRITERS = min(8, os.cpu_count() or 1)
"""Threads that compress pictures; a PNG of a megapixel takes one of them a tenth of a second or two."""
VIDEO_CODECS = {".mp4": "libx264", ".webm": "libvpx-vp9"}

# Twelve samples of the Turbo colour map (Mikhailov 2019), linearly interpolated between.
_TURBO = np.array(
    [
        [48, 18, 59], [69, 91, 205], [62, 155, 254], [24, 214, 203], [72, 247, 130], [164, 252, 59],
        [225, 220, 55], [253, 165, 49], [239, 90, 17], [195, 36, 2], [159, 16, 1], [122, 4, 2],
    ],
    dtype=np.float32,
)  # fmt: skip


def to_uint8(image: Tensor) -> NDArray[np.uint8]:
    """Float (..., C) in [0, 1] to uint8, rounded; values outside are clamped, non-finite ones become 0."""
    clean = torch.nan_to_num(image.detach(), nan=0.0, posinf=1.0, neginf=0.0)
    return (clean.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def colorize(values: Tensor, low: float, high: float, valid: Tensor | None = None) -> NDArray[np.uint8]:
    """(H, W) scalars to (H, W, 3) uint8 Turbo colours between `low` and `high`; black where `valid` is False."""
    span = high - low if high > low else 1.0
    position = ((values.detach().float().cpu().numpy() - low) / span).clip(0, 1) * (len(_TURBO) - 1)
    index = np.arange(len(_TURBO))
    colors = np.stack([np.interp(position, index, _TURBO[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)
    if valid is not None:
        colors[~valid.cpu().numpy()] = 0
    return colors


def depth_range(depth: Tensor, alpha: Tensor) -> tuple[float, float]:
    """2nd and 98th percentile of `depth` (…, H, W) where `alpha` exceeds one half; (0, 1) when nothing is there."""
    covered = depth[alpha > 0.5]
    if covered.numel() == 0:
        return 0.0, 1.0
    # torch.quantile refuses more than 16M elements; every n-th value gives the same percentiles to the eye.
    sample = covered[:: max(1, covered.numel() // 1_000_000)].float()
    low, high = torch.quantile(sample, torch.tensor([0.02, 0.98], device=sample.device)).tolist()
    return low, high


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write (H, W, 1, 3 or 4) or (H, W) uint8 under a name that ends in .png, .jpg, .jpeg or .webp."""
    if path.suffix.lower() not in IMAGE_ENDINGS:
        raise InputError(f"{path}: the name of a picture must end in one of {', '.join(IMAGE_ENDINGS)}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    iio.imwrite(partial, image)
    os.replace(partial, path)


class PictureWriter:
    """Context manager that writes pictures from threads, as `write_image` does; leaving it waits for the last.

    An error of a picture is raised by a later `write`, or on leaving.
    """

    def __init__(self) -> None:
        """Nothing is written yet."""
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> PictureWriter:
        self._threads = ThreadPoolExecutor(PICTURE_WRITERS, "pictures")
        return self

    def write(self, path: Path, image: NDArray[np.uint8]) -> None:
        """Hand (H, W, C) over, which nobody may change afterwards; waits where threads are far behind."""
        while len(self._pending) >= 2 * PICTURE_WRITERS or (self._pending and self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._threads.submit(write_image, path, image))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for future in self._pending:
                future.result()


class VideoWriter:
    """Context manager that writes uint8 (H, W, 3) frames to an .mp4 (H.264) or .webm (VP9) file."""

    def __init__(self, path: Path, fps: float) -> None:
        """Refuse an unknown ending before any frame is rendered; `fps` is in frames a second."""
        if path.suffix.lower() not in VIDEO_CODECS:
            raise InputError(f"{path}: the name of a video must end in {' or '.join(VIDEO_CODECS)}.")
        self.path = path
        self.n_frames = 0
        self._fps = fps
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")

    def __enter__(self) -> VideoWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = iio.imopen(self._partial, "w", plugin="pyav")
        self._file.init_video_stream(VIDEO_CODECS[self.path.suffix.lower()], fps=round(self._fps, 3))
        return self

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append a frame; odd sizes lose their last row or column, which 4:2:0 video cannot hold."""
        height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        self._file.write_frame(np.ascontiguousarray(frame[:height, :width]))
        self.n_frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(Exception) if kind else contextlib.nullcontext():
            self._file.close()
        if kind is None and self.n_frames:
            os.replace(self._partial, self.path)
        else:
            self._partial.unlink(missing_ok=True)
