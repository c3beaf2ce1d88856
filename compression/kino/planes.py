"""Integers as byte planes, each its own zstd frame.

The plane of byte b of component c holds that byte of every Gaussian in turn. One frame a plane lets zstd's Huffman
tables fit each plane: measured on quantised bell curves it stays within 2% of their entropy, where one frame for all
planes loses 5 to 10%. Reading refuses a frame whose declared size is not the expected one before anything is
decompressed.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import zstandard
from numpy.typing import NDArray

assert sys.byteorder == "little", "kinosplat reads and writes .kino files on little-endian machines only."

_LENGTH = struct.Struct("<I")
_MAX_WINDOW_BYTES = 1 << 27  # what zstd itself accepts without being asked for more


BEST_LEVEL = 19
QUICK_LEVEL = 1
"""Says which of several forms of the same integers is the smallest: within 5% of what the best level gives, in a tenth
of its time.
"""
WORTH_THREADS = 1 << 16
"""Bytes from which planes are compressed side by side."""


def compress(data: bytes, level: int = BEST_LEVEL) -> bytes:
    """One zstd frame that declares its content size and carries no checksum of its own."""
    return zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False).compress(data)


def compress_all(planes: Sequence[bytes], level: int) -> list[bytes]:
    """A frame of each plane, by all cores; the bytes do not depend on how many there are."""
    if len(planes) < 2 or sum(map(len, planes)) < WORTH_THREADS:
        return [compress(plane, level) for plane in planes]
    with ThreadPoolExecutor(min(len(planes), os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda plane: compress(plane, level), planes))


def decompress(frame: bytes | memoryview, n_bytes: int) -> bytes:
    """Content of one zstd frame that must be exactly `n_bytes` long; ValueError otherwise."""
    try:
        parameters = zstandard.get_frame_parameters(frame)
        if parameters.content_size != n_bytes or parameters.dict_id != 0:
            raise ValueError("a stream is not of its declared size")
        if parameters.window_size > max(_MAX_WINDOW_BYTES, n_bytes):
            raise ValueError("a stream asks for too large a window")
        if n_bytes == 0:
            return b""
        content = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompress(
            frame, max_output_size=n_bytes, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise ValueError("a stream is damaged") from error
    if len(content) != n_bytes:
        raise ValueError("a stream is not of its declared size")
    return content


def write_planes(integers: NDArray[np.uint64], n_bytes: int, *, delta: bool, level: int = BEST_LEVEL) -> bytes:
    """Streams of (N, C) unsigned integers below 2^(8 `n_bytes`): for each component, for each byte from the lowest,
    length and frame.
    """
    if delta and len(integers):
        integers = integers - np.concatenate([np.zeros_like(integers[:1]), integers[:-1]])
    octets = np.ascontiguousarray(integers.T).view(np.uint8).reshape(integers.shape[1], len(integers), 8)
    planes = [np.ascontiguousarray(component[:, byte]).tobytes() for component in octets for byte in range(n_bytes)]
    return b"".join(_LENGTH.pack(len(frame)) + frame for frame in compress_all(planes, level))


def pack_pairs(integers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """(N, ceil(C / 2)) bytes of (N, C) integers below 16: the first of two in the lower half.

    A Huffman code spends a bit on every symbol; where most integers are the same, two of them together spend far less.
    """
    even = integers[:, 0::2]
    odd = np.zeros_like(even)
    odd[:, : integers.shape[1] // 2] = integers[:, 1::2]
    return even | (odd << np.uint64(4))


def unpack_pairs(octets: NDArray[np.uint64], n_components: int) -> NDArray[np.uint64]:
    """The inverse of `pack_pairs`: (N, n_components)."""
    both = np.stack([octets & np.uint64(15), octets >> np.uint64(4)], axis=2)
    return both.reshape(len(octets), -1)[:, :n_components]


class PayloadCursor:
    """Reads one chunk's payload from front to back; ValueError where it ends too early."""

    def __init__(self, payload: bytes | memoryview) -> None:
        self._rest = memoryview(payload)

    def take(self, n_bytes: int) -> memoryview:
        """The next `n_bytes`."""
        if n_bytes > len(self._rest):
            raise ValueError("a chunk ends inside a stream")
        piece, self._rest = self._rest[:n_bytes], self._rest[n_bytes:]
        return piece

    def floats(self, count: int) -> NDArray[np.float64]:
        """The next `count` float32, as float64; they must be finite."""
        with np.errstate(invalid="ignore"):  # a damaged number may be a signalling NaN; it is refused below
            values = np.frombuffer(self.take(4 * count), "<f4").astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("a chunk has a range that is not finite")
        return values

    def plane(self, n: int) -> NDArray[np.uint8]:
        """The next plane: (n,) bytes."""
        (length,) = _LENGTH.unpack(self.take(4))
        return np.frombuffer(decompress(self.take(length), n), np.uint8)

    def integers(self, n: int, n_components: int, n_bytes: int, *, delta: bool) -> NDArray[np.uint64]:
        """The next attribute's integers: (n, n_components)."""
        values = np.zeros((n_components, n), np.uint64)
        for component in range(n_components):
            for byte in range(n_bytes):
                values[component] |= self.plane(n).astype(np.uint64) << np.uint64(8 * byte)
        if delta:
            values = np.cumsum(values, axis=1, dtype=np.uint64)
            if n_bytes < 8:
                values &= np.uint64((1 << (8 * n_bytes)) - 1)
        return values.T

    @property
    def n_left(self) -> int:
        """Bytes not yet read."""
        return len(self._rest)

    def skip(self, n_planes: int, n_bytes: int) -> None:
        """Pass over `n_bytes` and then `n_planes` planes."""
        self.take(n_bytes)
        for _ in range(n_planes):
            (length,) = _LENGTH.unpack(self.take(4))
            self.take(length)

    def finish(self) -> None:
        """Nothing may be left over."""
        if len(self._rest):
            raise ValueError("a chunk is longer than its streams")
