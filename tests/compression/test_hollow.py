"""Hash-grid fields in a file: what is left of them is stored, and drawn as it was."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compression.small_fields import CPU, LAYOUT, small_field
from kinosplat.cli import main
from kinosplat.compression.hollow import (
    KIND,
    StoredField,
    load_field,
    model_of,
    tensors_of,
)
from kinosplat.compression.kino import (
    KinoFile,
    KinoReader,
    Limits,
    Metadata,
    StartCamera,
    describe,
    read_kino,
    write_kino,
)
from kinosplat.compression.mesh.field_density import FieldDensity
from kinosplat.compression.mesh.mesh import Mesh, read_mesh, write_mesh
from kinosplat.data.ground_truth import load_ground_truth
from kinosplat.errors import InputError
from kinosplat.opening import open_subject
from kinosplat.render.camera import Camera, look_at
from kinosplat.scenes import load_scene
from kinosplat.scenes.scene import Similarity


def camera() -> Camera:
    """Outside, looking in."""
    K = torch.tensor([[30.0, 0, 12], [0, 30.0, 9], [0, 0, 1]])
    place, up = torch.tensor([0.0, -5.0, 1.0]), torch.tensor([0.0, 0, 1])
    return look_at(place, torch.zeros(3), up, K=K, width=24, height=18)


def written(stored: StoredField, path: Path, bits: int = 8) -> KinoFile:
    """The file as it is read back."""
    cameras = Metadata(background=(1.0, 1.0, 1.0))
    write_kino(path, None, tensors=tensors_of(stored, bits), metadata=cameras, kind=KIND, model=model_of(stored))
    return read_kino(path)


@pytest.mark.parametrize("hollow", [False, True])
def test_a_field_is_drawn_as_it_was_rounded(hollow: bool, tmp_path: Path) -> None:
    stored = small_field(hollow=hollow)
    found = load_field(written(stored, tmp_path / "a.kino", bits=6), "a.kino", CPU)
    rounded = stored.rounded(6)
    assert found.field.index is not None
    assert torch.equal(found.field.whole().table, rounded.field.table)
    assert found.near == stored.near
    assert found.field.shape == stored.field.shape
    assert found.n_left(6) == stored.n_left(6) < 0.4 * LAYOUT.n_entries
    background = torch.ones(3)
    a, b = (field.render([camera()], background).rgb for field in (found, rounded))
    unpacked = replace(found, field=found.field.whole())
    # Sums of a level may be ordered otherwise: measured 2e-7.
    torch.testing.assert_close(a, unpacked.render([camera()], background).rgb, rtol=0, atol=1e-5)
    sparse, whole = (field.render([camera()], background, geometry=True) for field in (found, unpacked))
    torch.testing.assert_close(sparse.normal, whole.normal, rtol=0, atol=1e-3)
    # Weights are halves, logits of the mask have 8 bits: measured 0.002 and 0.01.
    assert (a - b).abs().max() < 0.05
    assert a.std() > 0.01


def test_a_file_of_a_field_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    file = written(small_field(hollow=True), tmp_path / "a.kino")
    for change, complaint in (
        ({"levels": 5}, "has another shape|wrong shape"),
        ({"levels": 0}, "`levels` must be a whole number from 1 to 32"),
        ({"hidden": 32}, "`density.0` has another shape|`density.1` has another shape"),
        ({"occupancy_resolution": 24}, "another number of cells"),
        ({"near": -1.0}, "near must be a positive distance"),
    ):
        with pytest.raises(InputError, match=complaint):
            load_field(replace(file, model={**file.model, **change}), "a.kino", CPU)
    with pytest.raises(InputError, match="'near'"):
        load_field(replace(file, model={k: v for k, v in file.model.items() if k != "near"}), "a.kino", CPU)
    with pytest.raises(InputError, match="more memory than the limit"):
        load_field(file, "a.kino", CPU, Limits(decoded_bytes=1000))


def test_made_up_fields_are_refused_or_drawn(tmp_path: Path) -> None:
    """Checksums are right and every number is anything: nothing but InputError, quickly, and no read out of bounds."""
    files = [written(small_field(hollow=hollow), tmp_path / "a.kino") for hollow in (False, True)]
    rng = np.random.default_rng(0)
    n_drawn = 0
    for i in range(N_MADE_UP):
        file = files[i % 2]
        model, tensors = dict(file.model), dict(file.tensors)
        if i % 3 == 0:
            key = sorted(model)[rng.integers(len(model))]
            model[key] = WRONG_VALUES[rng.integers(len(WRONG_VALUES))]
        else:
            key = sorted(tensors)[rng.integers(len(tensors))]
            tensors[key] = made_up(tensors[key], rng)
        start = time.perf_counter()
        try:
            stored = load_field(replace(file, model=model, tensors=tensors), "a.kino", CPU)
        except InputError:
            continue
        finally:
            assert time.perf_counter() - start < 2.0
        n_drawn += 1
        if stored.grid.rule.n_steps <= 1024:
            stored.render([camera()], torch.ones(3))
    assert 10 < n_drawn < N_MADE_UP - 30


WRONG_VALUES = (None, -1, 0, 1, 3, 8, 64, 2**40, 1.5, float("nan"), float("inf"), "x", True, [], [0.0, 0.0], {})
N_MADE_UP = 150


def made_up(values: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Cut, lengthened, of another type or shape, or with other numbers in it."""
    kind = rng.integers(6)
    if kind == 0:
        return values[: len(values) // 2]
    if kind == 1:
        return np.concatenate([values, values])
    if kind == 2:
        return values.astype(np.int32)
    if kind == 3:
        return values.reshape(-1)
    changed = values.copy()
    places = rng.integers(0, len(values), 1 if kind == 4 else len(values))
    largest = 255 if values.dtype.itemsize == 1 else 60_000
    changed[places] = rng.integers(0, largest + 1, changed[places].shape).astype(values.dtype)
    return changed


def test_a_field_is_refused_where_gaussians_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.kino"
    written(small_field(hollow=False), path)
    for command in (["export", str(path), "--format", "kino"], ["export", str(path)], ["import", str(path)]):
        assert main([*command, "--out", str(tmp_path / "b.kino")]) == 2
        assert capsys.readouterr().err == (
            f"kinosplat: {path} holds a model of the kind hash-grid, which has no Gaussians; a mesh or a video can be "
            "made of it (`kinosplat export --format mesh` or `mp4`).\n"
        )
        assert not (tmp_path / "b.kino").exists()


def test_a_damaged_field_is_not_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.kino"
    written(small_field(hollow=True), path)
    assert main(["info", str(path)]) == 0
    text = capsys.readouterr().out
    assert "chunk" not in text
    assert "attribute" not in text
    assert "levels 4, " in text
    reader = KinoReader(path)
    entry = reader.header.tensors[2]
    data = bytearray(path.read_bytes())
    data[reader.prelude.data_offset + entry.offset + entry.n_bytes // 2] ^= 0xFF
    path.write_bytes(data)
    assert main(["info", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{path} is damaged in its tensor `{entry.name}`" in captured.err
    with pytest.raises(InputError, match="is damaged in its tensor"):
        describe(path)


@pytest.fixture
def field_file(tmp_path: Path) -> Path:
    """A field in a file whose input has two units for one of the scene's."""
    stored, path = small_field(hollow=False), tmp_path / "a.kino"
    metadata = Metadata(cameras=(StartCamera.of(camera()),), to_input=Similarity(2.0))
    write_kino(path, None, tensors=tensors_of(stored, 8), metadata=metadata, kind=KIND, model=model_of(stored))
    return path


def test_a_field_of_a_file_becomes_a_mesh(field_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("skimage")
    stored = small_field(hollow=False)
    assert main(["export", str(field_file), "--format", "mesh", "--voxel", "0.2", "--level", "0.1"]) == 0
    assert "triangles" in capsys.readouterr().out
    mesh = read_mesh(field_file.with_name("a.mesh.ply"))
    lower, upper = (2.0 * np.array(corner) for corner in FieldDensity(stored.field, stored.grid).density_box)
    assert (mesh.vertices >= lower).all()
    assert (mesh.vertices <= upper).all()
    # What the file holds is as dense as what was stored, but for rounding.
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(1)) * 3 - 1.5
    loaded = load_field(read_kino(field_file), "a.kino", CPU)
    a, b = (FieldDensity(field.field, field.grid).density_at(points) for field in (loaded, stored.rounded(8)))
    torch.testing.assert_close(a, b, rtol=0.02, atol=1e-3)  # weights are halves: measured 0.004
    assert (a > 0).any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--out", "a.obj"], "a.obj: the name of a file of --format mesh must end in .ply."),
        (["--level", "0"], "--level must be above 0, got 0."),
        (["--voxel", "-1"], "--voxel must be above 0, got -1."),
        (
            # The box is 4 scene units long, of which the input has two each.
            ["--voxel", "1e-4"],
            "--voxel makes 80,000 cells along the longest side, of which 1,024 can be held; give 0.0078 or more.",
        ),
    ],
)
def test_what_no_mesh_of_a_field_can_be_made_with_is_refused(
    options: list[str], sentence: str, field_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(field_file), "--format", "mesh", *options]) == 2
    assert capsys.readouterr().err == f"kinosplat: {sentence}\n"


@pytest.mark.parametrize("command", [["export", "--format", "mesh"], ["export", "--format", "mp4"], ["render"]])
def test_a_field_has_no_moment_to_choose(
    command: list[str], field_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, str(field_file), "--time", "0.5"]) == 2
    assert capsys.readouterr().err == (
        "kinosplat: --time chooses a moment of a clip, but a.kino stands still; leave it out.\n"
    )
    assert list(field_file.parent.iterdir()) == [field_file]


def test_densities_are_spoken_of_in_the_unit_of_the_input(field_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("skimage")
    assert main(["export", str(field_file), "--format", "mesh", "--voxel", "0.5", "--level", "1e9"]) == 2
    said = re.search(r"is nowhere 1e\+09; its largest value is (\S+): give", capsys.readouterr().err)
    assert said is not None
    largest = float(said[1])
    mesh = ["export", str(field_file), "--format", "mesh", "--voxel", "0.5", "--level"]
    assert main([*mesh, str(0.9 * largest)]) == 0
    assert main([*mesh, str(1.1 * largest)]) == 2


def test_a_mesh_is_measured_against_the_true_points_of_a_runs_scene(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, path = tmp_path / "run", tmp_path / "a.ply"
    options = "--scene tabletop --method hashgrid --steps 1 --downscale 8 --max-test-views 1 --samples 256 --levels 1"
    points = "--n-first-points 0 --log2-table-size 8 --occupancy-resolution 16 --ray-steps 16 --hidden 16"
    arguments = ["train", *options.split(), *points.split(), "--display", "quiet", "--run-dir", str(run)]
    assert main(arguments) == 0
    truth = load_ground_truth(load_scene("tabletop").root / "evaluation")
    seen = truth.points(0)[truth.is_visible(0) & truth.is_present(0)]
    # A triangle of a millimetre at every true point, 5 cm too high.
    corners = np.array([[0, 0, 0.05], [1e-3, 0, 0.05], [0, 1e-3, 0.05]])
    write_mesh(path, Mesh((seen[:, None] + corners).reshape(-1, 3), np.arange(3 * len(seen)).reshape(-1, 3)))
    assert main(["eval", str(run), "--mesh", str(path), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert (measured["spacing"], measured["cap"], measured["n_truth"]) == (0.01, 0.2, len(seen))
    # Less than 5 cm where other points are nearer: 3.53 and 3.02 cm, and 0.07 and 0.28 without the shift.
    assert measured["accuracy"] == pytest.approx(0.0353, rel=0.05)
    assert measured["completeness"] == pytest.approx(0.0302, rel=0.05)
    assert main(["eval", str(run), "--mesh", str(path), "--time", "0", "--cap", "0.01"]) == 2
    assert capsys.readouterr().err == "kinosplat: --spacing must be above 0 and below --cap, got 0.01 and 0.01.\n"
    assert main(["eval", str(run), "--cap", "0.1"]) == 2
    assert capsys.readouterr().err == "kinosplat: --cap says something of a --mesh only; leave it out.\n"


def test_a_run_of_a_field_is_compressed_explained_and_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = "--scene tabletop --method hollownerf --steps 12 --downscale 8 --max-test-views 1 --samples 2048"
    grid = "--levels 4 --log2-table-size 12 --finest-resolution 64 --hidden 16 --occupancy-resolution 16 --ray-steps 64"
    arguments = ["train", *options.split(), *grid.split(), "--display", "quiet", "--run-dir", str(run)]
    assert main(arguments) == 0
    assert main(["compress", str(run)]) == 0
    assert capsys.readouterr().out.startswith("stage          entries        size ")
    report = json.loads((run / "compression.json").read_text())
    path = run / "scene.kino"
    assert [stage["stage"] for stage in report["stages"]] == ["input", "file"]
    assert report["stages"][-1]["n_bytes"] == path.stat().st_size
    assert abs(report["loss"]) < 1.0
    assert report["ratio"] > 2
    assert json.loads((run / "report.json").read_text())["compressed"]["bytes"] == path.stat().st_size
    assert main(["info", str(run)]) == 0
    assert re.search(r"^ mask density +1 *$", capsys.readouterr().out, re.MULTILINE)
    assert main(["info", str(path)]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[0].endswith(KIND)
    assert "finest resolution 64, log2 table size 12" in told
    assert max(map(len, told.splitlines()[1:])) <= 120
    subject = open_subject(path, device="cpu")
    assert subject.render(subject.cameras[0], subject.background, geometry=False).rgb.isfinite().all()
    of_run = open_subject(run, device="cpu")
    assert list(subject.painters) == list(of_run.painters) == ["occupied cells", "saliency"]
    cells, saliency = (
        [paint(of_run.cameras[0]) for paint in (subject.painters[name], of_run.painters[name])]
        for name in subject.painters
    )
    assert torch.equal(*cells)
    # 5e-5 in a trained field: the mask is rounded to 8 bits.
    assert (saliency[0] - saliency[1]).abs().max() < 0.02
    assert main(["compress", str(run), "--target-size", "1MB"]) == 2
    assert "has no Gaussians to leave out for a bound; give --rounding-loss instead." in capsys.readouterr().err
    assert main(["compress", str(run), "--tune-steps", "10"]) == 2
    assert "--tune-steps is for Gaussians, and hollownerf has none; leave it out." in capsys.readouterr().err
