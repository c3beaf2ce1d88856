"""What goes into a .kino file comes out again: exactly, or within half a step of the chosen coding."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compression.gaussian_sets import random_gaussians, sorted_rows
from kinosplat.compression.canonical import canonical_axes, canonical_still
from kinosplat.compression.kino import (
    CodebookCoding,
    Coding,
    FloatCoding,
    KinoReader,
    Metadata,
    MortonCoding,
    QuantisedCoding,
    RotationCoding,
    StartCamera,
    StreamDecoder,
    describe,
    encode_kino,
    read_kino,
    write_kino,
)
from kinosplat.compression.kino.codings import decode_rotation, encode_rotation
from kinosplat.compression.kino.tensors import StoredTensor, store_tensor
from kinosplat.compression.morton import deinterleave, interleave
from kinosplat.render.camera import Camera
from kinosplat.render.gaussians import Gaussians, concatenate
from kinosplat.scenes.scene import Similarity

CLIP = Metadata(duration=2.0, fps=30.0)
SMALL_CODINGS: dict[str, Coding] = {
    "means": MortonCoding(14),
    "quats": RotationCoding(8),
    "log_scales": QuantisedCoding(7),
    "opacity_logits": QuantisedCoding(6),
    "sh_dc": QuantisedCoding(8),
    "sh_rest": FloatCoding(16),
    "displacements": QuantisedCoding(9),
    "time_centres": QuantisedCoding(10),
    "log_durations": QuantisedCoding(7),
}


def rotation_matrices(quats: torch.Tensor) -> torch.Tensor:
    w, x, y, z = torch.nn.functional.normalize(quats.double(), dim=1).unbind(1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]
    rows += [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]
    rows += [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, dim=1).reshape(-1, 3, 3)


def short_lived(gaussians: Gaussians) -> Gaussians:
    """The same set with no moving Gaussian lasting longer than 0.08 s."""
    log_durations = gaussians.log_durations
    assert log_durations is not None
    short = torch.where(log_durations.isfinite(), log_durations.clamp_max(-2.5), log_durations)
    return Gaussians(**(gaussians.parameters() | {"log_durations": short}))


def covariances(gaussians: Gaussians) -> torch.Tensor:
    r = rotation_matrices(gaussians.quats)
    return r @ torch.diag_embed(torch.exp(2 * gaussians.log_scales.double())) @ r.mT


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
@pytest.mark.parametrize(("moving", "n_still"), [(False, 0), (True, 0), (True, 37), (True, 101)])
def test_float32_comes_back_to_the_bit(sh_degree: int, moving: bool, n_still: int) -> None:
    gaussians = random_gaussians(101, sh_degree=sh_degree, moving=moving, n_still=n_still)
    read = read_kino(encode_kino(gaussians, metadata=CLIP, chunk_gaussians=(10, 30))).gaussians
    assert read.is_moving == moving
    assert torch.equal(sorted_rows(read), sorted_rows(gaussians))


@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("moving", [False, True])
def test_tiny_and_empty_sets_survive_every_coding(n: int, moving: bool) -> None:
    gaussians = random_gaussians(n, moving=moving)
    codings = {name: coding for name, coding in SMALL_CODINGS.items() if name in gaussians.parameters()}
    for chosen in ({}, codings):
        read = read_kino(encode_kino(gaussians, chosen, metadata=CLIP)).gaussians
        assert len(read) == n
        assert read.is_moving == moving
        assert read.sh_degree == 1


def test_coded_values_are_within_half_a_step() -> None:
    gaussians = random_gaussians(500)
    reader = KinoReader(encode_kino(gaussians, SMALL_CODINGS, metadata=CLIP))
    assert len(reader.chunks) == 1
    read = reader.gaussians()
    nearest = torch.cdist(read.means.double(), gaussians.means.double()).argmin(dim=1)
    expected = gaussians.select(nearest)
    for name, coding in SMALL_CODINGS.items():
        values, target = getattr(read, name), getattr(expected, name)
        if isinstance(coding, MortonCoding | QuantisedCoding):
            step = (target.amax(dim=0) - target.amin(dim=0)) / (2**coding.bits - 1)
            assert ((values - target).abs() <= 0.5001 * step).all(), name
    assert (read.sh_rest - expected.sh_rest).abs().max() < 2e-4  # half of float16's step below 0.5: 1.2e-4
    angle = 2 * torch.acos((read.quats * expected.quats).sum(dim=1).abs().clamp_max(1))
    assert (
        angle.max() < math.sqrt(3) * (math.sqrt(2) - 1) / 127
    )  # half a step of 2 * 0.414 / 254 on three axes, doubled


def test_reading_twice_and_writing_again_gives_the_same_gaussians() -> None:
    gaussians = random_gaussians(300)
    once = read_kino(encode_kino(gaussians, SMALL_CODINGS, metadata=CLIP)).gaussians
    twice = read_kino(encode_kino(once, metadata=CLIP)).gaussians
    assert torch.equal(sorted_rows(twice), sorted_rows(once))


def test_codebooks_deliver_their_rows() -> None:
    gaussians = random_gaussians(200, sh_degree=1)
    rng = np.random.default_rng(1)
    books = (rng.normal(size=(300, 4)).astype(np.float32), rng.normal(size=(7, 5)).astype(np.float32))
    indices = np.stack([rng.integers(0, 300, 200), rng.integers(0, 7, 200)], axis=1)
    coding = CodebookCoding(books, indices, table_bits=32)
    file = read_kino(encode_kino(gaussians, {"sh_rest": coding}, metadata=CLIP, chunk_gaussians=(20, 50)))
    expected = np.concatenate([books[0][indices[:, 0]], books[1][indices[:, 1]]], axis=1)
    order = torch.cdist(file.gaussians.means, gaussians.means).argmin(dim=1)
    assert np.array_equal(file.gaussians.sh_rest.reshape(200, 9).numpy(), expected[order.numpy()])
    assert set(file.tensors) == {"sh_rest.0", "sh_rest.1"}


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_tensors_keep_their_shape_and_precision(bits: int) -> None:
    values = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    tensors = {
        "weights": store_tensor(values, bits),
        "counts": StoredTensor(np.arange(12, dtype=np.int32).reshape(3, 4)),
    }
    file = read_kino(encode_kino(None, tensors=tensors, kind="hash-grid"))
    assert file.kind == "hash-grid"
    assert len(file.gaussians) == 0
    assert np.array_equal(file.tensors["counts"], np.arange(12).reshape(3, 4))
    tolerance = {8: 0.5001 * np.ptp(values, axis=0).max() / 255, 16: 2e-3, 32: 0.0}[bits]
    assert np.abs(file.tensors["weights"] - values).max() <= tolerance


def test_a_moment_needs_only_the_chunks_seen_then_and_loses_nothing() -> None:
    gaussians = short_lived(random_gaussians(3000, sh_degree=0, n_still=100))
    reader = KinoReader(encode_kino(gaussians, metadata=CLIP, chunk_gaussians=(50, 400)))
    assert [c.first_time for c in reader.chunks] == sorted(c.first_time for c in reader.chunks)
    for time in (0.0, 0.7, 2.0):
        part, whole = reader.at(time), gaussians
        assert len(part) < 0.7 * len(whole)
        visible = [torch.sigmoid(s.at(time).opacity_logits) >= 1 / 255 for s in (part, whole)]
        assert visible[0].sum() == visible[1].sum()


def test_a_stream_delivers_the_same_file_in_order_of_time() -> None:
    gaussians = short_lived(random_gaussians(2000, sh_degree=0, n_still=300))
    data = encode_kino(gaussians, metadata=CLIP, chunk_gaussians=(50, 300))
    decoder, sets, progress = StreamDecoder(), [], []
    for start in range(0, len(data), 777):
        sets += decoder.feed(data[start : start + 777])
        progress.append(decoder.complete_before)
    assert torch.equal(sorted_rows(concatenate(sets)), sorted_rows(gaussians))
    assert progress == sorted(progress)
    assert progress[-1] == math.inf
    assert progress[3 * len(progress) // 4] >= 0.0
    assert decoder.metadata is not None
    assert decoder.metadata.fps == 30.0


def test_the_first_frame_of_a_clip_is_there_before_its_file() -> None:
    """30 000 Gaussians over 5 seconds with the writer's own chunks, a third of them still."""
    gaussians = random_gaussians(30_000, sh_degree=0, n_still=10_000)
    assert gaussians.time_centres is not None
    assert gaussians.log_durations is not None
    clip = replace(gaussians, time_centres=2.5 * gaussians.time_centres, log_durations=gaussians.log_durations + 0.8)
    codings = {name: coding for name, coding in SMALL_CODINGS.items() if name != "sh_rest"}
    data = encode_kino(clip, codings, metadata=Metadata(duration=5.0, fps=30.0))
    decoder, sets = StreamDecoder(), []
    n_bytes = 0
    while decoder.complete_before <= 0.0:
        sets += decoder.feed(data[n_bytes : n_bytes + 4096])
        n_bytes += 4096
    assert n_bytes < 0.72 * len(data)  # measured 0.67
    shown = [int((torch.sigmoid(s.at(0.0).opacity_logits) >= 1 / 255).sum()) for s in (concatenate(sets), clip)]
    assert shown[0] == pytest.approx(shown[1], rel=1e-3)  # opacities are rounded
    whole = encode_kino(clip, codings, metadata=Metadata(duration=5.0, fps=30.0), chunk_gaussians=(30_000, 65_536))
    assert len(data) < 1.04 * len(whole)  # measured 1.028, as ranges of chunks are narrower at the same bits


def test_metadata_comes_back() -> None:
    camera = Camera(torch.eye(4), torch.tensor([[100.0, 0, 64], [0, 100, 48], [0, 0, 1]]), 128, 96, time=0.5)
    metadata = Metadata(
        up=(0.0, 0.0, 1.0),
        fps=25.0,
        duration=2.0,
        background=(1.0, 1.0, 1.0),
        cameras=(StartCamera.of(camera, "front"),),
        to_input=Similarity(2.5, (1.0, 2.0, 3.0)),
        provenance={"scene": "a scene", "steps": 3000, "psnr": 30.5},
    )
    gaussians = random_gaussians(50)
    read = read_kino(encode_kino(gaussians, metadata=metadata)).metadata
    assert read.bounds is not None
    assert np.allclose(read.bounds[0], gaussians.means.amin(dim=0), atol=1e-6)
    assert Metadata(**(vars(read) | {"bounds": None})) == metadata
    again = read.cameras[0].camera()
    assert torch.equal(again.K, camera.K)
    assert again.time == 0.5


def test_the_file_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "scene.kino"
    codings = SMALL_CODINGS | {"sh_rest": QuantisedCoding(3)}
    size = write_kino(path, random_gaussians(400), codings, metadata=CLIP)
    assert size == path.stat().st_size
    text = describe(path)
    assert f"{path}: .kino version 1, {size:,} bytes, gaussians" in text
    assert "400 Gaussians (400 moving) in 1 chunks" in text
    assert "means                  3  morton 14" in text
    assert not list(tmp_path.glob("*.partial"))


def test_canonical_axes_keep_the_ellipsoid_and_bound_the_rotation() -> None:
    generator = torch.Generator().manual_seed(3)
    gaussians = random_gaussians(2000, moving=False)
    turned = Gaussians(**(gaussians.parameters() | {"quats": torch.randn(2000, 4, generator=generator)}))
    canonical = canonical_axes(turned)
    ratios = canonical.quats[:, 1:] / canonical.quats[:, :1]
    assert ratios.abs().max() <= math.sqrt(2) - 1 + 1e-6
    difference = (covariances(canonical) - covariances(turned)).abs().amax(dim=(1, 2))
    assert (difference <= 1e-5 * covariances(turned).abs().amax(dim=(1, 2))).all()  # float32 quaternions: measured 6e-7


def test_rotations_decode_to_what_the_formula_says() -> None:
    identity = np.array([[1, 0, 0, 0]], np.float32)
    assert np.array_equal(decode_rotation(encode_rotation(identity, 8), 8), identity)
    with pytest.raises(ValueError, match="quats are not in canonical form; call canonical_axes"):
        encode_rotation(np.array([[0.1, 1, 0, 0]], np.float32), 8)


def test_long_lived_gaussians_become_still() -> None:
    gaussians = random_gaussians(4)
    changed = gaussians.parameters() | {
        "log_durations": torch.tensor([5.0, 5.0, -1.0, math.inf]),
        "displacements": torch.tensor([[0.0, 0, 0], [100.0, 0, 0], [0, 0, 0], [0, 0, 0]]),
    }
    before = Gaussians(**changed)
    still = canonical_still(before, duration=2.0)
    assert still.log_durations is not None
    assert torch.isposinf(still.log_durations).tolist() == [True, False, False, True]
    assert torch.allclose(still.at(1.0).means, before.at(1.0).means)


def test_morton_codes_invert() -> None:
    cells = np.random.default_rng(0).integers(0, 2**21, (1000, 3))
    assert np.array_equal(deinterleave(interleave(cells)), cells)
    assert interleave(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [2, 0, 0]])).tolist() == [1, 2, 4, 8]


def test_what_cannot_be_stored_is_refused() -> None:
    gaussians = random_gaussians(5)
    broken = gaussians.means.clone()
    broken[2, 1] = math.nan
    with pytest.raises(ValueError, match="means holds values that are not finite"):
        encode_kino(Gaussians(**(gaussians.parameters() | {"means": broken})))
    with pytest.raises(ValueError, match="codings names colour, which the Gaussians do not have"):
        encode_kino(gaussians, {"colour": FloatCoding(16)})
    still = Gaussians(**(gaussians.parameters() | {"log_durations": torch.full((5,), math.inf)}))
    with pytest.raises(ValueError, match="call canonical_still before writing"):
        encode_kino(still)
