"""How many primitives there are and how many are alive: a scan that waits for the device, and for whoever renders.

So every session counts on a thread of its own, and only again where the model or the moment is another one.
"""

from __future__ import annotations

import threading
import traceback

from kinosplat.viewer.draw import count_alive
from kinosplat.viewer.renderer import Renderer

EVERY = 2.0
"""Seconds between two counts at least."""


class Census:
    """Counts what it was asked for last; `close` ends the thread."""

    def __init__(self, renderer: Renderer) -> None:
        self.total: int | None = None
        """Primitives of the model, None before they are counted."""
        self.alive: int | None = None
        """Gaussians that are seen at the moment, None where there are none."""
        self._renderer = renderer
        self._wanted: tuple[int, float | None] | None = None
        self._version: int | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="kinosplat-census", daemon=True)
        self._thread.start()

    def ask(self, version: int, moment: float | None) -> None:
        """Count this, if it was not the last that was asked for; returns at once."""
        with self._changed:
            if (version, moment) != self._wanted:
                self._wanted = (version, moment)
                self._changed.notify_all()

    def close(self) -> None:
        """Nobody asks any more; a count that waits for its turn ends by itself."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        counted = None
        while True:
            with self._changed:
                while self._wanted == counted and not self._closed:
                    self._changed.wait()
                if self._closed or self._wanted is None:
                    return
                counted = self._wanted
            try:
                self._count(*counted)
            except Exception:
                traceback.print_exc()
            with self._changed:
                self._changed.wait_for(lambda: self._closed, timeout=EVERY)

    def _count(self, version: int, moment: float | None) -> None:
        with self._renderer.alone() as subject:
            if version != self._version:
                self._version, self.total = version, subject.n_primitives
            gaussians = subject.gaussians()
            self.alive = None if gaussians is None else count_alive(gaussians, moment)
