"""Looking at a model while it is trained: who may touch it when, and what the page shows of the progress.

The training thread passes `TrainingTurn.pass_by` between two steps. There it lets in those who wait to render, once
each, and stays while training is paused. Rendering never runs beside a step, so nobody sees half a step, and a visitor
who keeps moving gets one picture a step and not all of the time. With nobody waiting it costs microseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

IDLE_SHARE = 0.02
"""Part of the training time that showing a changing model to visitors who do not move may take."""
SHORTEST_REFRESH = 1.0
"""Seconds between two such pictures at least."""


class TrainingTurn:
    """Hands the model back and forth between the training thread and those who render."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._trainer: Literal["away", "stepping", "here"] = "away"
        self._paused = False
        self._n_waiting = 0
        self._n_let_in = 0
        self._in_use = False

    @property
    def is_paused(self) -> bool:
        """Whether training waits to be resumed."""
        return self._paused

    def set_paused(self, paused: bool) -> None:
        """Hold training before its next step, or let it go on."""
        with self._changed:
            self._paused = paused
            self._changed.notify_all()

    def pass_by(self) -> None:
        """Called by the training thread before every step."""
        with self._changed:
            self._trainer = "here"
            self._n_let_in = self._n_waiting
            if self._n_let_in or self._paused:
                self._changed.notify_all()
            while self._n_let_in or self._in_use or self._paused:
                self._changed.wait()
            self._trainer = "stepping"

    def end(self) -> None:
        """Training is over, well or not: the model stays as it is."""
        with self._changed:
            self._trainer = "away"
            self._paused = False
            self._changed.notify_all()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The model for the caller; waits for the step that is being made."""
        with self._changed:
            self._n_waiting += 1
            while self._in_use or not self._is_open():
                self._changed.wait()
            self._n_waiting -= 1
            self._n_let_in = max(0, self._n_let_in - 1)
            self._in_use = True
        try:
            yield
        finally:
            with self._changed:
                self._in_use = False
                self._changed.notify_all()

    def _is_open(self) -> bool:
        """Whether the training thread lets one more in: whoever waited when it came, and anybody while it is paused."""
        return self._trainer == "away" or (self._trainer == "here" and (self._paused or self._n_let_in > 0))


@dataclass
class TrainingWatch:
    """What the page shows of a run; written by the training thread, read by the page."""

    turn: TrainingTurn = field(default_factory=TrainingTurn)
    """Pauses and resumes."""
    state: Literal["running", "finished"] = "running"
    """Whether it goes on."""
    step: int = 0
    """Steps done."""
    steps: int = 0
    """Steps there will be."""
    loss: float = 0.0
    """Of the last report."""
    psnr: float = 0.0
    """dB, of the pictures of the last reported step."""
    held_out_psnr: float | None = None
    """dB, of the last measurement of held-out views."""
    steps_per_second: float = 0.0
    """Since the last report."""
    remaining: float = 0.0
    """Seconds until the end."""
    history: list[tuple[int, float]] = field(default_factory=list)
    """Step and PSNR of every report."""


def refresh_interval(render_seconds: float) -> float:
    """Seconds between two pictures of a changing model for a visitor who does not move."""
    return max(SHORTEST_REFRESH, render_seconds / IDLE_SHARE)
