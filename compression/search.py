"""Bounds: the largest file size, or the largest loss.

A size is met by keeping as many Gaussians as fit at a fixed number of bytes each, and fitting the rounding. A loss is
met from above: a part of the set goes in each round, what is left is tuned, and the last set that was still good enough
is rounded as coarsely as what is left of the bound allows.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from kinosplat.compression.config import Resolved, Stage
from kinosplat.compression.report import CompressReport, StageReport
from kinosplat.compression.rounding import COARSEST_LOSS, TARGET_MARGIN
from kinosplat.compression.size import size_words
from kinosplat.compression.whole import appearing
from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians

if TYPE_CHECKING:
    from kinosplat.compression.pipeline import Pipeline

BYTES_A_GAUSSIAN = 13.0
"""What a Gaussian should take in a file of a given size. With fewer bytes each, more of them are kept, but rounding
costs more than they bring; with more the other way round. Measured in docs/compression.md on still and moving scenes
of SH degree 1 and 3.
"""
LEAST_KEPT = 0.01
"""Fraction below which a target size is called out of reach."""
KEPT_A_ROUND = 0.7
"""Fraction of the set that stays in each round of meeting a loss."""
MOST_ROUNDS = 10
"""Rounds at most; 0.7^10 is 3% of the set."""
ROUNDING_SHARE = 0.5
"""Part of the bound on the loss that is left to rounding."""
ROUNDING_RUNS = 3
"""Files written at most to meet a loss."""
TUNING_RECOVERS = 4.0
"""Rounding may cost so many times what is left of the bound, as tuning through it wins back most (on DTU scan 24, 0.1
of 0.8 dB are left, 0.3 of 1.6 dB)."""
SMALLEST_CUT, LARGEST_CUT = 0.1, 0.5
"""A miss cuts what rounding may cost at least to a half, and not below a tenth."""
CLOSE_ENOUGH = 0.8
"""Part of the bound that a file must use up for the search to end early."""


def meet_size(pipeline: Pipeline, settings: Resolved, target: int, bound: float | None) -> CompressReport:
    """One run whose fraction follows from the size, and whose rounding is then fitted."""
    n, header = len(pipeline.gaussians), pipeline.file.header_bytes(pipeline.gaussians)
    keep = (TARGET_MARGIN * target - header) / (BYTES_A_GAUSSIAN * n)
    if keep < LEAST_KEPT:
        least = (header + LEAST_KEPT * BYTES_A_GAUSSIAN * n) / TARGET_MARGIN
        raise InputError(
            f"--target-size {size_words(target)} is out of reach for {n:,} Gaussians; "
            f"ask for at least {size_words(1.01 * least)}."
        )
    report = pipeline.run(replace(settings, keep=min(keep, 1.0)), target=target)
    n_bytes = report.stages[-1].n_bytes
    met = f"size bound {'met' if n_bytes <= target else 'missed'}: {size_words(n_bytes)} of {size_words(target)}"
    if bound is not None:
        met += f"; loss bound {bound:g} dB " + ("met" if report.loss <= bound else f"missed with {report.loss:.2f} dB")
    return replace(report, bound=met)


def meet_loss(pipeline: Pipeline, settings: Resolved, bound: float) -> CompressReport:
    """The smallest file found whose decoded loss is at most `bound` decibels."""
    rounds = _rounds_within(pipeline, settings, (1.0 - ROUNDING_SHARE) * bound)
    gaussians, before = rounds[-1][0], _loss(pipeline, rounds[-1][1])
    reports = (pipeline.first, *(report for _, report in rounds[1:]))
    search = _RoundingSearch(bound, before)
    met: CompressReport | None = None
    file = b""
    for _ in range(ROUNDING_RUNS):
        last = pipeline.finish(gaussians, reports, replace(settings, rounding_loss=search.allowed))
        if last.loss <= bound and (met is None or last.stages[-1].n_bytes < met.stages[-1].n_bytes):
            met, file = last, pipeline.file.path.read_bytes()
        if CLOSE_ENOUGH * bound <= last.loss <= bound:
            break
        search.tell(last.loss)
    if met is None:
        return replace(last, bound=f"loss bound {bound:g} dB missed; train longer or allow more")
    with appearing(pipeline.file.path) as beside:
        beside.write_bytes(file)
    return replace(met, bound=f"loss bound met: {met.loss:.2f} of {bound:g} dB")


class _RoundingSearch:
    """What rounding may cost on the training views, so that a file loses just less than a bound."""

    def __init__(self, bound: float, before: float) -> None:
        """`before` is what the set has lost before rounding, dB."""
        self.allowed = min(TUNING_RECOVERS * (bound - before), COARSEST_LOSS)
        """Decibels, for the next file."""
        self._bound, self._before = bound, before
        self._fine_enough, self._too_coarse = 0.0, math.inf

    def tell(self, loss: float) -> None:
        """The file lost `loss` decibels with what was allowed."""
        if loss <= self._bound:
            self._fine_enough = self.allowed
        else:
            self._too_coarse = self.allowed
        if math.isinf(self._too_coarse):
            self.allowed *= 2.0
        elif self._fine_enough > 0.0:
            self.allowed = math.sqrt(self._fine_enough * self._too_coarse)
        else:
            # What rounding cost is about proportional to what it was allowed to.
            share = 0.9 * (self._bound - self._before) / (loss - self._before)
            self.allowed *= min(max(share, SMALLEST_CUT), LARGEST_CUT)


def _rounds_within(pipeline: Pipeline, settings: Resolved, bound: float) -> list[tuple[Gaussians, StageReport]]:
    """The input, and every smaller set on the way that lost at most `bound` decibels, with its report.

    Stages other than sampling come first, once; sampling goes on until it costs too much.
    """
    gentle = replace(settings, keep=KEPT_A_ROUND, tune_steps=max(settings.tune_steps // 2, 1))
    once: list[Stage] = [stage for stage in settings.stages if stage not in ("sample", "quantise")]
    again: list[Stage] = ["sample"] * MOST_ROUNDS if "sample" in settings.stages else []
    rounds = [(pipeline.gaussians, pipeline.first)]
    for stage in [*once, *again]:
        gaussians, report = pipeline.stage(stage, rounds[-1][0], gentle)
        if _loss(pipeline, report) > bound:
            break
        rounds.append((gaussians, report))
    return rounds


def _loss(pipeline: Pipeline, report: StageReport) -> float:
    return pipeline.first.quality.psnr - report.quality.psnr
