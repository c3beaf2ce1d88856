"""Pictures to bytes for the page: JPEG or WebP for what is seen, a 24-bit PNG for how far away it is.

What is streamed is read from the device with a fourth byte a pixel that nobody looks at: Pillow encodes such memory
as it is, and would copy pixels of three bytes first.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from typing_extensions import assert_never

from kinosplat.viewer.jpeg_strips import join_strips, strip_rows

Coding = Literal["jpeg", "webp"]
DEPTH_UNIT = 1e-5
"""World units of one step of the 24-bit depth, as viser's page reads it."""
FARTHEST = 2**24 - 1
"""Steps; stands for everything that is farther away, and for nothing."""
MOST_STRIPS = 8
"""Threads that encode one picture at most."""
STRIP_PIXELS = 200_000
"""Pixels of a strip at least: encoding these takes a millisecond, handing them to another thread a tenth of one."""


class PictureEncoder:
    """Encodes streamed pictures, large JPEGs on several threads; `close` ends them."""

    def __init__(self, n_threads: int | None = None) -> None:
        """`n_threads` that work on one picture; None for half of the processors this process may use."""
        if n_threads is None:
            n_threads = min(MOST_STRIPS, max(1, _n_processors() // 2))
        self.n_threads = n_threads
        # Whoever asks for a picture encodes the last strip itself.
        self._others = ThreadPoolExecutor(n_threads - 1, "kinosplat-encode") if n_threads > 1 else None

    def encode(self, canvas: NDArray[np.uint8], coding: Coding, quality: int) -> bytes:
        """(H, W, 4) uint8 of `to_canvas` to the bytes of a file; quality from 1 to 100."""
        height, width = canvas.shape[:2]
        n_strips = min(self.n_threads, width * height // STRIP_PIXELS)
        rows = strip_rows(height, n_strips)
        if coding != "jpeg" or self._others is None or rows >= height:
            return encode_picture(canvas, coding, quality)
        strips = [canvas[first : first + rows] for first in range(0, height, rows)]
        others = [self._others.submit(encode_picture, strip, coding, quality) for strip in strips[:-1]]
        last = encode_picture(strips[-1], coding, quality)
        return join_strips([*(other.result() for other in others), last], width, height)

    def close(self) -> None:
        """End the threads; nobody encodes any more."""
        if self._others is not None:
            self._others.shutdown(wait=False)


def _n_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def to_canvas(picture: Tensor) -> NDArray[np.uint8]:
    """(H, W, 3) floats to (H, W, 4) uint8 on the CPU, the last of every four of no meaning; rounded as `to_pixels`.

    From a GPU it goes into memory that the device writes to by itself: 0.31 ms for 1280x720 on an H100, where three
    bytes a pixel by way of the driver's own memory took 0.41.
    """
    canvas = torch.empty((*picture.shape[:2], 4), dtype=torch.uint8, device=picture.device)
    canvas[..., :3] = (picture.detach() * 255).add_(0.5).clamp_(0, 255)
    if canvas.is_cuda:
        host = torch.empty(canvas.shape, dtype=torch.uint8, pin_memory=True)
        host.copy_(canvas, non_blocking=True)
        torch.cuda.current_stream(canvas.device).synchronize()
        canvas = host
    return canvas.numpy()


def to_pixels(picture: Tensor) -> NDArray[np.uint8]:
    """(H, W, 3) floats to uint8 on the CPU, rounded on the device so that a quarter of the bytes crosses over."""
    return (picture.detach() * 255).add_(0.5).clamp_(0, 255).to(torch.uint8).cpu().numpy()


def encode_picture(pixels: NDArray[np.uint8], coding: Coding, quality: int) -> bytes:
    """(H, W, 3) uint8, or (H, W, 4) of `to_canvas`, to the bytes of a file; quality from 1 to 100."""
    match coding:
        case "jpeg":
            # Full colour resolution from 90 on: halved colour is then what one sees first.
            return _encoded(pixels, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2)
        case "webp":
            # Method 0 is the fastest of seven; the others save a tenth of the bytes for several times the time.
            return _encoded(pixels, "WEBP", quality=quality, method=0)
        case _:
            assert_never(coding)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 to PNG."""
    return _encoded(pixels, "PNG")


def to_depth_steps(depth: Tensor, longest: int) -> NDArray[np.uint8]:
    """(H, W) z-depth, infinite for nothing, to (h, w, 3) bytes from the highest to the lowest, on the CPU.

    At most `longest` pixels on a side: what viser's page draws into the picture hides and shows by it, and needs no
    more. The nearest of the pixels that become one is kept, so that thin things go on hiding what is behind them.
    """
    step = max(1, -(-max(depth.shape) // longest))
    if step > 1:
        depth = -torch.nn.functional.max_pool2d(-depth[None, None], step, ceil_mode=True)[0, 0]
    steps = (depth.clamp(0, FARTHEST * DEPTH_UNIT) / DEPTH_UNIT).round().clamp(0, FARTHEST).int().cpu().numpy()
    return np.stack([steps >> 16, (steps >> 8) & 255, steps & 255], axis=-1).astype(np.uint8)


def encode_depth(steps: NDArray[np.uint8]) -> bytes:
    """What `to_depth_steps` gives, as PNG."""
    return _encoded(steps, "PNG", compress_level=1)


def _encoded(pixels: NDArray[np.uint8], format: str, **options: int) -> bytes:
    """The bytes of an image file.

    Pillow lets other threads run while it encodes into a file of the system's, and holds them up while it encodes into
    an object of Python's; so it gets a file in memory, where there is such a thing.
    """
    image = _image(pixels)
    if sys.platform != "linux":
        buffer = BytesIO()
        image.save(buffer, format, **options)
        return buffer.getvalue()
    with open(os.memfd_create("picture"), "w+b") as file:
        image.save(file, format, **options)
        file.seek(0)
        return file.read()


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    if pixels.shape[2] == 3:
        return Image.fromarray(pixels)
    size = (pixels.shape[1], pixels.shape[0])
    return Image.frombuffer("RGBX", size, pixels, "raw", "RGBX", 0, 1)
