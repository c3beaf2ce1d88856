"""Something a button starts, and stops when it is clicked again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Activity:
    """Goes on until it is done, or until it is asked for a second time."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._lock = threading.Lock()

    @property
    def is_going(self) -> bool:
        """Whether it goes on."""
        return self._lock.locked()

    @contextmanager
    def going(self) -> Iterator[bool]:
        """True where it may begin; False, after `stop` was set, where it goes on already."""
        if not self._lock.acquire(blocking=False):
            self.stop.set()
            yield False
            return
        try:
            self.stop.clear()
            yield True
        finally:
            self._lock.release()
