"""Pictures on their way to a CUDA device: pinned memory, a stream of their own, a thread that starts the copies ahead
of time.

The consumer's stream waits for a copy by an event, so the host never does. Pictures stay on the device up to a number
of bytes; one that is there costs no thread and no lock any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class HostFrame(Protocol):
    """What is copied: pixels (H, W, 3 or 4) uint8 and maybe a mask (H, W) uint8."""

    @property
    def pixels(self) -> NDArray[np.uint8]: ...

    @property
    def mask(self) -> NDArray[np.uint8] | None: ...


@dataclass(frozen=True)
class _DeviceFrame:
    pixels: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class _Staged:
    frames: list[_DeviceFrame]
    copied: torch.cuda.Event


class DeviceFeed:
    """Copies the pictures that `read` gives to a CUDA device; errors of `read` are raised by `batch`."""

    def __init__(self, read: Callable[[int], HostFrame], device: torch.device, cache_bytes: int) -> None:
        self._read = read
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device-feed")
        self._staged: dict[tuple[int, ...], Future[_Staged]] = {}
        self._resident: dict[int, _DeviceFrame] = {}
        self._free_bytes = cache_bytes
        self._at_hand: dict[int, _DeviceFrame] = {}
        """Resident pictures that the consumer's stream has waited for already."""
        self._consumer: int | None = None
        """That stream."""

    def close(self) -> None:
        """Forget what has not begun, and wait for the copy under way."""
        self._thread.shutdown(cancel_futures=True)

    def keep(self, index: int, frame: HostFrame) -> None:
        """Copy one picture to the device now, to stay there; for whoever has memory for all of them and brings them at
        once, before the first batch.
        """
        copies = [torch.from_numpy(a).to(self._device) for a in (frame.pixels, frame.mask) if a is not None]
        self._consumer = torch.cuda.current_stream(self._device).cuda_stream
        self._resident[index] = self._at_hand[index] = _DeviceFrame(copies[0], copies[1] if len(copies) > 1 else None)
        self._free_bytes -= sum(copy.nbytes for copy in copies)

    def release(self) -> int:
        """Let no picture stay on the device from now on; returns the bytes that this gives back."""
        # One that is on its way would stay.
        wait([staged for staged in self._staged.values() if not staged.cancel()])
        frames = list(self._resident.values())
        self._staged, self._resident, self._at_hand, self._free_bytes = {}, {}, {}, 0
        return sum(t.nbytes for frame in frames for t in (frame.pixels, frame.mask) if t is not None)

    def batch(
        self, indices: Sequence[int], upcoming: Sequence[Sequence[int]]
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Pixels and masks of `indices` as uint8 tensors, ready on the current stream; starts the copies of the
        `upcoming` batches.
        """
        stream = torch.cuda.current_stream(self._device)
        if stream.cuda_stream != self._consumer:
            self._at_hand.clear()
            self._consumer = stream.cuda_stream
        self._start_copies([tuple(indices), *(tuple(batch) for batch in upcoming)])
        if self.has(indices):
            frames = [self._at_hand[index] for index in indices]
        else:
            frames = self._wait_for(tuple(indices), stream)
        return [frame.pixels for frame in frames], [frame.mask for frame in frames]

    def has(self, indices: Sequence[int]) -> bool:
        """Whether all of these pictures are on the device, ready for the stream that asked last."""
        return all(index in self._at_hand for index in indices)

    @property
    def n_at_hand(self) -> int:
        """Pictures on the device, ready for the stream that asked last."""
        return len(self._at_hand)

    def _start_copies(self, asked: list[tuple[int, ...]]) -> None:
        """Stage the batches that are not at hand; what is no longer asked for is forgotten."""
        before = self._staged
        self._staged = {}
        for key in asked:
            if key not in self._staged and not self.has(key):
                self._staged[key] = before.get(key) or self._thread.submit(self._stage, key)

    def _wait_for(self, indices: tuple[int, ...], stream: torch.cuda.Stream) -> list[_DeviceFrame]:
        staged = self._staged.pop(indices).result()
        stream.wait_event(staged.copied)
        for index, frame in zip(indices, staged.frames, strict=True):
            for tensor in (frame.pixels, frame.mask):
                if tensor is not None:
                    tensor.record_stream(stream)
            if index in self._resident:
                self._at_hand[index] = frame
        return staged.frames

    def _stage(self, indices: tuple[int, ...]) -> _Staged:
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            frames = [self._on_device(index) for index in indices]
            copied = torch.cuda.Event()
            copied.record(self._stream)
        return _Staged(frames, copied)

    def _on_device(self, index: int) -> _DeviceFrame:
        if index in self._resident:
            return self._resident[index]
        frame = self._read(index)
        copy = _DeviceFrame(self._copy(frame.pixels), None if frame.mask is None else self._copy(frame.mask))
        n_bytes = frame.pixels.nbytes + (0 if frame.mask is None else frame.mask.nbytes)
        if n_bytes <= self._free_bytes:
            self._resident[index] = copy
            self._free_bytes -= n_bytes
        return copy

    def _copy(self, pixels: NDArray[np.uint8]) -> Tensor:
        # The allocator of pinned memory hands a block out again only when the copies from it are done.
        pinned = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True)
        pinned.numpy()[...] = pixels
        return pinned.to(self._device, non_blocking=True)
