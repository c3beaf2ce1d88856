"""What can be asked of compression, and the presets that answer what was not asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Stage = Literal["sample", "prune", "merge", "quantise"]


@dataclass(frozen=True)
class CompressConfig:
    """How a set is made small; None leaves a value to the preset."""

    preset: Literal["small", "balanced", "quality"] = "balanced"
    """How much quality may go: small gives up about half a decibel, balanced a tenth, quality hardly any."""
    stages: tuple[Stage, ...] | None = None
    """Which stages run, in their order; fine-tuning belongs to each."""
    keep: float | None = None
    """Fraction of the Gaussians that sampling keeps."""
    prune_quantile: float | None = None
    """Gaussians below this quantile of every score are dropped."""
    merge_similarity: float | None = None
    """Similarity that Gaussians need to become one, at most 0; nearer to 0 merges less."""
    rounding_loss: float | None = None
    """Decibels that rounding may cost on the training views before fine-tuning; the bits of each parameter follow from
    it."""
    tune_steps: int | None = None
    """Steps of fine-tuning after sampling; half as many after pruning and merging, twice as many after rounding."""
    target_size: str | None = None
    """Largest size of the file, such as 3MB or 300KB."""
    max_loss: str | None = None
    """Largest loss on the held-out views, such as 0.2dB; the smallest file found within it is kept."""


@dataclass(frozen=True)
class Resolved:
    """A configuration in which nothing is left open; fields as in `CompressConfig`."""

    stages: tuple[Stage, ...]
    keep: float
    prune_quantile: float
    rounding_loss: float
    tune_steps: int = 1000
    merge_similarity: float = -0.02

    def with_keep(self, keep: float) -> Resolved:
        """The same, sampling to another fraction; sampling is left out when it keeps everything."""
        keep = min(keep, 1.0)
        stages = tuple(stage for stage in self.stages if stage != "sample")
        return replace(self, keep=keep, stages=stages if keep >= 1.0 else ("sample", *stages))


PRESETS = {
    "small": Resolved(("sample", "prune", "quantise"), keep=0.25, prune_quantile=0.3, rounding_loss=0.5),
    "balanced": Resolved(("sample", "prune", "quantise"), keep=0.5, prune_quantile=0.3, rounding_loss=0.2),
    "quality": Resolved(("prune", "quantise"), keep=1.0, prune_quantile=0.4, rounding_loss=0.05),
}


def resolve(config: CompressConfig) -> Resolved:
    """The values of the config, and those of its preset where it has none."""
    names = ("stages", "prune_quantile", "merge_similarity", "rounding_loss", "tune_steps")
    given = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    resolved = replace(PRESETS[config.preset], **given)
    return resolved if config.keep is None else resolved.with_keep(config.keep)
