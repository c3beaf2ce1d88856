"""How long the passes of one call of `rasterize` take: slicing and projection, binning, blending.

Whoever wants to know hands a `PassTimes` over; a backend marks it between its passes, by events on the stream where it
only queues work, by the clock where it works at once. Without one nothing is recorded. Only the native backends mark.
"""

from __future__ import annotations

import time
from typing import Literal, get_args

import torch

Pass = Literal["project", "bin", "blend"]
PASSES: tuple[Pass, ...] = get_args(Pass)
Mark = float | torch.cuda.Event
"""A moment: seconds of the clock, or an event on a stream."""


class PassTimes:
    """Marks of one call: the beginning and the end of every pass, camera by camera where a backend takes them so."""

    def __init__(self) -> None:
        self._marks: list[list[Mark]] = []

    def begin(self) -> None:
        """A camera's passes start now; work on the CPU."""
        self._marks.append([time.perf_counter()])

    def passed(self) -> None:
        """The next pass is done; work on the CPU."""
        self._marks[-1].append(time.perf_counter())

    def events(self, device: torch.device) -> list[torch.cuda.Event]:
        """One for the beginning and the end of each pass of all cameras, to be recorded there by the backend."""
        events = [torch.cuda.Event(enable_timing=True) for _ in range(len(PASSES) + 1)]
        for event in events:
            # torch makes an event known to CUDA when it is first recorded.
            event.record(torch.cuda.current_stream(device))
        self._marks.append(list(events))
        return events

    def seconds(self) -> dict[Pass, float]:
        """Of each pass, all cameras together; empty where no backend marked. Waits for the device."""
        totals: dict[Pass, float] = {}
        for marks in self._marks:
            for name, begin, end in zip(PASSES, marks, marks[1:], strict=False):
                totals[name] = totals.get(name, 0.0) + seconds_between(begin, end)
        return totals


def seconds_between(begin: Mark, end: Mark) -> float:
    """From one mark to another of the same kind; waits for the device to reach it."""
    if isinstance(begin, torch.cuda.Event):
        assert isinstance(end, torch.cuda.Event)
        end.synchronize()
        return 1e-3 * begin.elapsed_time(end)
    assert isinstance(end, float)
    return end - begin
