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
from kinosplat.compression.rounding import COARSEST_LOSS, OVERHEAD_BYTES, TARGET_MARGIN
from kinosplat.compression.size import size_words
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
    n = len(pipeline.gaussians)
    keep = (TARGET_MARGIN * target - OVERHEAD_BYTES) / (BYTES_A_GAUSSIAN * n)
    if keep < LEAST_KEPT:
        raise InputError(
            f"--target-size {size_words(target)} is out of reach for {n:,} Gaussians; "
            f"ask for at least {size_words(LEAST_KEPT * BYTES_A_GAUSSIAN * n + 2 * OVERHEAD_BYTES)}."
        )
    report = pipeline.run(replace(settings, keep=min(keep, 1.0)), target=target)
    met = f"size bound met: {size_words(report.stages[-1].n_bytes)} of {size_words(target)}"
    if bound is not None:
        met += f"; loss bound {bound:g} dB " + ("met" if report.loss <= bound else f"missed with {report.loss:.2f} dB")
    return replace(report, bound=met)


def meet_loss(pipeline: Pipeline, settings: Resolved, bound: float) -> CompressReport:
    """The smallest file found whose decoded loss is at most `bound` decibels."""
    rounds = _rounds_within(pipeline, settings, (1.0 - ROUNDING_SHARE) * bound)
    rounding = min(TUNING_RECOVERS * (bound - _loss(pipeline, rounds[-1][1])), COARSEST_LOSS)
    reports = (pipeline.first, *(report for _, report in rounds[1:]))
    met: CompressReport | None = None
    file, fine_enough, too_coarse = b"", 0.0, math.inf
    for _ in range(ROUNDING_RUNS if "quantise" in settings.stages else 1):
        last = pipeline.finish(rounds[-1][0], reports, replace(settings, rounding_loss=rounding))
        if last.loss <= bound:
            if met is None or last.stages[-1].n_bytes < met.stages[-1].n_bytes:
                met, file = last, pipeline.file.path.read_bytes()
            if last.loss >= CLOSE_ENOUGH * bound:
                break
            fine_enough = rounding
        else:
            too_coarse = rounding
        if math.isinf(too_coarse):
            rounding *= 2.0
        elif fine_enough > 0.0:
            rounding = math.sqrt(fine_enough * too_coarse)
        else:
            # What rounding cost is about proportional to what it was allowed to.
            before = _loss(pipeline, rounds[-1][1])
            rounding *= min(max(0.9 * (bound - before) / (last.loss - before), SMALLEST_CUT), LARGEST_CUT)
    if met is None:
        return replace(last, bound=f"loss bound {bound:g} dB missed; train longer or allow more")
    pipeline.file.path.write_bytes(file)
    return replace(met, bound=f"loss bound met: {met.loss:.2f} of {bound:g} dB")


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
