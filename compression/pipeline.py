"""Compression from end to end: stages one after another, each reported; the last one writes the .kino file.

`compress` measures what it reads back from the file. A size or a loss as bound is searched for in `search`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from typing_extensions import assert_never

from kinosplat.compression.canonical import canonical_axes, canonical_still
from kinosplat.compression.config import CompressConfig, Resolved, Stage, resolve
from kinosplat.compression.kino import Metadata
from kinosplat.compression.merge import MergingGaussians, cluster_cells
from kinosplat.compression.prune import prune
from kinosplat.compression.report import CompressReport, StageReport, parameter_bytes
from kinosplat.compression.rounding import FileStage
from kinosplat.compression.sample import sample
from kinosplat.compression.scores import Scores, score
from kinosplat.compression.search import meet_loss, meet_size
from kinosplat.compression.size import parse_loss, parse_size
from kinosplat.compression.stored import StoredSet, TunableSet
from kinosplat.compression.surroundings import Surroundings
from kinosplat.compression.tunable import fine_rates
from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians

SCORING_VIEWS = 1000
"""Training views at most that scores of the input are summed over. Of the 810 of Panoptic's first 30 frames, a quarter
chooses the same for 99.5% of the set, and an eighth for 98.9%; after tuning neither differs by more than 0.004 dB."""
SCORING_VIEWS_AGAIN = 200
"""Views that scores are summed over after the first time, when only their order among what was kept matters."""
MUCH_PRUNED = 0.25
"""Share of a set whose loss by pruning is tuned for half as long as sampling."""
LEAST_KEPT_AT_ONCE = 0.45
"""Sampling to less goes in rounds with fine-tuning between: what is left takes over from what is gone, and scores of
the full set know nothing of that."""


def compress(
    gaussians: Gaussians, path: Path, config: CompressConfig, surroundings: Surroundings, metadata: Metadata
) -> CompressReport:
    """Compress `gaussians` (on the surroundings' device) into the file at `path`.

    Raises InputError when a target size is out of reach from the start. A bound that was missed leaves the nearest file
    and says so in the report.
    """
    settings = resolve(config, surroundings.training_steps)
    target = None if config.target_size is None else parse_size(config.target_size)
    bound = None if config.max_loss is None else parse_loss(config.max_loss)
    if len(gaussians) == 0:
        raise InputError("There are no Gaussians to compress; choose another run.")
    pipeline = Pipeline(gaussians.detach(), path, surroundings, metadata)
    if target is not None:
        return meet_size(pipeline, settings, target, bound)
    if bound is not None:
        return meet_loss(pipeline, settings, bound)
    return pipeline.run(settings, bound=f"preset {config.preset}")


class Pipeline:
    """The input, what was measured of it, and the stages it can go through."""

    def __init__(self, gaussians: Gaussians, path: Path, surroundings: Surroundings, metadata: Metadata) -> None:
        self.gaussians = canonical_axes(canonical_still(gaussians, surroundings.duration))
        self.surroundings = surroundings
        self.file = FileStage(path, surroundings, metadata)
        self.first = StageReport(
            "input", len(gaussians), parameter_bytes(gaussians), surroundings.evaluate(gaussians), 0.0
        )
        self._rates = fine_rates(surroundings)
        self._scores: Scores | None = None

    def scores(self, gaussians: Gaussians) -> Scores:
        """Scores of a set; those of the input are over more views and computed once."""
        if gaussians is not self.gaussians:
            return score(gaussians, self.surroundings, SCORING_VIEWS_AGAIN)
        if self._scores is None:
            self._scores = score(gaussians, self.surroundings, SCORING_VIEWS)
        return self._scores

    def run(self, settings: Resolved, *, target: int | None = None, bound: str = "") -> CompressReport:
        """All stages of the settings, and the file."""
        gaussians, reports = self.gaussians, [self.first]
        for stage in settings.stages:
            if stage == "quantise" or (stage == "sample" and settings.keep >= 1.0):
                continue
            gaussians, report = self.stage(stage, gaussians, settings)
            reports.append(report)
        return replace(self.finish(gaussians, reports, settings, target), bound=bound)

    def finish(
        self, gaussians: Gaussians, reports: Sequence[StageReport], settings: Resolved, target: int | None = None
    ) -> CompressReport:
        """The file, after the stages that `reports` tell of; rounded if the settings say so."""
        if "quantise" in settings.stages:
            report, coding = self.file.write(gaussians, settings, target)
        else:
            report, coding = self.file.write_exact(gaussians)
        return CompressReport((*reports, report), "", coding)

    def stage(self, stage: Stage, gaussians: Gaussians, settings: Resolved) -> tuple[Gaussians, StageReport]:
        """One stage with its fine-tuning, measured."""
        began = time.monotonic()
        if stage == "sample":
            gaussians, note = self._sampled(gaussians, settings)
        elif stage == "prune":
            kept = prune(self.scores(gaussians), settings.prune_quantile)
            # What loses little needs little to recover.
            missing = min((1.0 - float(kept.float().mean())) / MUCH_PRUNED, 1.0)
            gaussians = self.tuned(gaussians.select(kept), round(missing * settings.tune_steps / 2))
            note = f"below {settings.prune_quantile:.0%} of every score"
        elif stage == "merge":
            gaussians, note = self._merged(gaussians, settings)
        elif stage == "quantise":
            raise ValueError("rounding ends in a file and is no stage of its own.")
        else:
            assert_never(stage)
        seconds = time.monotonic() - began
        quality = self.surroundings.evaluate(gaussians)
        report = StageReport(stage, len(gaussians), parameter_bytes(gaussians), quality, seconds, note)
        self.surroundings.say(f"{stage}: {report.n_gaussians:,} Gaussians, {quality.psnr:.2f} dB, {seconds:.0f} s")
        return gaussians, report

    def tuned(self, gaussians: Gaussians, steps: int) -> Gaussians:
        """The set after a number of steps on the training views, in canonical form again."""
        tunable = TunableSet(StoredSet(gaussians), self._rates)
        self.surroundings.fine_tune(tunable, steps)
        return tunable.tuned().gaussians

    def _sampled(self, gaussians: Gaussians, settings: Resolved) -> tuple[Gaussians, str]:
        n_rounds = max(1, math.ceil(math.log(settings.keep) / math.log(LEAST_KEPT_AT_ONCE)))
        for _ in range(n_rounds):
            gaussians = gaussians.select(sample(self.scores(gaussians), settings.keep ** (1 / n_rounds)))
            gaussians = self.tuned(gaussians, settings.tune_steps // n_rounds)
        return gaussians, f"kept {settings.keep:.0%}" + (f" in {n_rounds} rounds" if n_rounds > 1 else "")

    def _merged(self, gaussians: Gaussians, settings: Resolved) -> tuple[Gaussians, str]:
        importance = self.scores(gaussians).blend_weight
        extent = float((gaussians.means.quantile(0.9, dim=0) - gaussians.means.quantile(0.1, dim=0)).max())
        # A cell holds a handful of Gaussians when they fill the scene's surfaces evenly.
        cell = extent / max(math.sqrt(len(gaussians)) / 2, 1.0)
        clusters = cluster_cells(
            gaussians,
            importance,
            cell_size=cell,
            cell_duration=self.surroundings.duration / 16,
            threshold=settings.merge_similarity,
        )
        merging = MergingGaussians(gaussians, clusters, importance)
        self.surroundings.fine_tune(merging, settings.tune_steps // 2)
        merged = canonical_axes(merging.gaussians().detach())
        return self.tuned(merged, settings.tune_steps // 2), f"{clusters.n_clusters:,} clusters"
