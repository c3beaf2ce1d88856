"""`kinosplat compress`, `export` and `info FILE` as a user meets them, on a run that takes seconds to train."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import imageio.v3 as iio
import pytest
import torch

from compression.gaussian_sets import random_gaussians
from compression.test_checkpoints_4d import captured
from kinosplat.cli import main
from kinosplat.compression.config import CompressConfig
from kinosplat.compression.formats import ExportFormat, export_gaussians, import_gaussians
from kinosplat.compression.kino import Metadata, StartCamera, read_kino, write_kino
from kinosplat.compression.surroundings import Surroundings
from kinosplat.errors import InputError
from kinosplat.opening import open_subject
from kinosplat.render.camera import look_at
from kinosplat.render.gaussians import Gaussians
from kinosplat.scenes.scene import Similarity
from kinosplat.trainers.compress import compress_run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 4dgs on the scene that ships with the project, a few steps long."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = "--method 4dgs --scene tabletop --steps 20 --max-gaussians 1500 --max-test-views 4 --near 0.3 --json"
    data = "--frames 0 3 --downscale 4"
    arguments = ["train", *options.split(), *data.split(), "--run-dir", str(folder), "--compress", "small"]
    assert main(arguments) == 0
    return folder


def test_one_command_trains_and_compresses(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads((run_dir / "report.json").read_text())["compressed"]
    assert report["file"] == "scene.kino"
    assert report["bytes"] == (run_dir / "scene.kino").stat().st_size
    stages = json.loads((run_dir / "compression.json").read_text())["stages"]
    assert [stage["stage"] for stage in stages] == ["input", "sample", "prune", "file"]
    assert report["psnr"] == stages[-1]["quality"]["psnr"]
    assert main(["info", str(run_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compressed"] == report


def test_a_file_is_drawn_as_its_run_was_trained(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another near plane, floaters before the cameras would hide the scene (15 dB instead of 28 on Panoptic)."""
    run_settings = open_subject(run_dir, device="cpu").settings
    assert run_settings.near == 0.3
    assert open_subject(run_dir / "scene.kino", device="cpu").settings.near == 0.3
    given = []

    def look(gaussians: Gaussians, path: Path, config: object, surroundings: Surroundings, metadata: Metadata) -> None:
        given.append(surroundings.settings)
        raise InputError("seen enough")

    monkeypatch.setattr("kinosplat.trainers.compress.compress", look)
    with pytest.raises(InputError):
        compress_run(run_dir, CompressConfig(), device="cpu")
    assert given == [run_settings]
    assert main(["export", str(run_dir), "--format", "kino", "--out", str(run_dir / "exact.kino")]) == 0
    assert read_kino(run_dir / "exact.kino").metadata == replace(
        read_kino(run_dir / "scene.kino").metadata, bounds=read_kino(run_dir / "exact.kino").metadata.bounds
    )


@pytest.mark.parametrize("stage", ["sample", "prune", "merge", "quantise"])
def test_each_stage_runs_and_is_reported_alone(run_dir: Path, stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_dir / f"{stage}.kino"
    arguments = ["compress", str(run_dir), "--stages", stage, "--tune-steps", "2", "--out", str(path), "--json"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    middle = [] if stage == "quantise" else [stage]
    assert [line["stage"] for line in report["stages"]] == ["input", *middle, "file"]
    assert report["stages"][-1]["n_bytes"] == path.stat().st_size
    assert len(read_kino(path).gaussians) == report["stages"][-1]["n_gaussians"]
    assert stage == "quantise" or report["stages"][-1]["n_gaussians"] < 1500


def test_stages_that_cannot_follow_one_another_are_refused(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", str(run_dir), "--stages", "quantise", "prune"]) == 2
    assert capsys.readouterr().err.endswith(
        "--stages must have quantise at the end: nothing can follow what is written to the file.\n"
    )
    assert main(["compress", str(run_dir), "--keep", "0"]) == 2
    assert "--keep must be above 0 and at most 1, got 0." in capsys.readouterr().err


def test_options_are_read_before_torch_is_loaded() -> None:
    """What is loaded after them is part of the time that the report says loading took."""
    program = """import contextlib, sys
from kinosplat.cli import main
with contextlib.suppress(SystemExit):
    main(["compress", "--help"])
print("torch" in sys.modules)"""
    shown = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert "--rounding-loss" in shown.stdout
    assert shown.stdout.endswith("False\n")


def test_a_run_is_compressed_and_explained(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compress", str(run_dir), "--preset", "small", "--tune-steps", "4", "--json"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    path = run_dir / "scene.kino"
    assert report["stages"][-1]["n_bytes"] == path.stat().st_size
    assert json.loads((run_dir / "compression.json").read_text())["ratio"] == report["ratio"]
    assert report["ratio"] > 20
    wall = report["wall"]
    assert sorted(wall) == ["loading", "measuring", "stages"]
    assert wall["stages"] >= sum(stage["seconds"] for stage in report["stages"])
    assert wall["measuring"] > 0.0
    metadata = read_kino(path).metadata
    assert metadata.fps == 15.0
    assert metadata.provenance["scene"] == "tabletop"
    assert len(metadata.cameras) == 2
    assert main(["info", str(path)]) == 0
    assert "Gaussians" in capsys.readouterr().out


def test_files_are_explained_for_people_and_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gaussians = random_gaussians(100, n_still=20)
    write_kino(tmp_path / "a.kino", gaussians, metadata=Metadata(duration=2.0, fps=30.0))
    assert main(["info", str(tmp_path / "a.kino"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["gaussians"], facts["moving"]) == ("gaussians", 100, 80)
    assert sum(chunk["bytes"] for chunk in facts["chunks"]) == sum(a["bytes"] for a in facts["attributes"])
    export_gaussians(gaussians, tmp_path / "a.ply", "ply")
    assert main(["info", str(tmp_path / "a.ply"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["gaussians"], facts["moving"], facts["sh_degree"]) == (100, 80, gaussians.sh_degree)
    assert main(["info", str(tmp_path / "nothing.ply")]) == 2
    assert capsys.readouterr().err == f"kinosplat: {tmp_path / 'nothing.ply'} does not exist; check the path.\n"


def test_a_run_is_explained_without_braces(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(run_dir)]) == 0
    text = capsys.readouterr().out
    assert "compressed file" in text
    assert "{" not in text
    assert "None" not in text


def test_a_reader_that_has_enough_ends_the_command_quietly(tmp_path: Path) -> None:
    write_kino(tmp_path / "a.kino", random_gaussians(20_000, moving=False), chunk_gaussians=(4, 8))
    command = [sys.executable, "-P", "-m", "kinosplat", "info", str(tmp_path / "a.kino")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_a_run_is_exported_in_the_frame_of_its_photos(run_dir: Path, tmp_path: Path) -> None:
    assert main(["export", str(run_dir), "--format", "spz", "--time", "0.1", "--out", str(tmp_path / "a.spz")]) == 0
    assert main(["export", str(run_dir), "--format", "ply", "--out", str(tmp_path / "a.ply")]) == 0
    moving, still = import_gaussians(tmp_path / "a.ply"), import_gaussians(tmp_path / "a.spz")
    assert moving.is_moving
    assert not still.is_moving
    # The table is 0.8 m in radius in the input's metres: most of what was learned is near it.
    assert 0.2 < still.means.norm(dim=1).median() < 3.0


def test_files_of_other_tools_become_kino_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gaussians = random_gaussians(100, n_still=20)
    source = export_gaussians(gaussians, tmp_path / "scene.ply", "ply")
    assert main(["export", str(source), "--format", "kino"]) == 0
    found = read_kino(tmp_path / "scene.kino").gaussians
    assert len(found) == 100
    assert torch.isposinf(found.log_durations).sum() == 20
    assert main(["export", str(source), "--format", "ply"]) == 2
    assert capsys.readouterr().err == f"kinosplat: {source} would be written over itself; give another --out.\n"


def test_a_kino_file_is_exported_in_the_frame_of_its_photos(tmp_path: Path) -> None:
    gaussians = random_gaussians(30, moving=False)
    to_input = Similarity(2.0, (1.0, 0.0, 0.0))
    write_kino(tmp_path / "scene.kino", gaussians, metadata=Metadata(to_input=to_input))
    assert main(["export", str(tmp_path / "scene.kino"), "--format", "splat"]) == 0
    found = import_gaussians(tmp_path / "scene.splat")
    expected = to_input.apply(gaussians.means)
    assert torch.cdist(found.means.double(), expected.double()).amin(dim=1).max() < 1e-6


def test_what_other_tools_wrote_is_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gaussians = random_gaussians(200, n_still=50)
    source = export_gaussians(gaussians, tmp_path / "clip.ply", "ply")
    assert main(["import", str(source), "--up", "0", "0", "1", "--fps", "24"]) == 0
    file = read_kino(tmp_path / "clip.kino")
    assert len(file.gaussians) == 200
    assert file.metadata.up == (0.0, 0.0, 1.0)
    assert file.metadata.fps == 24.0
    assert file.metadata.duration == pytest.approx(float(gaussians.time_centres.max()))
    assert len(file.metadata.cameras) == 1
    assert main(["import", str(tmp_path / "clip.kino")]) == 2
    assert "would be written over itself; give another --out." in capsys.readouterr().err


def test_a_clip_keeps_its_length_through_another_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fourdgs")
    metadata = Metadata(duration=29 / 15, fps=15.0)
    write_kino(tmp_path / "a.kino", random_gaussians(200, n_still=50), metadata=metadata)
    assert main(["export", str(tmp_path / "a.kino"), "--format", "4dgs"]) == 0
    assert main(["import", str(tmp_path / "a.4dgs"), "--out", str(tmp_path / "b.kino")]) == 0
    found = read_kino(tmp_path / "b.kino").metadata
    assert (found.duration, found.fps) == (pytest.approx(29 / 15), 15.0)
    assert len(open_subject(tmp_path / "b.kino", device="cpu").times) == 30
    export_gaussians(random_gaussians(50, moving=False), tmp_path / "still.4dgs", "4dgs")
    assert main(["import", str(tmp_path / "still.4dgs")]) == 0
    assert open_subject(tmp_path / "still.kino", device="cpu").times == ()
    assert main(["import", str(tmp_path / "still.4dgs"), "--fps", "3"]) == 2
    assert "still.4dgs stands still; leave out --duration and --fps." in capsys.readouterr().err


def test_a_checkpoint_around_zero_begins_at_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, iteration = captured(rot_4d=True)
    centres = torch.linspace(-0.5, 0.5, len(model[1]))[:, None]
    path = tmp_path / "chkpnt.pth"
    torch.save(((*model[:13], centres, *model[14:]), iteration), path)
    assert main(["import", str(path), "--seconds", "10"]) == 0
    file = read_kino(tmp_path / "chkpnt.kino")
    assert file.metadata.duration == pytest.approx(10.0)
    assert float(file.gaussians.time_centres.min()) == pytest.approx(0.0, abs=1e-5)
    assert main(["import", str(path), "--seconds", "10", "--start", "-1"]) == 0
    assert float(read_kino(tmp_path / "chkpnt.kino").gaussians.time_centres.min()) == pytest.approx(5.0)
    assert main(["import", str(path), "--seconds", "0"]) == 2
    assert capsys.readouterr().err == "kinosplat: --seconds must be above 0, got 0.\n"
    source = export_gaussians(random_gaussians(50), tmp_path / "clip.ply", "ply")
    assert main(["import", str(source), "--seconds", "2"]) == 2
    assert "clip.ply counts its time in seconds; leave out --seconds and --start." in capsys.readouterr().err


def test_the_number_that_is_printed_is_that_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_kino(tmp_path / "a.kino", random_gaussians(200), metadata=Metadata(duration=2.0, fps=2.0))
    assert main(["export", str(tmp_path / "a.kino"), "--time", "0.5"]) == 0
    n = len(import_gaussians(tmp_path / "a.ply"))
    assert n < 200
    assert capsys.readouterr().out.startswith(f"{n} Gaussians, ")
    assert main(["export", str(tmp_path / "a.kino"), "--format", "ply-sequence", "--out", str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out.startswith("5 frames, ")


@pytest.mark.parametrize(
    ("format", "option"),
    [("kino", "time"), ("4dgs", "time"), ("spz", "voxel"), ("mp4", "level"), ("ply", "fps"), ("mesh", "fps")],
)
def test_options_that_do_nothing_to_a_format_are_refused(
    format: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path), "--format", format, f"--{option}", "1"]) == 2
    assert capsys.readouterr().err == f"kinosplat: --{option} does nothing to {format}; leave it out.\n"


def test_a_file_is_named_as_its_format_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_kino(tmp_path / "a.kino", random_gaussians(20))
    out = tmp_path / "b.ply"
    assert main(["export", str(tmp_path / "a.kino"), "--format", "spz", "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"kinosplat: {out}: the name of a file of --format spz must end in .spz.\n"
    assert not out.exists()
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "a.kino"), "--format", "gltf"])
    # In the order of the documentation, not in that of a set.
    said = capsys.readouterr().err
    assert sorted(get_args(ExportFormat), key=lambda name: said.index(f"'{name}'")) == list(get_args(ExportFormat))


def test_a_file_becomes_a_video(tmp_path: Path) -> None:
    K = torch.tensor([[40.0, 0, 24], [0, 40.0, 18], [0, 0, 1]])
    up = torch.tensor([0.0, 0, 1])
    cameras = tuple(
        StartCamera.of(look_at(torch.tensor([x, -8.0, 1.0]), torch.zeros(3), up, K=K, width=48, height=36, time=0.0))
        for x in (-1.0, 0.0, 1.0)
    )
    metadata = Metadata(duration=0.5, fps=8.0, cameras=cameras)
    write_kino(tmp_path / "clip.kino", random_gaussians(200), metadata=metadata)
    assert main(["export", str(tmp_path / "clip.kino"), "--format", "mp4"]) == 0
    frames = iio.imread(tmp_path / "clip.mp4", plugin="pyav")
    assert frames.shape == (5, 36, 48, 3)
    assert frames.std() > 1.0
