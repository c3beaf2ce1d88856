"""Every export is read back by a reader that nobody here wrote, and shows the same picture."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compression.gaussian_sets import random_gaussians
from kinosplat.compression.formats import FORMATS, ExportFormat, export_gaussians, import_gaussians, import_scene
from kinosplat.compression.kino import Metadata
from kinosplat.errors import InputError
from kinosplat.render import Camera, Gaussians, rasterize
from kinosplat.render.gaussians import TIME_PARAMETER_NAMES
from kinosplat.render.losses import psnr
from kinosplat.render.rotations import matrix_from_quaternion
from kinosplat.scenes.scene import Similarity

SPLAT_TRANSFORM = os.environ.get("KINOSPLAT_SPLAT_TRANSFORM") or shutil.which("splat-transform")
STILL_FORMATS: tuple[ExportFormat, ...] = ("ply", "compressed-ply", "spz", "spz2", "spz4", "spz-fine", "sog", "splat")
POSITION_STEP = {  # of the 9-unit cloud of the tests
    "ply": 0.0,
    "compressed-ply": 9 / 1023 / 2,
    "spz": 2**-13,
    "spz2": 2**-13,
    "spz4": 2**-13,
    "spz-fine": 2**-13,
    "sog": 9 * 5 / 65535,  # the step of the logarithm times 1 + |x|
    "splat": 0.0,
    "glb": 0.0,
}
DEGREES = {"splat": 0}


def cloud(sh_degree: int = 3) -> Gaussians:
    """800 Gaussians of ordinary sizes and colours, no two at one place, with 40 kinds of view dependence."""
    gaussians = random_gaussians(800, sh_degree=sh_degree, moving=False)
    kinds = gaussians.sh_rest[torch.arange(800) % 40] + 0.05 * gaussians.sh_rest
    return replace(
        gaussians, log_scales=gaussians.log_scales + 1.0, sh_dc=gaussians.sh_dc.clamp(-1.2, 1.2), sh_rest=kinds
    )


def picture(gaussians: Gaussians) -> torch.Tensor:
    """(1, 96, 128, 3) seen from 8 units away."""
    pose = torch.eye(4)
    pose[2, 3] = 8.0
    camera = Camera(pose, torch.tensor([[130.0, 0, 64], [0, 130, 48], [0, 0, 1]]), 128, 96)
    return rasterize(gaussians, [camera]).rgb.detach()


def matched(found: Gaussians, expected: Gaussians) -> Gaussians:
    """`expected` in the order of `found`, by position."""
    nearest = torch.cdist(found.means.double(), expected.means.double()).argmin(dim=1)
    assert len(set(nearest.tolist())) == len(expected)
    return expected.select(nearest)


def check_same(found: Gaussians, gaussians: Gaussians, format: str) -> None:
    """Same count, positions within the format's step, same rotations and colours, same picture."""
    assert len(found) == len(gaussians)
    expected = matched(found, gaussians)
    assert (found.means - expected.means).abs().max() <= POSITION_STEP[format] + 1e-5
    similarity = (torch.nn.functional.normalize(found.quats, dim=1) * expected.quats).sum(dim=1).abs()
    assert similarity.min() > 0.9998  # bytes of a quaternion: measured 0.99997
    assert found.sh_degree == DEGREES.get(format, 3)
    kept = gaussians.sh_rest if found.sh_degree else torch.zeros(len(gaussians), 0, 3)
    reference = picture(replace(gaussians, sh_rest=kept))
    decibels = psnr(picture(found), reference).item()
    # Measured: compressed-ply 49.3, spz-fine 51.6, spz 39.4, spz2 39.4, sog 49.9 dB; ply is exact.
    assert decibels > {"ply": 99, "glb": 99, "spz": 38, "spz2": 38, "spz4": 38, "spz-fine": 48}.get(format, 45)


@pytest.mark.parametrize("format", [*STILL_FORMATS, "glb"])
def test_our_own_reader_finds_what_was_written(format: ExportFormat, tmp_path: Path) -> None:
    gaussians = cloud()
    path = export_gaussians(gaussians, tmp_path / f"scene{FORMATS[format].suffix}", format)
    check_same(import_gaussians(path), gaussians, format)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.skipif(SPLAT_TRANSFORM is None, reason="needs splat-transform of npm's @playcanvas/splat-transform")
@pytest.mark.parametrize("format", STILL_FORMATS)
def test_splat_transform_finds_what_was_written(format: ExportFormat, tmp_path: Path) -> None:
    gaussians = cloud()
    path = export_gaussians(gaussians, tmp_path / f"scene{FORMATS[format].suffix}", format)
    table = tmp_path / "scene.csv"
    assert SPLAT_TRANSFORM is not None
    subprocess.run([SPLAT_TRANSFORM, "-q", "-w", str(path), str(table)], check=True, capture_output=True)
    check_same(read_table(table), gaussians, format)


@pytest.mark.skipif(SPLAT_TRANSFORM is None, reason="needs splat-transform of npm's @playcanvas/splat-transform")
@pytest.mark.parametrize("format", ["compressed-ply", "spz", "spz4", "sog"])
def test_what_splat_transform_writes_is_read(format: ExportFormat, tmp_path: Path) -> None:
    gaussians = cloud()
    source = export_gaussians(gaussians, tmp_path / "scene.ply", "ply")
    path = tmp_path / f"theirs{FORMATS[format].suffix}"
    versions: dict[str, str] = {"spz": "3", "spz4": "4"}
    version = ["--spz-version", versions[format]] if format in versions else []
    assert SPLAT_TRANSFORM is not None
    command = [SPLAT_TRANSFORM, "-q", "-w", "-g", "cpu", *version, str(source), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    found = import_gaussians(path)
    assert len(found) == len(gaussians)
    # Measured 49.3 (compressed PLY), 39.4 (SPZ), 54.4 dB (SOG).
    assert psnr(picture(found), picture(gaussians)).item() > {"spz": 36, "spz4": 36}.get(format, 44)


def read_table(path: Path) -> Gaussians:
    """Gaussians of a CSV that splat-transform wrote."""
    with path.open() as file:
        rows = list(csv.DictReader(file))

    def columns(*names: str) -> torch.Tensor:
        return torch.tensor([[float(row[name]) for name in names] for row in rows])

    n_rest = sum(name.startswith("f_rest_") for name in rows[0])
    rest = columns(*(f"f_rest_{i}" for i in range(n_rest))).reshape(len(rows), 3, n_rest // 3).transpose(1, 2)
    return Gaussians(
        means=columns("x", "y", "z"),
        quats=columns(*(f"rot_{i}" for i in range(4))),
        log_scales=columns(*(f"scale_{i}" for i in range(3))),
        opacity_logits=columns("opacity")[:, 0],
        sh_dc=columns(*(f"f_dc_{i}" for i in range(3))),
        sh_rest=rest.contiguous(),
    )


def test_plyfile_reads_our_ply_and_we_read_its(tmp_path: Path) -> None:
    plyfile = pytest.importorskip("plyfile")
    gaussians = cloud(sh_degree=2)
    path = export_gaussians(gaussians, tmp_path / "scene.ply", "ply")
    vertex = plyfile.PlyData.read(path)["vertex"]
    assert np.array_equal(np.stack([vertex[axis] for axis in "xyz"], axis=1), gaussians.means.numpy())
    # INRIA's order: all coefficients of red, then of green, then of blue.
    assert np.array_equal(vertex["f_rest_9"], gaussians.sh_rest[:, 1, 1].numpy())
    for text, order in ((True, "="), (False, "<"), (False, ">")):
        copy = tmp_path / "copy.ply"
        plyfile.PlyData([plyfile.PlyElement.describe(vertex.data, "vertex")], text=text, byte_order=order).write(copy)
        assert torch.allclose(import_gaussians(copy).sh_rest, gaussians.sh_rest, rtol=1e-6)


def test_a_moving_set_survives_ply_to_the_bit(tmp_path: Path) -> None:
    gaussians = random_gaussians(50, n_still=10)
    found = import_gaussians(export_gaussians(gaussians, tmp_path / "scene.ply", "ply"))
    for name, tensor in gaussians.parameters().items():
        assert torch.equal(found.parameters()[name], tensor), name


def test_four_dgs_is_read_by_its_own_package(tmp_path: Path) -> None:
    fourdgs = pytest.importorskip("fourdgs")
    moving = random_gaussians(800, n_still=100).parameters()
    gaussians = Gaussians(**(cloud().parameters() | {name: moving[name] for name in TIME_PARAMETER_NAMES}))
    path = export_gaussians(gaussians, tmp_path / "scene.4dgs", "4dgs", metadata=Metadata(duration=2.0))
    state = fourdgs.read(str(path)).gaussians.state_at(0.7, cutoff=1 / 255)
    moment = gaussians.at(0.7)
    distance = torch.cdist(torch.from_numpy(state["centers"]), moment.means.double()).amin(dim=1)
    assert distance.max() < 0.02  # its default profile promises hundredths; measured 0.004
    found = import_gaussians(path)
    for time in (0.0, 0.7, 2.0):
        assert psnr(picture(found.at(time)), picture(gaussians.at(time))).item() > 40  # measured 44.6


def test_gltf_is_read_by_another_importer(tmp_path: Path) -> None:
    fourdgs = pytest.importorskip("fourdgs")
    gaussians = cloud()
    path = export_gaussians(gaussians, tmp_path / "scene.glb", "glb")
    imported = fourdgs.from_gltf(str(path))
    scene = imported.gaussians
    assert np.array_equal(scene.positions, gaussians.means.numpy())
    assert np.allclose(scene.scales, np.exp(gaussians.log_scales.numpy()), rtol=1e-6)
    assert np.abs((scene.rotations[:, [3, 0, 1, 2]] * gaussians.quats.numpy()).sum(axis=1)).min() > 0.99999
    assert scene.sh_degree == 3
    assert "srgb-rec709-display" in imported.metadata.values()


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (0.6, 0.0, -0.8)])
def test_gltf_is_turned_upright_and_read_as_it_was(up: tuple[float, float, float], tmp_path: Path) -> None:
    path = export_gaussians(cloud(), tmp_path / "scene.glb", "glb", metadata=Metadata(up=up))
    data = path.read_bytes()
    node = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])["nodes"][0]
    x, y, z, w = node["rotation"]
    turned = matrix_from_quaternion(torch.tensor([w, x, y, z])) @ torch.tensor(up)
    assert turned.tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-6)
    found = import_scene(path)
    assert found.metadata.up == pytest.approx(up, abs=1e-6)
    assert torch.equal(found.gaussians.means, cloud().means)


def test_a_gltf_file_that_is_not_like_ours_is_refused(tmp_path: Path) -> None:
    data = export_gaussians(cloud(0), tmp_path / "scene.glb", "glb").read_bytes()
    for old, new, complaint in (
        (b'"nodes":[{"mesh":0}]', b'"nodes":[{"nesh":0}]', "no primitive has KHR_gaussian_splatting"),
        (b'"generator":"kinosplat"}', b'"generator":"kinosplat"]', "is not a GLB of Gaussians that can be read"),
        (b'"count":800', b'"count":900', "is cut off"),
        (b'"count":800', b'"count":-80', "is cut off"),
        (b'"type":"VEC4"', b'"type":"VEC3"', "ROTATION is not stored as VEC4 of floats"),
    ):
        path = tmp_path / "other.glb"
        path.write_bytes(data.replace(old, new))
        with pytest.raises(InputError, match=complaint):
            import_scene(path)


@pytest.mark.parametrize("format", ["spz", "spz2", "spz4"])
def test_spz_says_how_it_was_trained(format: ExportFormat, tmp_path: Path) -> None:
    for antialiased in (False, True):
        path = tmp_path / "scene.spz"
        export_gaussians(cloud(), path, format, metadata=Metadata(antialiased=antialiased))
        assert import_scene(path).metadata.antialiased is antialiased


def test_four_dgs_keeps_the_clip_and_what_stands_still(tmp_path: Path) -> None:
    pytest.importorskip("fourdgs")
    clip = Metadata(duration=29 / 15, fps=15.0)
    found = import_scene(export_gaussians(random_gaussians(100), tmp_path / "clip.4dgs", "4dgs", metadata=clip))
    assert found.metadata.duration == pytest.approx(29 / 15)
    assert found.metadata.fps == 15.0
    still = import_scene(export_gaussians(cloud(), tmp_path / "still.4dgs", "4dgs"))
    assert not still.gaussians.is_moving


def test_a_shorter_sequence_leaves_no_frame_of_a_longer_one(tmp_path: Path) -> None:
    gaussians, folder = random_gaussians(60), tmp_path / "frames"
    for duration in (1.0, 0.5):
        export_gaussians(gaussians, folder, "ply-sequence", metadata=Metadata(duration=duration, fps=4))
    assert sorted(file.name for file in folder.iterdir()) == [f"frame_{i:05d}.ply" for i in range(3)]
    assert [file.name for file in tmp_path.iterdir()] == ["frames"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something other than frames; give another --out"):
        export_gaussians(gaussians, folder, "ply-sequence", metadata=Metadata(duration=0.5, fps=4))
    assert (folder / "notes.txt").exists()


def test_a_frame_sequence_shows_each_moment(tmp_path: Path) -> None:
    gaussians = random_gaussians(60)
    folder = export_gaussians(gaussians, tmp_path / "frames", "ply-sequence", metadata=Metadata(duration=1.0, fps=4))
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"frame_{i:05d}.ply" for i in range(5)]
    difference = (picture(import_gaussians(files[3])) - picture(gaussians.at(0.75))).abs().max()
    assert difference < 1e-5


def test_exports_are_in_the_frame_and_scale_of_the_input(tmp_path: Path) -> None:
    gaussians = random_gaussians(40)
    to_input = Similarity(scale=3.0, offset=(1.0, -2.0, 5.0))
    found = import_gaussians(
        export_gaussians(gaussians, tmp_path / "scene.ply", "ply", metadata=Metadata(to_input=to_input))
    )
    assert torch.allclose(found.means, to_input.apply(gaussians.means))
    assert torch.allclose(found.log_scales.exp(), 3.0 * gaussians.log_scales.exp())
    assert torch.allclose(found.at(0.9).means, to_input.apply(gaussians.at(0.9).means), atol=1e-4)


def test_still_formats_take_a_moment(tmp_path: Path) -> None:
    gaussians = random_gaussians(200)
    path = export_gaussians(gaussians, tmp_path / "scene.ply", "ply", time=0.5)
    found = import_gaussians(path)
    assert not found.is_moving
    assert 0 < len(found) < 200
    with pytest.raises(InputError) as caught:
        export_gaussians(gaussians, tmp_path / "scene.spz", "spz")
    assert str(caught.value) == "This format holds one moment of a moving scene; say which with --time SECONDS."
    assert not (tmp_path / "scene.spz").exists()


@pytest.mark.parametrize("suffix", [".ply", ".compressed.ply", ".spz", ".sog", ".splat", ".glb", ".4dgs"])
def test_damaged_imports_end_in_a_sentence(suffix: str, tmp_path: Path) -> None:
    if suffix == ".4dgs":
        pytest.importorskip("fourdgs")
    formats = {format.suffix: name for name, format in reversed(FORMATS.items())}
    path = export_gaussians(
        cloud(sh_degree=1), tmp_path / f"scene{suffix}", formats[suffix], metadata=Metadata(duration=1.0)
    )
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    n_refused = 0
    for i in range(60):
        cut = int(rng.integers(0, len(data)))
        mutant = bytearray(data[:cut]) if i % 2 else bytearray(data)
        for place in rng.integers(0, max(min(len(mutant), 600), 1), 3):
            if mutant:
                mutant[min(place, len(mutant) - 1)] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(mutant)
        try:
            import_gaussians(path)
        except InputError as error:
            n_refused += 1
            assert str(path) in str(error)  # noqa: PT017
    assert n_refused > 20


def test_files_that_are_something_else_are_named(tmp_path: Path) -> None:
    path = tmp_path / "scene.ply"
    path.write_text("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n")
    with pytest.raises(InputError) as caught:
        import_gaussians(path)
    message = f"{path} has no column `y`; give a PLY of Gaussians as 3DGS tools write it."
    assert str(caught.value) == message
    with pytest.raises(InputError) as caught:
        import_gaussians(tmp_path / "scene.obj")
    assert str(caught.value) == f"{tmp_path / 'scene.obj'} does not exist; check the path."
