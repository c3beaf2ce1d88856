"""The last stage: choose how coarsely each parameter is stored, fine-tune through the rounding, write the file, read it
back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from kinosplat.compression.bits import Option, Probe, budget_for, choose, make_plan, measure_options
from kinosplat.compression.config import Resolved
from kinosplat.compression.kino import Metadata, read_kino, write_kino
from kinosplat.compression.prune import prune_to
from kinosplat.compression.quantised import QuantisedGaussians
from kinosplat.compression.report import StageReport
from kinosplat.compression.scores import Scores, score
from kinosplat.compression.surroundings import Surroundings
from kinosplat.compression.tunable import fine_rates
from kinosplat.render.gaussians import Gaussians

TARGET_MARGIN = 0.97
"""Share of a target size that is aimed at, as the bytes of a file are estimated before it is written."""
OVERHEAD_BYTES = 2500
"""Header, index, names of tensors and frames of streams, about."""
FITTING_RUNS = 5
"""Attempts at most to fit a target size."""
IMPORTANCE_VIEWS = 200
"""Views that say what is still seen, and how much."""
COARSEST_LOSS = 2.0
"""Decibels of rounding beyond which fewer Gaussians are the better way to save."""


@dataclass(frozen=True)
class _Measured:
    """A set, and what each way to store each of its parameters loses and costs."""

    gaussians: Gaussians
    importance: Tensor
    options: dict[str, list[Option]]
    training_mse: float

    def choose(self, loss: float, target: int | None) -> dict[str, Option]:
        """The smallest within `loss` decibels; given a target, instead the best of at most so many bytes."""

        def at(decibels: float) -> dict[str, Option]:
            return choose(self.options, budget_for(self.training_mse, decibels))

        return at(loss) if target is None else _largest_within(at, TARGET_MARGIN * target - OVERHEAD_BYTES)

    def most_important(self, share: float) -> Gaussians:
        """That part of the set with the largest blend weight."""
        n_kept = max(1, int(share * len(self.gaussians)))
        return self.gaussians.select(prune_to(Scores(self.importance, self.importance, None), n_kept))


class FileStage:
    """Writes sets to one path."""

    def __init__(self, path: Path, surroundings: Surroundings, metadata: Metadata) -> None:
        self.path = path
        self._surroundings = surroundings
        self._metadata = metadata
        self._rates = fine_rates(surroundings)
        self._last: tuple[Gaussians, _Measured] | None = None

    def write(
        self, gaussians: Gaussians, settings: Resolved, target: int | None = None
    ) -> tuple[StageReport, dict[str, str]]:
        """Write canonical `gaussians`, rounded; within `target` bytes if that is given.

        Gives the report, and in words how each parameter is stored.
        """
        began = time.monotonic()
        measured = self._measure(gaussians)
        chosen = measured.choose(settings.rounding_loss, target)
        n_bytes = self._write_tuned(measured.gaussians, chosen, 2 * settings.tune_steps)
        for attempt in range(1, FITTING_RUNS + 1):
            if target is None or n_bytes <= target:
                break
            # The bytes that the estimate missed are paid for with the least important Gaussians.
            share = (TARGET_MARGIN**attempt * target - OVERHEAD_BYTES) / max(n_bytes - OVERHEAD_BYTES, 1)
            measured = self._measure(measured.most_important(max(share, 0.1)))
            chosen = measured.choose(settings.rounding_loss, target)
            n_bytes = self._write_tuned(measured.gaussians, chosen, settings.tune_steps)
        seconds = time.monotonic() - began
        coding = {name: _coding_words(option) for name, option in chosen.items()}
        return self._report(n_bytes, seconds, ", ".join(f"{name} {words}" for name, words in coding.items())), coding

    def write_exact(self, gaussians: Gaussians) -> tuple[StageReport, dict[str, str]]:
        """Write `gaussians` as float32."""
        began = time.monotonic()
        n_bytes = write_kino(self.path, gaussians, metadata=self._metadata)
        return self._report(n_bytes, time.monotonic() - began, "not rounded"), {}

    def bytes_per_gaussian(self, gaussians: Gaussians, loss: float) -> float:
        """Estimate for a set that is rounded at `loss` decibels."""
        measured = self._measure(gaussians)
        chosen = measured.choose(loss, None)
        return sum(option.n_bytes for option in chosen.values()) / len(measured.gaussians)

    def _report(self, n_bytes: int, seconds: float, note: str) -> StageReport:
        decoded = read_kino(self.path).gaussians.to(self._surroundings.device)
        report = StageReport("file", len(decoded), n_bytes, self._surroundings.evaluate(decoded), seconds, note)
        self._surroundings.say(f"file: {n_bytes:,} bytes, {report.quality.psnr:.2f} dB, {seconds:.0f} s; {note}")
        return report

    def _measure(self, gaussians: Gaussians) -> _Measured:
        """What rounding does to a set; kept until another set is asked about."""
        if self._last is None or self._last[0] is not gaussians:
            # Tuning has left some behind that hardly any view sees any more.
            weight = score(gaussians, self._surroundings, IMPORTANCE_VIEWS).blend_weight
            seen, importance = gaussians.select(weight > 0), weight[weight > 0]
            probe = Probe(seen, self._surroundings)
            options = measure_options(seen, probe, importance, self._surroundings.seed)
            self._last = gaussians, _Measured(seen, importance, options, probe.training_mse)
        return self._last[1]

    def _write_tuned(self, gaussians: Gaussians, chosen: dict[str, Option], steps: int) -> int:
        tunable = QuantisedGaussians(gaussians, make_plan(gaussians, chosen), self._rates)
        self._surroundings.fine_tune(tunable, steps)
        final, codings = tunable.final()
        return write_kino(self.path, final, codings, metadata=self._metadata)


def _largest_within(at: Callable[[float], dict[str, Option]], n_bytes: float) -> dict[str, Option]:
    """The choice that loses least among those of at most `n_bytes`; the coarsest when none is small enough."""
    low, high = math.log(0.005), math.log(COARSEST_LOSS)
    best = at(COARSEST_LOSS)
    for _ in range(20):
        middle = 0.5 * (low + high)
        chosen = at(math.exp(middle))
        if sum(option.n_bytes for option in chosen.values()) <= n_bytes:
            best, high = chosen, middle
        else:
            low = middle
    return best


def _coding_words(option: Option) -> str:
    if option.palette is None:
        return f"{option.bits} bits"
    return "palette " + " x ".join(str(len(book)) for book in option.palette.codebooks)
