"""Ctrl-C: taken at a moment when everything is consistent, between two steps, and reported with the run's folder."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C in a run that can be resumed: from its last checkpoint, or from its beginning where there is none."""

    def __init__(self, run_dir: Path) -> None:
        """`run_dir` is the folder of the run."""
        super().__init__()
        self.run_dir = run_dir


class Interrupt:
    """Context manager that notes the first Ctrl-C instead of raising; a second one raises KeyboardInterrupt at once.

    Outside of the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._in_main_thread = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Interrupt:
        if self._in_main_thread:
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._in_main_thread:
            signal.signal(signal.SIGINT, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
