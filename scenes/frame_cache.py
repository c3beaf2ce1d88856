"""Pictures kept in memory up to a number of bytes.

The limit is hard: a picture that does not fit without dropping one that is about to be used is not kept. Not locked;
`Fetcher` does that.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Container, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FREE_MEMORY_SHARE = 0.25
"""Share of the free memory that pictures take by default; the rest is for the trainer, and for whoever else is on the
machine.
"""


class FrameCache:
    """Least recently used pictures go first, except those the caller names."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.n_bytes = 0
        self._frames: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    def __contains__(self, key: int) -> bool:
        return key in self._frames

    def __len__(self) -> int:
        return len(self._frames)

    def get(self, key: int) -> NDArray[np.uint8] | None:
        """The picture, which now counts as the most recently used one, or None."""
        frame = self._frames.get(key)
        if frame is not None:
            self._frames.move_to_end(key)
        return frame

    def has_room(self, n_bytes: int) -> bool:
        """Whether `n_bytes` more fit without dropping anything."""
        return self.n_bytes + n_bytes <= self.limit_bytes

    def could_take(self, n_bytes: int, keep: Iterable[int]) -> bool:
        """Whether `n_bytes` more fit when everything is dropped but the pictures in `keep`."""
        kept = sum(self._frames[key].nbytes for key in keep if key in self._frames)
        return kept + n_bytes <= self.limit_bytes

    def put(self, key: int, frame: NDArray[np.uint8], keep: Container[int] = ()) -> bool:
        """Keep a picture, dropping the least recently used that are not in `keep`; False when there is no room for it
        even so.
        """
        if key in self._frames:
            return True
        dropped: list[int] = []
        n_freed = 0
        for old in self._frames:
            if self.n_bytes - n_freed + frame.nbytes <= self.limit_bytes:
                break
            if old not in keep:
                dropped.append(old)
                n_freed += self._frames[old].nbytes
        if self.n_bytes - n_freed + frame.nbytes > self.limit_bytes:
            return False
        for old in dropped:
            del self._frames[old]
        self._frames[key] = frame
        self.n_bytes += frame.nbytes - n_freed
        return True


def free_memory_bytes() -> int:
    """Memory that is free now: what the kernel calls available, or what the container's limit leaves, if less."""
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    meminfo, limit, used = (
        Path(name) for name in ("/proc/meminfo", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current")
    )
    if meminfo.exists():
        free += [int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if "MemAvailable:" in line]
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        free.append(max(int(text) - int(used.read_text()), 0))
    return min(free)


def default_cache_bytes() -> int:
    """A quarter of the memory that is free now."""
    return int(free_memory_bytes() * FREE_MEMORY_SHARE)
