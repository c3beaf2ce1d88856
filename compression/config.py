"""What can be asked of compression, and the presets that answer what was not asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from kinosplat.errors import InputError

Stage = Literal["sample", "prune", "merge", "quantise"]
CompressPreset = Literal["small", "balanced", "quality"]
Appearance = Literal["harmonics", "networks", "auto"]

TUNE_SHARE = 0.05
"""Steps of one fine-tuning, of those of the run: all stages together are then at most a fifth of the training's steps,
and compression less than half of its time."""
LEAST_TUNE_STEPS = 250
"""Fewer leave what sampling opened unclosed, unless the whole run had fewer."""
MOST_TUNE_STEPS = 3000


@dataclass(frozen=True)
class CompressConfig:
    """How a set is made small; None leaves a value to the preset."""

    preset: CompressPreset = "balanced"
    """How much quality may go: small gives up about half a decibel, balanced a tenth, quality hardly any."""
    stages: tuple[Stage, ...] | None = None
    """Which stages run, in their order; fine-tuning belongs to each."""
    keep: float | None = None
    """Fraction of the Gaussians that sampling keeps."""
    prune_quantile: float | None = None
    """Gaussians below this quantile of every score are dropped."""
    merge_similarity: float | None = None
    """Similarity that Gaussians need to become one, at most 0; nearer to 0 merges less. By default -1: a cell apart, or
    half the spread of colours."""
    appearance: Appearance | None = None
    """How opacity and colour are stored: as harmonics (rounded, or indices into a palette), or as latents that small
    networks turn into them (OMG4). auto fits both and takes what needs fewer bytes for the same error."""
    rounding_loss: float | None = None
    """Decibels that rounding may cost on the training views before fine-tuning; the bits of each parameter follow from
    it."""
    tune_steps: int | None = None
    """Steps of fine-tuning after sampling, by default 5% of the run's; half as many after pruning and merging,
    twice as many after rounding."""
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
    appearance: Appearance = "harmonics"
    tune_steps: int = LEAST_TUNE_STEPS
    merge_similarity: float = -1.0


PRESETS: dict[CompressPreset, Resolved] = {
    "small": Resolved(("sample", "prune", "quantise"), keep=0.25, prune_quantile=0.3, rounding_loss=2.0),
    "balanced": Resolved(("sample", "prune", "quantise"), keep=0.5, prune_quantile=0.3, rounding_loss=1.2),
    "quality": Resolved(("sample", "prune", "quantise"), keep=1.0, prune_quantile=0.4, rounding_loss=0.3),
}


STAGE_OF: dict[str, Stage] = {
    "keep": "sample",
    "prune_quantile": "prune",
    "merge_similarity": "merge",
    "appearance": "quantise",
    "rounding_loss": "quantise",
    "target_size": "quantise",
    "max_loss": "quantise",
}
"""The stage without which an option would do nothing."""
FOUND_BY_BOUNDS = ("keep", "rounding_loss")
"""What is searched for where there is a bound."""


def resolve(config: CompressConfig, training_steps: int) -> Resolved:
    """The values of the config, and those of its preset where it has none, for a run of `training_steps`; InputError
    names an option that is out of range or would do nothing.
    """
    given = {name: value for name, value in vars(config).items() if value is not None}
    _check_ranges(config)
    least = min(LEAST_TUNE_STEPS, max(training_steps, 1))
    tune_steps = min(max(round(TUNE_SHARE * training_steps), least), MOST_TUNE_STEPS)
    names = Resolved.__dataclass_fields__
    chosen = {"tune_steps": tune_steps} | {name: value for name, value in given.items() if name in names}
    resolved = replace(PRESETS[config.preset], **chosen)
    if "quantise" in resolved.stages[:-1]:
        raise InputError("--stages must have quantise at the end: nothing can follow what is written to the file.")
    for name, stage in STAGE_OF.items():
        if name in given and stage not in resolved.stages:
            raise InputError(f"{option(name)} does nothing without the stage {stage}; add it to --stages.")
    bound = next((name for name in ("target_size", "max_loss") if name in given), None)
    for name in FOUND_BY_BOUNDS:
        if bound is not None and name in given:
            raise InputError(f"{option(name)} follows from {option(bound)}; give one of the two.")
    return resolved


def option(name: str) -> str:
    """What the command line calls a field of the config."""
    return "--" + name.replace("_", "-")


def _check_ranges(config: CompressConfig) -> None:
    for name, is_in_range, words in (
        ("keep", lambda value: 0.0 < value <= 1.0, "above 0 and at most 1"),
        ("prune_quantile", lambda value: 0.0 <= value < 1.0, "at least 0 and below 1"),
        ("merge_similarity", lambda value: value <= 0.0, "at most 0"),
        ("rounding_loss", lambda value: value > 0.0, "above 0"),
        ("tune_steps", lambda value: value >= 0, "at least 0"),
    ):
        value = getattr(config, name)
        if value is not None and not is_in_range(value):
            raise InputError(f"{option(name)} must be {words}, got {value:g}.")
