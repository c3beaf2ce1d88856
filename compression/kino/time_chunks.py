"""Which Gaussians go into one chunk: those that are seen at about the same times, then neighbours in space.

A moving Gaussian is visible while opacity * fade reaches 1/255, below which the renderer skips it. Its level is one
halving of the clip more than the finest whose segments are as long as that interval, its chunk the segment in which it
begins (a loose interval tree, so nothing is cut and a Gaussian is in one chunk only). Segments with few Gaussians are
merged into their parent.

That one level more, and 2048 instead of 4096 Gaussians in a segment, let the first frame of made-up clips of 5 seconds,
seen for about a third of it, be there after 67% of the file instead of 79%, for 0.3 to 0.8% more bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinosplat.compression.morton import morton_order

MIN_VISIBLE = 1.0 / 256.0  # a little under the renderer's 1/255, so that rounding never hides anything
MAX_LEVEL = 10
FINER = 1
"""Levels below the one whose segments are as long as what is in them."""
CHUNK_GAUSSIANS = (2048, 65536)
"""Gaussians in a chunk of moving ones at least, where there is a parent to merge with, and in any chunk at most."""


@dataclass(frozen=True)
class TimeChunk:
    """Gaussians of one chunk in their order."""

    rows: NDArray[np.int64]
    """(n,) positions in the set."""
    first_time: float
    """Seconds; -inf for still Gaussians."""
    last_time: float
    """Seconds; +inf for still Gaussians."""
    is_still: bool
    """Whether the time attributes are left out."""


def visible_interval(
    opacity_logits: NDArray[np.float32], time_centres: NDArray[np.float32], log_durations: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and last second (N,) at which each Gaussian can be seen; infinite for still ones."""
    # log(opacity / MIN_VISIBLE) without overflow: log sigmoid(x) = -log(1 + exp(-x)).
    margin = -np.logaddexp(0.0, -opacity_logits.astype(np.float64)) - np.log(MIN_VISIBLE)
    half = np.sqrt(2.0 * np.maximum(margin, 0.0) + 1e-6) * np.exp(log_durations.astype(np.float64))
    return time_centres - half, time_centres + half


def time_chunks(
    means: NDArray[np.float32],
    interval: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
    is_still: NDArray[np.bool_],
    *,
    duration: float,
    least: int = CHUNK_GAUSSIANS[0],
    most: int = CHUNK_GAUSSIANS[1],
) -> list[TimeChunk]:
    """Chunks of at most `most` Gaussians in order of their first time, still ones first; rows of a chunk in Morton
    order.
    """
    chunks: list[TimeChunk] = []
    still_rows = np.flatnonzero(is_still)
    for rows in _pieces(still_rows, means, most):
        chunks.append(TimeChunk(rows, -np.inf, np.inf, True))
    if interval is None or len(still_rows) == len(means):
        return chunks
    first, last = interval
    segment = _segments(first, last, np.flatnonzero(~is_still), duration, least)
    moving: list[TimeChunk] = []
    for rows_of_segment in segment:
        for rows in _pieces(rows_of_segment, means, most):
            low = np.nextafter(np.float32(first[rows].min()), np.float32(-np.inf))
            high = np.nextafter(np.float32(last[rows].max()), np.float32(np.inf))
            moving.append(TimeChunk(rows, float(low), float(high), False))
    return chunks + sorted(moving, key=lambda chunk: chunk.first_time)


def _segments(
    first: NDArray[np.float64], last: NDArray[np.float64], rows: NDArray[np.int64], duration: float, least: int
) -> list[NDArray[np.int64]]:
    if duration <= 0:
        return [rows]
    low, high = np.clip(first[rows], 0, duration), np.clip(last[rows], 0, duration)
    length = np.maximum(high - low, duration / 2**MAX_LEVEL)
    level = (FINER + np.floor(np.log2(duration / length)).astype(np.int64)).clip(0, MAX_LEVEL)
    position = np.minimum(low / duration * 2.0**level, 2.0**level - 1).astype(np.int64)
    for finer in range(MAX_LEVEL, 0, -1):
        at_level = np.flatnonzero(level == finer)
        counts = np.bincount(position[at_level], minlength=1)
        sparse = at_level[counts[position[at_level]] < least]
        level[sparse] -= 1
        position[sparse] //= 2
    keys = level * 2 ** (MAX_LEVEL + 1) + position
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    return [rows[group] for group in np.split(order, starts[1:])]


def _pieces(rows: NDArray[np.int64], means: NDArray[np.float32], most: int) -> Iterator[NDArray[np.int64]]:
    if len(rows) == 0:
        return
    ordered = rows[morton_order(means[rows])]
    yield from np.array_split(ordered, -(-len(rows) // most))
