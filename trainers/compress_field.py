"""Compresses a run of `hashgrid` or `hollownerf`: entries that are left, rounded as coarsely as its views allow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kinosplat.compression.config import CompressConfig, option, resolve
from kinosplat.compression.hollow import KIND, StoredField, load_field, model_of, tensors_of
from kinosplat.compression.kino import Metadata, read_kino, write_kino
from kinosplat.compression.report import CompressReport, StageReport
from kinosplat.compression.surroundings import Quality
from kinosplat.errors import InputError
from kinosplat.scenes import View
from kinosplat.trainers.evaluate import evaluate, spread
from kinosplat.trainers.feed import cache_bytes
from kinosplat.trainers.methods.hash_grid import FieldMethod
from kinosplat.trainers.stopwatch import Stopwatch
from kinosplat.trainers.training import Training

BITS = (4, 5, 6, 7, 8)
"""Of a feature that are tried, coarsest first."""
OF_GAUSSIANS = ("stages", "keep", "prune_quantile", "merge_similarity", "appearance", "tune_steps")
"""Options that do nothing to a field."""
PROBE_VIEWS = 8


def compress_field(
    training: Training,
    method: FieldMethod,
    path: Path,
    config: CompressConfig,
    metadata: Metadata,
    say: Callable[[str], None],
    measuring: Stopwatch,
) -> CompressReport:
    """Write the field of a run to `path` and measure what is read back. `measuring` takes the time of what is measured
    on held-out views.

    Raises InputError when a bound is asked for, as a field has one size at each number of bits, and where an option is
    of Gaussians only.
    """
    if config.target_size is not None or config.max_loss is not None:
        raise InputError(f"{method.name} has no Gaussians to leave out for a bound; give --rounding-loss instead.")
    for name in OF_GAUSSIANS:
        if getattr(config, name) is not None:
            raise InputError(f"{option(name)} is for Gaussians, and {method.name} has none; leave it out.")
    settings = resolve(config, training.step)
    stored = StoredField(method.field(), method.grid, method.near)
    if stored.field.backend == "tcnn":
        raise InputError("A field of tiny-cuda-nn has a layout of its own; train with --field-backend native.")
    test = spread(training.scene.test, training.config.evaluation.max_test_views)
    quality = measuring.timed(_quality)
    first = StageReport("input", method.n_primitives, method.n_bytes, quality(training, stored, test), 0.0)
    began = time.monotonic()
    bits = _coarsest(training, stored, settings.rounding_loss)
    n_bytes = write_kino(
        path, None, tensors=tensors_of(stored, bits), metadata=metadata, kind=KIND, model=model_of(stored)
    )
    seconds = time.monotonic() - began
    decoded = load_field(read_kino(path), str(path), training.device)
    note = f"features {bits} bits, networks 16 bits"
    last = StageReport("file", stored.n_left(bits), n_bytes, quality(training, decoded, test), seconds, note)
    say(f"file: {n_bytes:,} bytes, {last.quality.psnr:.2f} dB; {note}")
    coding = {"table": f"{bits} bits", "networks": "16 bits"}
    return CompressReport((first, last), f"preset {config.preset}", coding, counted="entries")


def _coarsest(training: Training, stored: StoredField, loss: float) -> int:
    """Fewest bits a feature that cost at most `loss` decibels on a few training views."""
    views = spread(training.scene.train, PROBE_VIEWS)
    whole = _quality(training, stored, views).psnr
    for bits in BITS[:-1]:
        if _quality(training, stored.rounded(bits), views).psnr >= whole - loss:
            return bits
    return BITS[-1]


def _quality(training: Training, stored: StoredField, views: Sequence[View]) -> Quality:
    result = evaluate(
        stored,
        views,
        training.background.evaluation_color(),
        mask_use=training.config.image.settled_mask_use,
        cache_bytes=cache_bytes(training.config),
    )
    return Quality(result.psnr, result.ssim)
