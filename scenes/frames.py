"""Pictures for the trainer: loaded lazily by background workers, kept as uint8 up to a number of bytes, delivered as
floats.

What is delivered depends on the view alone, never on what the cache holds or on which worker was faster. A picture that
cannot be read or has another size than its camera raises InputError naming it, in the thread that asks for it. Memory
taken: the cache's limit, half of it again for open video decoders where there are videos, and the pictures that workers
are at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.scenes.device_feed import DeviceFeed
from kinosplat.scenes.frame_cache import FrameCache, default_cache_bytes
from kinosplat.scenes.prefetch import Fetcher
from kinosplat.scenes.scene import ImageSource, View
from kinosplat.scenes.video import VideoFrame

FILL_AHEAD = 64
"""Pictures that are asked for together when the device is filled."""

__all__ = ["FrameLoader", "LoadedBatch", "LoadedFrame", "default_cache_bytes"]


@dataclass(frozen=True)
class LoadedBatch:
    """Pictures of one size, on the loader's device; not to be written to."""

    pixels: tuple[Tensor, ...]
    """(H, W, 3 or 4) uint8 sRGB of each picture, not multiplied with the alpha in the fourth channel."""
    mask_pixels: tuple[Tensor | None, ...]
    """(H, W) uint8 of each view that has a mask: 0 is outside."""

    @property
    def images(self) -> Tensor:
        """(B, H, W, 3) float32 sRGB in [0, 1], not multiplied with alpha."""
        return _stacked([frame if frame.shape[2] == 3 else frame[..., :3] for frame in self.pixels]) / 255

    @property
    def alphas(self) -> Tensor | None:
        """(B, H, W) float32 in [0, 1] when at least one of the pictures has an alpha channel; 1 for those without."""
        return _planes([frame[..., 3] if frame.shape[2] == 4 else None for frame in self.pixels])

    @property
    def masks(self) -> Tensor | None:
        """(B, H, W) float32 in [0, 1] when at least one of the views has a mask: 0 is outside; 1 for those without."""
        return _planes(self.mask_pixels)


@dataclass(frozen=True)
class LoadedFrame:
    """One picture, on the loader's device."""

    image: Tensor
    """(H, W, 3) float32 sRGB in [0, 1], not multiplied with alpha."""
    alpha: Tensor | None
    """(H, W) float32 in [0, 1], the picture's own fourth channel."""
    mask: Tensor | None
    """(H, W) float32 in [0, 1], from the view's mask: 0 is outside."""

    @property
    def foreground(self) -> Tensor | None:
        """(H, W) float32: what belongs to the object, by mask or alpha or both; None when neither is there."""
        if self.mask is None or self.alpha is None:
            return self.mask if self.alpha is None else self.alpha
        return self.mask * self.alpha


@dataclass(frozen=True)
class RawFrame:
    """One picture as it lies in the cache; not to be written to."""

    pixels: NDArray[np.uint8]
    """(H, W, 3 or 4)."""
    mask: NDArray[np.uint8] | None
    """(H, W)."""


class FrameLoader:
    """Pictures of `views` by their place in that sequence; a context manager that stops its workers."""

    def __init__(
        self,
        views: Sequence[View],
        *,
        cache_bytes: int | None = None,
        n_workers: int = 2,
        device: torch.device | str = "cpu",
        device_cache_bytes: int = 0,
    ) -> None:
        """`cache_bytes` defaults to a quarter of the free memory; `device_cache_bytes` lets pictures stay on a CUDA
        device as well.
        """
        if not views:
            raise ValueError("views must hold at least one view.")
        if n_workers < 1:
            raise ValueError(f"n_workers must be at least 1, got {n_workers}.")
        self.views = views
        self.device = torch.device(device)
        sources: dict[ImageSource, int] = {}
        n_bytes: list[int] = []

        def key_of(source: ImageSource, size: int) -> int:
            if source not in sources:
                sources[source] = len(sources)
                n_bytes.append(size)
            return sources[source]

        self._image_keys = [key_of(view.image, view.camera.width * view.camera.height * 3) for view in views]
        self._mask_keys = [
            None if view.mask is None else key_of(view.mask, view.camera.width * view.camera.height) for view in views
        ]
        self.cache = FrameCache(default_cache_bytes() if cache_bytes is None else cache_bytes)
        self._fetcher = Fetcher(list(sources), n_bytes, self.cache, n_workers)
        self._feed: DeviceFeed | None = None
        self._all_fit_on_device = False
        if self.device.type == "cuda":
            self._feed = DeviceFeed(self._read, self.device, device_cache_bytes)
            # A fourth channel is not known before a picture is read.
            largest = sum(view.camera.width * view.camera.height * (4 if view.mask is None else 5) for view in views)
            has_videos = any(isinstance(view.image, VideoFrame) for view in views)
            self._all_fit_on_device = largest <= device_cache_bytes and not has_videos

    def __enter__(self) -> FrameLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.views)

    def close(self) -> None:
        """Stop the workers; pictures cannot be asked for afterwards."""
        self._fetcher.close()
        if self._feed is not None:
            self._feed.close()

    def prefetch(self, indices: Sequence[int]) -> None:
        """Say which views will be asked for next, soonest first; replaces what was said before and returns at once."""
        if self._feed is not None:
            indices = [index for index in indices if not self._feed.has([index])]
        self._fetcher.want([key for index in indices for key in self._keys(index)])

    def prefetch_all(self) -> None:
        """Have all pictures loaded in the background, in their order, if the cache has room for all of them."""
        if self._fetcher.all_fit:
            self.prefetch(range(len(self.views)))

    @property
    def is_filled(self) -> bool:
        """Whether all pictures are on the device to stay, so that nobody has to say what comes next."""
        return self._feed is not None and self._feed.n_at_hand == len(self.views)

    def fill_device(self) -> None:
        """Bring all pictures to the CUDA device now, if all of them may stay there; else, and with videos, do nothing.

        One after the other as the steps ask for them, with a change of threads for each, they would hold up the first
        steps for longer than it takes to read them all.
        """
        if (
            self._feed is None
            or not self._all_fit_on_device
            or any(isinstance(v.image, VideoFrame) for v in self.views)
        ):
            return
        indices = range(len(self.views))
        try:
            for index in indices:
                if index % FILL_AHEAD == 0:
                    self.prefetch(indices[index : index + 2 * FILL_AHEAD])
                if not self._feed.has([index]):
                    self._feed.keep(index, self._read(index))
        except torch.OutOfMemoryError:
            # Somebody else took the room; the pictures come one by one then.
            self.release_device()

    def release_device(self) -> int:
        """Let no picture stay on the CUDA device from now on, for want of memory; returns the bytes given back."""
        self._all_fit_on_device = False
        return 0 if self._feed is None else self._feed.release()

    def get(self, index: int) -> LoadedFrame:
        """Picture, alpha and mask of view `index`, waiting for them if need be."""
        batch = self._on_device([self._read(index)])
        alphas, masks = batch.alphas, batch.masks
        return LoadedFrame(batch.images[0], None if alphas is None else alphas[0], None if masks is None else masks[0])

    def get_batch(self, indices: Sequence[int], upcoming: Sequence[Sequence[int]] = ()) -> LoadedBatch:
        """Pictures of several views of one size.

        On a CUDA device the `upcoming` batches start on their way there, through pinned memory and on a stream of their
        own.
        """
        sizes = {(self.views[index].camera.width, self.views[index].camera.height) for index in indices}
        if len(sizes) != 1:
            raise ValueError(f"A batch must hold views of one size, got {len(sizes)} sizes.")
        if self._feed is not None:
            pixels, masks = self._feed.batch(indices, upcoming)
            return LoadedBatch(tuple(pixels), tuple(masks))
        return self._on_device([self._read(index) for index in indices])

    def _on_device(self, frames: Sequence[RawFrame]) -> LoadedBatch:
        return LoadedBatch(
            tuple(torch.from_numpy(frame.pixels).to(self.device) for frame in frames),
            tuple(None if frame.mask is None else torch.from_numpy(frame.mask).to(self.device) for frame in frames),
        )

    def _keys(self, index: int) -> list[int]:
        mask = self._mask_keys[index]
        return [self._image_keys[index]] if mask is None else [self._image_keys[index], mask]

    def _read(self, index: int) -> RawFrame:
        view = self.views[index]
        pixels, *masks = self._fetcher.take(self._keys(index))
        if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
            raise ValueError(f"{view.image.description} must have shape (H, W, 3 or 4), got {pixels.shape}.")
        for source, frame in zip((view.image, view.mask), (pixels, *masks), strict=False):
            if frame.shape[:2] != (view.camera.height, view.camera.width) and source is not None:
                raise InputError(
                    f"{source.description} is {frame.shape[1]}x{frame.shape[0]} pixels but its camera is "
                    f"{view.camera.width}x{view.camera.height}; scale one of the two so that they agree."
                )
        return RawFrame(pixels, masks[0].reshape(pixels.shape[:2]) if masks else None)


def _planes(planes: Sequence[Tensor | None]) -> Tensor | None:
    """(B, H, W) floats with 1 where a picture has no such plane; None when none has."""
    given = next((plane for plane in planes if plane is not None), None)
    if given is None:
        return None
    return _stacked([torch.full_like(given, 255) if plane is None else plane for plane in planes]) / 255


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Like torch.stack, but a single tensor costs no copy."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))
