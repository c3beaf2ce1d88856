"""Where a run stands: the step, and the fraction of the run that is over.

Learning rates, the warm-up of spherical harmonics and densification follow `progress`, never the step number, so that
one setting serves runs of any length. Progress is step / steps; with a time limit it is the larger of that and elapsed
/ time limit, so a run that will be cut off by the clock still decays to its end. A run bounded by steps alone is
therefore a pure function of the step and resumes bitwise; one bounded by time depends on the machine and does not. A
run resumed with more steps takes up the schedule of a run of that length at the step it stopped at.

Published learning rates are for runs of 30 000 steps. Shorter runs have to go as far in fewer steps: their rates are
multiplied by sqrt(30 000 / steps). On the shipped scene at 128x96 this took 800 steps from 24.7 to 28.1 dB.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

REFERENCE_STEPS = 30_000
"""Length of the runs that learning rates are given for."""
MOST_HASTE = 8.0
"""Factor on the learning rates at most: beyond it Gaussians are thrown about."""
TRUSTED_STEPS = 20
"""Steps a session has to have taken before its speed tells how many a time limit leaves."""


@dataclass(frozen=True)
class Moment:
    """One step of a run."""

    step: int
    """Counted from 0."""
    progress: float
    """Fraction of the run that is over when the step starts, in [0, 1]."""
    following: float
    """The same for the next step; `progress <= following`."""
    haste: float = 1.0
    """Factor on the learning rates of the scene, larger than 1 in short runs."""

    def crosses(self, times_a_run: int) -> bool:
        """Whether this step is one of `times_a_run` that lie evenly over the run, the last one at its end."""
        return math.floor(self.following * times_a_run) > math.floor(self.progress * times_a_run)

    def within(self, first: float, last: float) -> bool:
        """Whether the step lies in the part [first, last) of the run."""
        return first <= self.progress < last


class Clock:
    """Turns steps into moments and says when the run is over; `elapsed` counts over all sessions of a run."""

    def __init__(self, steps: int, time_limit: float | None, elapsed: float = 0.0, progress: float = 0.0) -> None:
        """`elapsed` seconds and `progress` are those a resumed run had reached."""
        self.steps = steps
        self.time_limit = time_limit
        self.progress = progress
        self._started = time.monotonic() - elapsed
        self._first: tuple[int, float] | None = None

    @property
    def elapsed(self) -> float:
        """Seconds of wall time the run has taken."""
        return time.monotonic() - self._started

    def exclude(self, seconds: float) -> None:
        """Do not count `seconds` that have just passed, such as a pause in the viewer."""
        self._started += seconds

    def moment(self, step: int) -> Moment:
        """The moment of `step`; asked once a step, in order."""
        haste = min(max(math.sqrt(REFERENCE_STEPS / self._expected_steps(step)), 1.0), MOST_HASTE)
        if self.time_limit is None:
            moment = Moment(step, min(step / self.steps, 1.0), min((step + 1) / self.steps, 1.0), haste)
        else:
            following = max((step + 1) / self.steps, self.elapsed / self.time_limit, self.progress)
            moment = Moment(step, self.progress, min(following, 1.0), haste)
        self.progress = moment.following
        return moment

    def is_over(self, step: int) -> bool:
        """Whether `step` steps, or the time there is, are used up."""
        return step >= self.steps or (self.time_limit is not None and self.elapsed >= self.time_limit)

    def _expected_steps(self, step: int) -> float:
        """How many steps the whole run will have, going by the speed of this session where time is the bound."""
        if self.time_limit is None:
            return self.steps
        now = self.elapsed
        if self._first is None:
            self._first = (step, now)
        first_step, first_elapsed = self._first
        n_done = step - first_step
        if n_done < TRUSTED_STEPS:
            return self.steps
        seconds_a_step = (now - first_elapsed) / n_done
        return min(self.steps, step + max(self.time_limit - now, 0.0) / max(seconds_a_step, 1e-9))
