"""Compression from end to end: stages one after another, each reported, and the search for a size or a loss.

`compress` writes the .kino file and measures what it reads back from it. Bytes of a stage before rounding are those of
its parameters as float32; of the last one, those of the file on disk.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor
from typing_extensions import assert_never

from kinosplat.compression.bits import Option, Probe, budget_for, choose, make_plan, measure_options
from kinosplat.compression.canonical import canonical_axes, canonical_still
from kinosplat.compression.config import CompressConfig, Resolved, Stage, resolve
from kinosplat.compression.kino import Metadata, read_kino, write_kino
from kinosplat.compression.merge import MergingGaussians, cluster_cells
from kinosplat.compression.prune import prune, prune_to
from kinosplat.compression.quantised import QuantisedGaussians
from kinosplat.compression.sample import sample
from kinosplat.compression.scores import Scores, score
from kinosplat.compression.size import parse_loss, parse_size, size_words
from kinosplat.compression.surroundings import Quality, Surroundings
from kinosplat.compression.tunable import TunableGaussians, fine_rates
from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians

TARGET_MARGIN = 0.97
"""Share of a target size that is aimed at, as the bytes of a file are estimated before it is written."""
OVERHEAD_BYTES = 2500
"""Header, index, names of tensors and frames of streams, about."""
FITTING_RUNS = 5
"""Attempts at most to fit a target size once the stages are through."""
SCORING_VIEWS_AGAIN = 200
"""Views that scores are summed over after the first time, when only their order among what was kept matters."""
SEARCH_RUNS = 4
"""Runs of the whole pipeline at most when a loss is the bound."""
COARSEST_LOSS = 2.0
"""Decibels of rounding beyond which fewer Gaussians are the better way to save."""
LEAST_KEPT = 0.01
"""Fraction below which a target size is called out of reach."""


@dataclass(frozen=True)
class StageReport:
    """One line of the report."""

    stage: str
    """Name of the stage; `input` and `file` stand at the ends."""
    n_gaussians: int
    """After the stage."""
    n_bytes: int
    """See the head of this module."""
    quality: Quality
    """On the held-out views."""
    seconds: float
    """Fine-tuning included, measuring not."""
    note: str = ""
    """What was chosen."""


@dataclass(frozen=True)
class CompressReport:
    """What happened, stage by stage."""

    stages: tuple[StageReport, ...]
    """From the input to the file."""
    bound: str
    """Which bound was met, in words."""
    coding: dict[str, str]
    """How each parameter is stored."""

    @property
    def loss(self) -> float:
        """Decibels lost from the input to the decoded file."""
        return self.stages[0].quality.psnr - self.stages[-1].quality.psnr

    @property
    def ratio(self) -> float:
        """Times the file is smaller than the input's parameters."""
        return self.stages[0].n_bytes / max(self.stages[-1].n_bytes, 1)

    def table(self) -> str:
        """Plain lines for people."""
        lines = ["stage        Gaussians        size      PSNR    SSIM  seconds"]
        for s in self.stages:
            quality = f"{s.quality.psnr:6.2f} dB  {s.quality.ssim:.4f}"
            line = f"{s.stage:<11} {s.n_gaussians:>10,}  {size_words(s.n_bytes):>10}  {quality}  {s.seconds:7.1f}"
            lines.append(f"{line}  {s.note}".rstrip())
        lines.append(f"{self.ratio:.0f} times smaller, {self.loss:.2f} dB lost; {self.bound}")
        return "\n".join(lines)


def parameter_bytes(gaussians: Gaussians) -> int:
    """Bytes of all parameters as float32, as a PLY would hold them without its unused normals."""
    return 4 * sum(tensor.numel() for tensor in gaussians.parameters().values())


def compress(
    gaussians: Gaussians, path: Path, config: CompressConfig, surroundings: Surroundings, metadata: Metadata
) -> CompressReport:
    """Compress `gaussians` (on the surroundings' device) into the file at `path`.

    Raises InputError when a bound cannot be met by any setting, with the file left at the nearest one.
    """
    settings = resolve(config)
    target = None if config.target_size is None else parse_size(config.target_size)
    bound = None if config.max_loss is None else parse_loss(config.max_loss)
    if len(gaussians) == 0:
        raise InputError("There are no Gaussians to compress; choose another run.")
    run = _Run(gaussians.detach(), path, surroundings, metadata)
    if target is not None:
        return _meet_size(run, settings, target, bound)
    if bound is not None:
        return _meet_loss(run, settings, bound)
    return run.once(settings, None, f"preset {config.preset}")


def _meet_size(run: _Run, settings: Resolved, target: int, bound: float | None) -> CompressReport:
    """One run whose fraction is estimated from the bytes a Gaussian takes, and whose rounding is then fitted."""
    per_gaussian = run.estimate_bytes_per_gaussian(settings)
    keep = (TARGET_MARGIN * target - OVERHEAD_BYTES) / (per_gaussian * len(run.gaussians))
    if keep < LEAST_KEPT:
        raise InputError(
            f"--target-size {size_words(target)} is out of reach for {len(run.gaussians):,} Gaussians; "
            f"ask for at least {size_words(LEAST_KEPT * per_gaussian * len(run.gaussians) + 2 * OVERHEAD_BYTES)}."
        )
    report = run.once(settings.with_keep(min(keep, 1.0)), target, "")
    met = f"size bound met: {size_words(report.stages[-1].n_bytes)} of {size_words(target)}"
    if bound is not None:
        met += f"; loss bound {bound:g} dB " + ("met" if report.loss <= bound else f"missed with {report.loss:.2f} dB")
    return replace(report, bound=met)


def _meet_loss(run: _Run, settings: Resolved, bound: float) -> CompressReport:
    """Halving of the interval of fractions, on a logarithmic scale; the smallest file within the bound is kept."""
    low, high = math.log(0.05), 0.0
    middle = math.log(settings.keep if settings.keep < 1.0 else 0.5)
    best: CompressReport | None = None
    best_file, last = b"", None
    rounding = min(settings.rounding_loss, 1.5 * bound)
    for _ in range(SEARCH_RUNS):
        trial = replace(settings, rounding_loss=rounding).with_keep(math.exp(middle))
        last = run.once(trial, None, "")
        run.surroundings.say(
            f"keeping {trial.keep:.2f}: {size_words(last.stages[-1].n_bytes)}, {last.loss:.2f} dB lost"
        )
        if last.loss <= bound:
            if best is None or last.stages[-1].n_bytes < best.stages[-1].n_bytes:
                best, best_file = last, run.path.read_bytes()
            high = middle
        else:
            low = middle
            rounding = min(rounding, 0.75 * bound)
        middle = 0.5 * (low + high)
    if best is None:
        assert last is not None
        return replace(last, bound=f"loss bound {bound:g} dB missed; train longer or allow more")
    run.path.write_bytes(best_file)
    return replace(best, bound=f"loss bound met: {best.loss:.2f} of {bound:g} dB")


class _Run:
    """The input and what was measured of it, shared by several attempts."""

    def __init__(self, gaussians: Gaussians, path: Path, surroundings: Surroundings, metadata: Metadata) -> None:
        self.gaussians = canonical_axes(canonical_still(gaussians, surroundings.duration))
        self.path = path
        self.surroundings = surroundings
        self.metadata = metadata
        self._rates = fine_rates(surroundings)
        self._scores: Scores | None = None
        self._first = StageReport(
            "input", len(gaussians), parameter_bytes(gaussians), surroundings.evaluate(gaussians), 0.0
        )

    def scores(self) -> Scores:
        """Scores of the input, computed once."""
        if self._scores is None:
            self._scores = score(self.gaussians, self.surroundings)
        return self._scores

    def estimate_bytes_per_gaussian(self, settings: Resolved) -> float:
        """From the options of the unpruned set; palettes count with their indices alone."""
        probe = Probe(self.gaussians, self.surroundings)
        options = measure_options(self.gaussians, probe, self.scores().blend_weight, self.surroundings.seed)
        chosen = choose(options, budget_for(probe.training_mse, settings.rounding_loss))
        return sum(option.n_bytes for option in chosen.values()) / len(self.gaussians)

    def once(self, settings: Resolved, target: int | None, bound: str) -> CompressReport:
        """All stages and the file."""
        reports = [self._first]
        gaussians = self.gaussians
        scores: Scores | None = self.scores() if settings.stages else None
        coding: dict[str, str] = {}
        for stage in settings.stages:
            began = time.monotonic()
            if stage == "quantise":
                report, coding = self._file(gaussians, settings, target)
                reports.append(report)
                break
            scores = scores or score(gaussians, self.surroundings, SCORING_VIEWS_AGAIN)
            gaussians, note = self._stage(stage, gaussians, scores, settings)
            scores = None
            seconds = time.monotonic() - began
            reports.append(
                StageReport(
                    stage,
                    len(gaussians),
                    parameter_bytes(gaussians),
                    self.surroundings.evaluate(gaussians),
                    seconds,
                    note,
                )
            )
            self.surroundings.say(f"{stage}: {len(gaussians):,} Gaussians, {reports[-1].quality.psnr:.2f} dB")
        if "quantise" not in settings.stages:
            reports.append(self._exact_file(gaussians))
        return CompressReport(tuple(reports), bound, coding)

    def _stage(self, stage: Stage, gaussians: Gaussians, scores: Scores, settings: Resolved) -> tuple[Gaussians, str]:
        if stage == "sample":
            kept = gaussians.select(sample(scores, settings.keep))
            return self._tuned(kept, settings.tune_steps), f"kept {settings.keep:.0%}"
        if stage == "prune":
            kept = gaussians.select(prune(scores, settings.prune_quantile))
            return self._tuned(kept, settings.tune_steps // 2), f"below {settings.prune_quantile:.0%} of every score"
        if stage == "merge":
            return self._merged(gaussians, scores, settings)
        if stage == "quantise":
            raise ValueError("rounding ends in a file and is no stage of its own.")
        assert_never(stage)

    def _tuned(self, gaussians: Gaussians, steps: int) -> Gaussians:
        tunable = TunableGaussians(gaussians, self._rates)
        self.surroundings.fine_tune(tunable, steps)
        return canonical_axes(tunable.gaussians().detach())

    def _merged(self, gaussians: Gaussians, scores: Scores, settings: Resolved) -> tuple[Gaussians, str]:
        extent = float((gaussians.means.quantile(0.9, dim=0) - gaussians.means.quantile(0.1, dim=0)).max())
        # A cell holds a handful of Gaussians when they fill the scene's surfaces evenly.
        cell = extent / max(math.sqrt(len(gaussians)) / 2, 1.0)
        clusters = cluster_cells(
            gaussians,
            scores.blend_weight,
            cell_size=cell,
            cell_duration=self.surroundings.duration / 16,
            threshold=settings.merge_similarity,
        )
        merging = MergingGaussians(gaussians, clusters, scores.blend_weight)
        self.surroundings.fine_tune(merging, settings.tune_steps // 2)
        merged = merging.gaussians().detach()
        return self._tuned(canonical_axes(merged), settings.tune_steps // 2), f"{clusters.n_clusters:,} clusters"

    def _file(self, gaussians: Gaussians, settings: Resolved, target: int | None) -> tuple[StageReport, dict[str, str]]:
        """Choose bits, fine-tune through the rounding, write, read back, measure."""
        began = time.monotonic()
        # Tuning has left some behind that hardly any view sees any more.
        scores = score(gaussians, self.surroundings, SCORING_VIEWS_AGAIN)
        seen = scores.blend_weight > 0
        gaussians, importance = gaussians.select(seen), scores.blend_weight[seen]
        chosen = self._chosen(gaussians, importance, settings.rounding_loss, target)
        n_bytes = self._write_tuned(gaussians, chosen, 2 * settings.tune_steps)
        for attempt in range(1, FITTING_RUNS + 1):
            if target is None or n_bytes <= target:
                break
            # The bytes that the estimate missed are paid for with the least important Gaussians.
            share = (TARGET_MARGIN**attempt * target - OVERHEAD_BYTES) / max(n_bytes - OVERHEAD_BYTES, 1)
            n_kept = max(1, int(max(share, 0.1) * len(gaussians)))
            kept = prune_to(Scores(importance, importance, None), n_kept)
            gaussians, importance = gaussians.select(kept), importance[kept]
            chosen = self._chosen(gaussians, importance, settings.rounding_loss, target)
            n_bytes = self._write_tuned(gaussians, chosen, settings.tune_steps)
        seconds = time.monotonic() - began
        decoded = read_kino(self.path).gaussians.to(self.surroundings.device)
        coding = {name: _coding_words(option) for name, option in chosen.items()}
        note = ", ".join(f"{name} {words}" for name, words in coding.items())
        return StageReport("file", len(decoded), n_bytes, self.surroundings.evaluate(decoded), seconds, note), coding

    def _chosen(self, gaussians: Gaussians, importance: Tensor, loss: float, target: int | None) -> dict[str, Option]:
        probe = Probe(gaussians, self.surroundings)
        options = measure_options(gaussians, probe, importance, self.surroundings.seed)

        def at(decibels: float) -> dict[str, Option]:
            return choose(options, budget_for(probe.training_mse, decibels))

        if target is None:
            return at(loss)
        return _largest_within(at, TARGET_MARGIN * target - OVERHEAD_BYTES)

    def _write_tuned(self, gaussians: Gaussians, chosen: dict[str, Option], steps: int) -> int:
        tunable = QuantisedGaussians(gaussians, make_plan(gaussians, chosen), self._rates)
        self.surroundings.fine_tune(tunable, steps)
        final, codings = tunable.final()
        return write_kino(self.path, final, codings, metadata=self.metadata)

    def _exact_file(self, gaussians: Gaussians) -> StageReport:
        began = time.monotonic()
        n_bytes = write_kino(self.path, gaussians, metadata=self.metadata)
        seconds = time.monotonic() - began
        decoded = read_kino(self.path).gaussians.to(self.surroundings.device)
        return StageReport("file", len(decoded), n_bytes, self.surroundings.evaluate(decoded), seconds, "not rounded")


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
