"""Compression makes a set small stage by stage, keeps its bounds, and reports what the file really holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compression.gaussian_sets import random_gaussians, sorted_rows
from compression.toy_surroundings import toy_gaussians, toy_surroundings
from kinosplat.compression.bits import Option, Probe, budget_for, choose, make_plan, measure_options
from kinosplat.compression.canonical import canonical_axes, canonical_still
from kinosplat.compression.config import CompressConfig, resolve
from kinosplat.compression.entropy import morton_bytes, plane_bytes
from kinosplat.compression.kino import Metadata, MortonCoding, describe, encode_kino, read_kino
from kinosplat.compression.kino.planes import write_planes
from kinosplat.compression.merge import MergingGaussians, cluster_cells
from kinosplat.compression.pipeline import compress
from kinosplat.compression.prune import largest, prune
from kinosplat.compression.quantised import QuantisedGaussians
from kinosplat.compression.report import CompressReport, StageReport
from kinosplat.compression.rounding import Measured
from kinosplat.compression.sample import sample
from kinosplat.compression.scores import Scores, score
from kinosplat.compression.size import parse_loss, parse_size, size_words
from kinosplat.compression.stored import StoredSet, TunableSet
from kinosplat.compression.surroundings import Quality
from kinosplat.compression.tunable import fine_rates
from kinosplat.errors import InputError
from kinosplat.render import rasterize
from kinosplat.render.gaussians import Gaussians

CLIP = Metadata(duration=2.0, fps=15.0)


def test_scores_tell_what_matters_from_what_does_not() -> None:
    truth, learned = toy_gaussians()
    scores = score(learned, toy_surroundings(truth))
    n = len(truth)
    assert scores.blend_weight[:n].median() > 20 * scores.blend_weight[n:].median()
    assert scores.temporal is not None
    still = torch.isposinf(learned.log_durations)
    assert (scores.temporal[still] == 0).all()
    kept = sample(scores, 0.5)
    assert (kept < n).float().mean() > 0.9  # measured 0.95
    assert torch.equal(sample(scores, 1.0), torch.arange(2 * n))
    assert largest(scores.blend_weight, 10).tolist() == sorted(torch.topk(scores.blend_weight, 10).indices.tolist())


def test_pruning_keeps_what_is_high_in_either_score() -> None:
    blend = torch.tensor([0.0, 1.0, 2.0, 9.0, 3.0])
    spatial = torch.tensor([9.0, 1.0, 8.0, 0.0, 2.0])
    kept = prune(Scores(blend, spatial, None), 0.6)
    # The fourth is high in the first score, the third in the second; the first is never seen, the second low in both.
    assert kept.tolist() == [False, False, True, True, True]
    with pytest.raises(ValueError, match=r"quantile must be in \[0, 1\)"):
        prune(Scores(blend, spatial, None), 1.0)


def test_twins_merge_and_strangers_do_not() -> None:
    gaussians = random_gaussians(50, n_still=20)
    twins = replace(gaussians, means=gaussians.means + 1e-4)
    both = Gaussians(**{n: torch.cat([t, twins.parameters()[n]]) for n, t in gaussians.parameters().items()})
    importance = torch.linspace(1, 2, 100)
    clusters = cluster_cells(both, importance, cell_size=0.1, cell_duration=0.25, threshold=-0.01)
    assert 50 <= clusters.n_clusters <= 54  # a pair may straddle the border of two cells
    merging = MergingGaussians(both, clusters, importance)
    merged = merging.gaussians()
    assert len(merged) == clusters.n_clusters
    assert torch.cdist(merged.means.double(), gaussians.means.double()).amin(dim=1).max() < 2e-4
    assert torch.isposinf(merged.log_durations).sum() >= 20
    merged.means.sum().backward()
    assert torch.isfinite(merging.leaves["mixing"].grad).all()
    apart = cluster_cells(gaussians, importance[:50], cell_size=0.1, cell_duration=0.25, threshold=-0.01)
    assert apart.n_clusters == 50


def test_estimates_agree_with_the_writer() -> None:
    generator = torch.Generator().manual_seed(0)
    integers = (torch.randn(20_000, 3, generator=generator) * 80 + 512).clamp(0, 1023).long()
    written = len(write_planes(integers.numpy().astype("uint64"), 2, delta=False))
    assert (
        abs(plane_bytes(integers, 10) / written - 1) < 0.08
    )  # Huffman codes of the skewed upper plane: measured 0.057
    gaussians = random_gaussians(20_000, sh_degree=0, moving=False)
    plain = len(encode_kino(gaussians)) - len(encode_kino(gaussians, {"means": MortonCoding(16)}))
    means_as_floats = len(
        write_planes(gaussians.means.view(torch.int32).numpy().astype("uint32").astype("uint64"), 4, delta=False)
    )
    estimate = morton_bytes(20_000, 16)
    assert abs(estimate / (means_as_floats - plain) - 1) < 0.15


def test_the_cheapest_options_within_the_budget_are_chosen() -> None:
    def options(scale: float) -> list[Option]:
        return [Option(scale * 4.0**-b, 100.0 * b, b) for b in range(2, 12)]

    given = {"fine": options(1.0), "coarse": options(1e-3)}
    chosen = choose(given, 1e-4)
    assert sum(option.mse for option in chosen.values()) <= 1e-4
    assert chosen["fine"].bits > chosen["coarse"].bits
    one_less = {name: replace(option, bits=option.bits - 1) for name, option in chosen.items()}
    cost = sum(next(o.mse for o in given[name] if o.bits == option.bits) for name, option in one_less.items())
    assert cost > 1e-4
    assert {option.bits for option in choose(given, 0.0).values()} == {11}


def test_what_room_a_target_leaves_is_used() -> None:
    """One multiplier for all parameters takes both steps of `b` or none; the room for one of them is not given away."""
    options = {
        "a": [Option(1.0, 100.0, 4), Option(0.1, 200.0, 5)],
        "b": [Option(1.0, 100.0, 4), Option(0.8, 150.0, 5), Option(0.1, 250.0, 6)],
    }
    stored = StoredSet(random_gaussians(3))
    chosen = Measured(stored, torch.ones(3), options, 1.0).choose(0.0, 380.0)
    assert {name: option.bits for name, option in chosen.items()} == {"a": 5, "b": 5}


def test_fine_tuning_sees_exactly_what_the_file_will_hold() -> None:
    truth, learned = toy_gaussians()
    surroundings = toy_surroundings(truth)
    gaussians = canonical_axes(canonical_still(learned, 2.0))
    probe = Probe(gaussians, surroundings, 4)
    options = measure_options(StoredSet(gaussians), probe, torch.ones(len(gaussians)), seed=0)
    chosen = choose(options, budget_for(probe.training_mse, 0.5))
    stored = StoredSet(gaussians)
    tunable = QuantisedGaussians(stored, make_plan(stored, chosen), fine_rates(surroundings))
    surroundings.fine_tune(tunable, 5)
    final, codings = tunable.final()
    decoded = read_kino(encode_kino(final, codings, metadata=CLIP)).gaussians
    # Tuning rounds in float32, a reader in float64.
    assert torch.allclose(sorted_rows(decoded), sorted_rows(tunable.gaussians().detach()), rtol=0, atol=1e-6)
    view = next(surroundings.views(1))
    rasterize(tunable.gaussians(), view.cameras).rgb.sum().backward()
    assert all(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in tunable.leaves.values())


@pytest.mark.parametrize("moving", [True, False])
def test_a_preset_makes_the_file_small_and_keeps_the_picture(moving: bool, tmp_path: Path) -> None:
    truth, learned = toy_gaussians(moving=moving)
    path = tmp_path / "scene.kino"
    surroundings = toy_surroundings(truth)
    metadata = CLIP if moving else Metadata()
    report = compress(learned, path, CompressConfig(tune_steps=60, rounding_loss=0.2), surroundings, metadata)
    assert [stage.stage for stage in report.stages] == ["input", "sample", "prune", "file"]
    first, last = report.stages[0], report.stages[-1]
    assert last.n_bytes == path.stat().st_size
    assert last.n_gaussians < 0.55 * first.n_gaussians
    assert surroundings.evaluate(read_kino(path).gaussians) == last.quality
    assert report.loss < 0.8  # 60 steps of tuning after half was taken: measured 0.50 (moving) and less
    assert report.ratio > 8
    assert "times smaller" in report.table()
    assert "kino version 1" in describe(path)


def test_a_target_size_is_met(tmp_path: Path) -> None:
    truth, learned = toy_gaussians()
    path = tmp_path / "scene.kino"
    config = CompressConfig(tune_steps=10, target_size="9KB")
    report = compress(learned, path, config, toy_surroundings(truth), CLIP)
    assert 0.6 * 9000 < path.stat().st_size <= 9000
    assert report.bound == f"size bound met: {size_words(path.stat().st_size)} of 9.00 KB"
    with pytest.raises(InputError, match=r"--target-size 20 B is out of reach for 600 Gaussians; ask for at least"):
        compress(learned, path, replace(config, target_size="20B"), toy_surroundings(truth), CLIP)


def test_a_small_target_is_met_with_coarse_numbers_not_with_few_gaussians(tmp_path: Path) -> None:
    truth, learned = toy_gaussians()
    config = CompressConfig(tune_steps=2, target_size="4KB")
    report = compress(learned, tmp_path / "scene.kino", config, toy_surroundings(truth), CLIP)
    assert report.bound.startswith("size bound met")
    pruned, file = report.stages[-2:]
    assert file.n_gaussians > 0.75 * pruned.n_gaussians  # measured 176 of 206; the spiral ended with fewer than half
    assert report.coding["means"] == "9 bits"


def test_a_target_size_that_is_missed_is_told_as_missed(tmp_path: Path) -> None:
    """Six Gaussians would fit, the frames of their planes do not."""
    truth, learned = toy_gaussians()
    path = tmp_path / "scene.kino"
    config = CompressConfig(tune_steps=0, target_size="1.2KB")
    report = compress(learned, path, config, toy_surroundings(truth), CLIP)
    assert path.stat().st_size > 1200
    assert report.bound == f"size bound missed: {size_words(path.stat().st_size)} of 1.20 KB"


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"keep": 2.0}, "--keep must be above 0 and at most 1, got 2."),
        ({"prune_quantile": 1.0}, "--prune-quantile must be at least 0 and below 1, got 1."),
        ({"tune_steps": -5}, "--tune-steps must be at least 0, got -5."),
        ({"rounding_loss": -1.0}, "--rounding-loss must be above 0, got -1."),
        ({"merge_similarity": 0.5}, "--merge-similarity must be at most 0, got 0.5."),
        ({"merge_similarity": -1.0}, "--merge-similarity does nothing without the stage merge; add it to --stages."),
        (
            {"keep": 0.2, "stages": ("quantise",)},
            "--keep does nothing without the stage sample; add it to --stages.",
        ),
        (
            {"target_size": "1MB", "stages": ("prune",)},
            "--target-size does nothing without the stage quantise; add it to --stages.",
        ),
        (
            {"max_loss": "1dB", "stages": ("sample",)},
            "--max-loss does nothing without the stage quantise; add it to --stages.",
        ),
        ({"keep": 0.2, "target_size": "1MB"}, "--keep follows from --target-size; give one of the two."),
        ({"rounding_loss": 0.2, "max_loss": "1dB"}, "--rounding-loss follows from --max-loss; give one of the two."),
        (
            {"stages": ("quantise", "prune")},
            "--stages must have quantise at the end: nothing can follow what is written to the file.",
        ),
    ],
)
def test_options_that_cannot_be_used_are_refused(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(CompressConfig(**config), 1000)
    assert str(caught.value) == sentence


def test_the_table_fits_a_screen_and_says_what_got_better() -> None:
    quality, better = Quality(25.08, 0.9), Quality(25.10, 0.9)
    note = ", ".join(f"parameter_{i} {i} bits" for i in range(12))
    stages = (StageReport("input", 10, 1000, quality, 0.0), StageReport("file", 10, 900, better, 1.0, note))
    *lines, last = CompressReport(stages, "preset small", {}).table().splitlines()
    assert max(map(len, lines)) <= 120
    assert " ".join(" ".join(lines).split()).endswith(note)
    assert last == "1.1 times smaller, 0.02 dB better; preset small"


def test_a_loss_bound_keeps_the_smallest_file_within_it(tmp_path: Path) -> None:
    truth, learned = toy_gaussians()
    path = tmp_path / "scene.kino"
    surroundings = toy_surroundings(truth)
    report = compress(learned, path, CompressConfig(tune_steps=20, max_loss="0.3dB"), surroundings, CLIP)
    assert report.loss <= 0.3
    assert report.bound.startswith("loss bound met")
    assert surroundings.evaluate(read_kino(path).gaussians) == report.stages[-1].quality
    assert path.stat().st_size == report.stages[-1].n_bytes


def test_without_rounding_the_file_is_exact(tmp_path: Path) -> None:
    truth, learned = toy_gaussians()
    path = tmp_path / "scene.kino"
    report = compress(learned, path, CompressConfig(stages=("prune",), tune_steps=2), toy_surroundings(truth), CLIP)
    assert report.stages[-1].note == "not rounded"
    assert report.stages[-1].quality.psnr == pytest.approx(report.stages[-2].quality.psnr, abs=1e-3)


def test_still_gaussians_stay_still_while_tuning() -> None:
    truth, _ = toy_gaussians()
    surroundings = toy_surroundings(truth)
    tunable = TunableSet(StoredSet(truth), fine_rates(surroundings))
    surroundings.fine_tune(tunable, 5)
    tuned = tunable.gaussians().detach()
    assert torch.equal(torch.isposinf(tuned.log_durations), torch.isposinf(truth.log_durations))
    assert not torch.equal(sorted_rows(tuned), sorted_rows(truth))


def test_sizes_and_losses_are_read_as_people_write_them() -> None:
    assert [parse_size(text) for text in ("3MB", "300 KB", "1.5MiB", "250000")] == [
        3_000_000,
        300_000,
        1_572_864,
        250_000,
    ]
    assert [parse_loss(text) for text in ("0.2dB", "0.2", ".5 db")] == [0.2, 0.2, 0.5]
    with pytest.raises(InputError) as caught:
        parse_size("small")
    assert str(caught.value) == "--target-size small is no size; write it like 3MB or 300KB."
    with pytest.raises(InputError) as caught:
        parse_loss("-1dB")
    assert str(caught.value) == "--max-loss -1dB is no loss; write it like 0.2dB."
