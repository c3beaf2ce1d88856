"""Appearance by networks: learned, stored, and read back by a reader that knows nothing of how it was learned."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from compression.gaussian_sets import random_gaussians, sorted_rows
from compression.toy_surroundings import toy_gaussians, toy_surroundings
from kinosplat.compression.bits import Probe, choose, make_plan, measure_options
from kinosplat.compression.canonical import canonical_axes, canonical_still
from kinosplat.compression.config import CompressConfig
from kinosplat.compression.kino import KinoReader, Metadata, StreamDecoder, read_kino
from kinosplat.compression.kino.layout import PRELUDE
from kinosplat.compression.networks import AppearanceNetworks, fit_networks
from kinosplat.compression.pipeline import compress
from kinosplat.compression.quantised import QuantisedGaussians
from kinosplat.compression.stored import StoredSet
from kinosplat.compression.tunable import fine_rates
from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians, concatenate


def networks_file(folder: Path, *, moving: bool, sh_degree: int = 1) -> tuple[Path, Gaussians]:
    """A file with untrained networks, and the set as tuning would see it."""
    gaussians = random_gaussians(400, sh_degree=sh_degree, moving=moving, n_still=100 if moving else 0)
    gaussians = canonical_axes(gaussians)
    latents = torch.randn(400, 6, generator=torch.Generator().manual_seed(1))
    stored = StoredSet(gaussians, latents, AppearanceNetworks.create(gaussians, seed=3))
    stored = replace(stored, gaussians=stored.drawn({}))
    surroundings = toy_surroundings(gaussians)
    probe = Probe(stored.gaussians, surroundings, 2)
    options = measure_options(stored, probe, torch.ones(400), seed=0)
    tunable = QuantisedGaussians(stored, make_plan(stored, choose(options, 1e-5)), fine_rates(surroundings))
    path = folder / "scene.kino"
    tunable.write(path, Metadata(duration=2.0 if moving else None))
    return path, tunable.gaussians().detach()


@pytest.mark.parametrize(("moving", "sh_degree"), [(True, 3), (True, 0), (False, 1)])
def test_the_reader_makes_what_tuning_saw(moving: bool, sh_degree: int, tmp_path: Path) -> None:
    path, seen = networks_file(tmp_path, moving=moving, sh_degree=sh_degree)
    found = read_kino(path).gaussians
    assert found.sh_degree == sh_degree
    # Sums of 64 products in float32 in another order, and sines of angles up to 400: measured 3e-5 of values up to 20.
    assert torch.allclose(sorted_rows(found), sorted_rows(seen), rtol=1e-4, atol=2e-4)
    decoder = StreamDecoder()
    parts = [part for i in range(0, path.stat().st_size, 500) for part in decoder.feed(path.read_bytes()[i : i + 500])]
    assert torch.equal(sorted_rows(concatenate(parts)), sorted_rows(found))
    assert KinoReader(path).prelude.version == 2


def test_the_fit_gives_appearance_back_that_follows_from_place_and_latents() -> None:
    gaussians = random_gaussians(600, sh_degree=1, moving=False)
    smooth = torch.sin(2.0 * gaussians.means)
    rest = 0.5 * smooth[:, :, None] * torch.tensor([1.0, -0.5, 0.2])
    gaussians = replace(gaussians, sh_rest=rest, opacity_logits=2.0 * smooth[:, 0])
    networks, latents = fit_networks(gaussians, torch.ones(600), seed=0)
    found = networks.dressed(gaussians, latents)
    # Deviations from the truth over those of the truth: measured 0.001, 0.02, 0.05.
    for name in ("sh_dc", "sh_rest", "opacity_logits"):
        truth = gaussians.parameters()[name]
        assert (found.parameters()[name] - truth).std() < 0.1 * truth.std(), name


def test_a_set_is_compressed_with_networks(tmp_path: Path) -> None:
    truth, learned = toy_gaussians()
    path = tmp_path / "scene.kino"
    surroundings = toy_surroundings(truth)
    config = CompressConfig(tune_steps=40, stages=("quantise",), appearance="networks", rounding_loss=0.2)
    report = compress(learned, path, config, surroundings, Metadata(duration=2.0))
    assert "networks" in report.coding
    assert surroundings.evaluate(read_kino(path).gaussians) == report.stages[-1].quality
    # 300 random Gaussians have no smooth appearance to learn, and 40 steps are few: measured 1.0 dB.
    assert report.loss < 2.5


def test_auto_takes_harmonics_where_networks_weigh_more_than_they_save(tmp_path: Path) -> None:
    truth, learned = toy_gaussians()
    config = CompressConfig(tune_steps=5, stages=("quantise",), appearance="auto")
    surroundings = toy_surroundings(truth)
    report = compress(canonical_still(learned, 2.0), tmp_path / "a.kino", config, surroundings, Metadata(duration=2.0))
    assert "sh_dc" in report.coding
    assert KinoReader(tmp_path / "a.kino").prelude.version == 1


def rewritten(data: bytes, change: dict[str, object]) -> bytes:
    """The file with entries of its header replaced, checksums right, nothing else moved."""
    header_bytes = struct.unpack_from("<I", data, 12)[0]
    header = json.loads(data[48 : 48 + header_bytes]) | change
    text = json.dumps(header, separators=(",", ":")).encode().ljust(header_bytes)
    assert len(text) == header_bytes
    fields = list(PRELUDE.unpack(data[:48]))
    fields[5] = zlib.crc32(text)
    start = PRELUDE.pack(*fields)[:44]
    return start + struct.pack("<I", zlib.crc32(start)) + text + data[48 + header_bytes :]


def test_networks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path, _ = networks_file(tmp_path, moving=True)
    data = path.read_bytes()
    assert len(read_kino(rewritten(data, {})).gaussians) == 400
    for spec, complaint in (
        ({"frequencies": 7, "time_frequencies": 4}, "layer 0 of network `field` does not fit"),
        ({"frequencies": 8}, "two rows, one column a coordinate"),
        ({"frequencies": 99}, "`frequencies` is out of range"),
        ([], "an entry is no object"),
    ):
        with pytest.raises(InputError, match=complaint):
            read_kino(rewritten(data, {"appearance": spec}))
