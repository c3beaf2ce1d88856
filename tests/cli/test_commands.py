"""The command line as a user meets it: exit codes, what is printed, what is on disk afterwards."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import imageio.v3 as iio
import numpy as np
import pytest
from trainers.toys import Toy, blobs, write_toy

from kinosplat import __version__
from kinosplat.cli import COMMANDS, main, train_main
from kinosplat.compression.kino import Metadata, write_kino
from kinosplat.display import PlainDisplay
from kinosplat.opening import open_subject
from kinosplat.render.field.stages import Stage
from kinosplat.render.paths import CameraPath, Keyframe, save_camera_path
from kinosplat.scenes.scene import Similarity
from kinosplat.trainers.report import Report
from kinosplat.viewer.draw import draw
from kinosplat.viewer.encode import to_pixels
from kinosplat.viewer.look import Look

TINY = ["--steps", "20", "--max-gaussians", "80", "--sh-degree", "0", "--device", "cpu", "--log-every", "5"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A static scene."""
    return write_toy(tmp_path_factory.mktemp("toy") / "blobs", n_train=4, n_test=2)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A moving scene."""
    return write_toy(tmp_path_factory.mktemp("clip") / "dance", n_train=4, n_test=1, times=(0.0, 0.5, 1.0))


@pytest.fixture(scope="module")
def run_dir(clip: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished 4dgs run on the moving scene."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    command = ["--scene", str(clip.folder), "--method", "4dgs", "--run-dir", str(folder), "--quiet", *TINY]
    assert train_main(command) == 0
    return folder


def test_without_a_command_the_usage_names_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"kinosplat {__version__}\n"


def test_an_unknown_command_is_refused_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == f"kinosplat: trian is not a command; choose one of {', '.join(COMMANDS)}.\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([name, "--help"])
    assert exit_info.value.code == 0
    assert f"usage: kinosplat {name}" in capsys.readouterr().out


def test_the_method_decides_which_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_main(["--method", "4dgs", "--help"])
    assert "--first-duration" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        train_main(["--method=3dgs", "--help"])
    assert "--first-duration" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--method", "5dgs"], "--method 5dgs is not known; choose one of 3dgs, 4dgs, hashgrid, hollownerf."),
        ([], "--scene is missing; give the path or the name of a scene (`kinosplat data list` has names)."),
        (["tabletop"], "tabletop belongs to no option; name a scene with --scene tabletop."),
        (
            ["--method", "3dgs", "--steps", "5", "table/top"],
            "table/top belongs to no option; name a scene with --scene table/top.",
        ),
        (
            ["--resume", "somewhere", "--sh-degree", "1"],
            "--resume takes its options from the run; only --steps, --time-limit, --device, --cache-memory and those "
            "of the display may be given beside it.",
        ),
        (
            ["--resume", "somewhere", "--quiet"],
            "somewhere is not the folder of a run: it has no config.json; give one that has.",
        ),
    ],
)
def test_unusable_options_of_train_end_in_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_main(arguments) == 2
    assert capsys.readouterr().err == f"kinosplat: {sentence}\n"


def test_a_run_leaves_its_files_and_plain_lines(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train_main(["--scene", str(toy.folder), "--method", "3dgs", *TINY]) == 0
    (folder,) = (tmp_path / "outputs" / "blobs" / "3dgs").iterdir()
    written = {path.name for path in folder.iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoints", "report.json", "test.csv", "test"} <= written
    report = json.loads((folder / "report.json").read_text())
    wanted = ["scene", "method", "split", "resolution", "steps", "seconds", "psnr", "ssim", "n_primitives", "bytes"]
    assert all(report[key] is not None for key in [*wanted, "fps", "device"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3dgs on blobs: 4 pictures, 2 held out; 20 steps"
    assert any(line.startswith("held out: PSNR ") for line in lines)


def test_the_last_line_says_how_busy_a_gpu_was(run_dir: Path) -> None:
    report = Report(**json.loads((run_dir / "report.json").read_text()))
    lines = []
    for utilisation in (None, 0.934):
        text = io.StringIO()
        PlainDisplay(text).finished(dataclasses.replace(report, device_utilisation=utilisation))
        lines.append(text.getvalue().splitlines()[-1])
    assert lines[1] == f"{lines[0]}, busy 93% of the training"


def test_json_lines_tell_a_machine_everything(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--scene", str(toy.folder), "--method", "3dgs", "--run-dir", str(tmp_path / "run"), "--json", *TINY]
    assert train_main(command) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events].count("stepped") == 4
    assert events[0]["event"] == "started"
    assert events[-1]["event"] == "finished"
    assert events[-1]["psnr"] == json.loads((tmp_path / "run" / "report.json").read_text())["psnr"]


def test_a_second_run_in_the_same_folder_needs_overwrite(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--scene", str(toy.folder), "--method", "3dgs", "--run-dir", str(tmp_path / "run"), "--quiet", *TINY]
    assert train_main(command) == 0
    assert train_main(command) == 2
    assert "holds a run already; resume it or choose another folder." in capsys.readouterr().err
    assert train_main([*command, "--overwrite"]) == 0


@pytest.mark.parametrize(
    "changes",
    [
        ["--max-gaussians", "1000000000"],
        ["--max-gaussians", "0"],
        ["--scene", "nowhere"],
        ["--rasterizer", "gsplat"],
    ],
)
def test_a_run_that_is_refused_does_not_cost_the_one_it_was_to_replace(
    changes: list[str], run_dir: Path, clip: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_dir, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    command = ["--scene", str(clip.folder), "--method", "4dgs", "--run-dir", str(folder), "--quiet", *TINY]
    assert train_main([*command, "--overwrite", *changes]) == 2
    assert capsys.readouterr().err.startswith("kinosplat: ")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_an_option_that_is_not_known_is_answered_with_similar_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        train_main(["--scene", "tabletop", "--max-gausians", "5"])
    assert exit_info.value.code == 2
    assert "--max-gaussians" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("kinosplat.commands.train.load_scene", "Interrupted before training began; nothing was written."),
        (
            "kinosplat.trainers.feed.FrameLoader",
            "Interrupted before the first checkpoint; begin again with `--resume {}`.",
        ),
        ("kinosplat.trainers.run._final_evaluation", "Interrupted; the run is saved. Go on with `--resume {}`."),
        (
            "kinosplat.commands.train.compress_run",
            "Interrupted; the run is complete, its file is not: `kinosplat compress {}` makes it.",
        ),
    ],
)
def test_ctrl_c_says_what_is_left_behind(
    where: str,
    sentence: str,
    toy: Toy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    folder = tmp_path / "run"
    command = ["--scene", str(toy.folder), "--method", "3dgs", "--run-dir", str(folder), "--quiet", *TINY]
    assert train_main([*command, "--compress", "small"]) == 130
    assert capsys.readouterr().err == sentence.format(folder) + "\n"
    assert folder.exists() == ("{}" in sentence)


def test_ctrl_c_saves_exits_with_130_and_the_run_resumes(toy: Toy, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    program = "import sys; from kinosplat.cli import train_main; sys.exit(train_main())"
    command = ["--scene", str(toy.folder), "--method", "3dgs", "--run-dir", str(folder), "--json", *TINY]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *command, "--steps", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "stepped":
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == f"Interrupted; the run is saved. Go on with `--resume {folder}`.\n"
    reached = len((folder / "metrics.jsonl").read_text().splitlines()) * 5
    assert train_main(["--resume", str(folder), "--steps", str(reached + 20), "--quiet"]) == 0
    assert json.loads((folder / "report.json").read_text())["steps"] == reached + 20


def test_eval_writes_a_line_for_each_view(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run_dir), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    rows = list(csv.DictReader((run_dir / "eval_test.csv").open()))
    assert [row["name"] for row in rows[:-1]] == [view["name"] for view in printed["views"]]
    assert float(rows[-1]["psnr"]) == printed["psnr"]
    assert printed["psnr"] == pytest.approx(json.loads((run_dir / "report.json").read_text())["psnr"], abs=1e-9)


def test_render_makes_a_video_a_sheet_or_a_folder(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orbit = ["--views", "orbit", "--n-frames", "5", "--out", str(tmp_path / "orbit.mp4")]
    assert main(["render", str(run_dir), *orbit]) == 0
    assert capsys.readouterr() == (f"5 views in {tmp_path / 'orbit.mp4'}\n", "")
    assert iio.imread(tmp_path / "orbit.mp4", plugin="pyav").shape == (5, 36, 48, 3)

    sheet = ["--side-by-side", "--channels", "rgb", "depth", "alpha", "normal", "--out", str(tmp_path / "sheet.png")]
    assert main(["render", str(run_dir), *sheet]) == 0
    # Three test views of 36 x (5 * 48) pixels: one column of three is nearest to 16 : 9.
    assert iio.imread(tmp_path / "sheet.png").shape == (3 * 36, 5 * 48, 3)

    assert main(["render", str(run_dir), "--views", "train", "--max-views", "2", "--out", str(tmp_path / "views")]) == 0
    assert len(list((tmp_path / "views").rglob("*.png"))) == 2


def test_render_follows_a_camera_path_in_time(run_dir: Path, tmp_path: Path) -> None:
    key = {"fov": 40.0, "position": [4, 0, 1], "wxyz": [0.5, -0.5, 0.5, -0.5]}
    keyframes = [{**key, "seconds": 0.0, "time": 0.0}, {**key, "seconds": 1.0, "time": 1.0}]
    path = tmp_path / "path.json"
    path.write_text(json.dumps({"format": "kinosplat-camera-path", "version": 1, "keyframes": keyframes}))
    out = tmp_path / "path.mp4"
    assert main(["render", str(run_dir), "--views", str(path), "--fps", "4", "--out", str(out)]) == 0
    assert iio.imread(out, plugin="pyav").shape[0] == 5


def test_render_takes_a_file_and_the_path_that_was_saved_while_it_was_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "blobs.kino"
    to_input = Similarity(2.0, (1.0, 0.0, 0.0))
    write_kino(file, blobs(), metadata=Metadata(up=(0.0, 0.0, 1.0), to_input=to_input, background=(0.0, 0.0, 1.0)))
    subject = open_subject(file, device="cpu")
    path = tmp_path / "path.json"
    keys = [Keyframe.from_camera(camera, float(i)) for i, camera in enumerate(subject.cameras[:2])]
    save_camera_path(path, CameraPath(tuple(keys)), subject.to_input)
    out = ["--resolution", "48", "36", "--out", str(tmp_path / "path")]
    assert main(["render", str(file), "--views", str(path), "--fps", "4", "--device", "cpu", *out]) == 0
    written = sorted((tmp_path / "path").iterdir())
    assert len(written) == 5
    drawn = draw(subject, keys[0].camera(48, 36), Look.of(subject.settings)).picture
    # 8 bits.
    assert np.abs(iio.imread(written[0]).astype(int) - to_pixels(drawn)).max() <= 1
    # Without --views and --out: an orbit, beside the file.
    assert main(["render", str(file), "--n-frames", "3", "--resolution", "48", "36", "--device", "cpu"]) == 0
    assert len(list((tmp_path / "blobs_renders" / "orbit").glob("*.png"))) == 3
    capsys.readouterr()
    assert main(["render", str(file), "--views", "test"]) == 2
    assert capsys.readouterr().err == (
        f"kinosplat: {file} is a file, which has no test views; choose --views orbit or the JSON of a camera path.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--views", "orbit", "--side-by-side"],
            "--side-by-side needs photos; use it with --views test or --views train.",
        ),
        (["--views", "nowhere.json"], "nowhere.json: there is no such file; give the JSON of a camera path."),
        (["--views", "orbit", "--n-frames", "0"], "--n-frames must be at least 1, got 0."),
        (["--resolution", "0", "5"], "--resolution must be at least 1, got 0."),
        (["--max-views", "0"], "--max-views must be at least 1, got 0."),
    ],
)
def test_what_cannot_be_rendered_ends_in_one_sentence(
    run_dir: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", str(run_dir), *arguments]) == 2
    assert capsys.readouterr().err == f"kinosplat: {sentence}\n"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["bench", "--resolution", "5", "0"], "--resolution must be at least 1, got 0."),
        (["eval", "--max-views", "0"], "--max-views must be at least 1, got 0."),
        (["view", "--background", "2", "0", "0"], "--background must be three numbers in [0, 1], got 2.0 0.0 0.0."),
    ],
)
def test_numbers_out_of_their_range_are_named(
    run_dir: Path, command: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command[:1], str(run_dir), *command[1:]]) == 2
    assert capsys.readouterr().err.endswith(f"kinosplat: {sentence}\n")


def test_what_is_of_files_is_refused_of_a_run(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(run_dir), "--up", "0", "0", "1"]) == 2
    assert capsys.readouterr().err.endswith(
        f"kinosplat: --up and --background are for files, but {run_dir} is a run, which has its own; leave them out.\n"
    )


def test_bench_reports_a_median_and_a_tail(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(run_dir), "--n-frames", "10", "--warm-up", "1", "--json"]) == 0
    timing = json.loads(capsys.readouterr().out)
    assert 0 < timing["median_ms"] <= timing["p95_ms"] <= timing["p99_ms"]
    assert timing["fps"] == pytest.approx(1000 / timing["median_ms"])
    assert (timing["width"], timing["height"], timing["n_frames"]) == (48, 36, 10)


TINY_FIELD = ["--steps", "12", "--samples", "512", "--levels", "3", "--log2-table-size", "8", "--hidden", "16"]
TINY_FIELD += ["--finest-resolution", "32", "--occupancy-resolution", "16", "--ray-steps", "32", "--device", "cpu"]


@pytest.fixture(scope="module")
def field_dirs(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished hashgrid runs on the static scene, of an object and of everything around it."""
    folders = {bounds: tmp_path_factory.mktemp("fields") / bounds for bounds in ("object", "unbounded")}
    for bounds, folder in folders.items():
        command = ["--scene", str(toy.folder), "--method", "hashgrid", "--run-dir", str(folder), "--quiet"]
        assert train_main([*command, *TINY_FIELD, "--bounds", bounds]) == 0
    return folders


def test_options_beside_resume_are_those_of_the_runs_method(
    field_dirs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_main(["--resume", str(field_dirs["object"]), "--levels", "4"]) == 2
    assert capsys.readouterr().err.startswith("kinosplat: --resume takes its options from the run; only --steps,")


def test_a_field_looks_the_same_by_blocks(field_dirs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    measured = []
    for by in ("rays", "blocks"):
        assert main(["eval", str(field_dirs["object"]), "--march", by, "--json"]) == 0
        measured.append(json.loads(capsys.readouterr().out)["psnr"])
    assert measured[1] == pytest.approx(measured[0], abs=1e-3)
    out = field_dirs["object"] / "sheet.png"
    assert main(["render", str(field_dirs["object"]), "--march", "blocks", "--out", str(out)]) == 0
    assert out.exists()


def test_bench_reports_where_a_fields_time_goes(
    field_dirs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", str(field_dirs["object"]), "--n-frames", "2", "--warm-up", "1", "--march", "blocks"]
    assert main([*command, "--resolution", "40", "30"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "table entries at 40x30" in told[0]
    assert told[1].endswith(" samples a frame")
    lines = [line for line in told if line.startswith("40x30 ")]
    assert [line.split()[1:3] for line in lines] == [["in", "one"], ["stage", "by"], *[["marching", "by"]] * 2]
    assert main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["median_ms"] > 0
    (stages,) = printed["field_stages"]
    assert (stages["width"], stages["height"]) == (48, 36)
    assert stages["in_one_go"]["median_ms"] > 0
    assert stages["unfused_seconds"].keys() == set(get_args(Stage))
    along, by_blocks = stages["marching"]["rays"], stages["marching"]["blocks"]
    assert along["n_samples"] == by_blocks["n_samples"] > 0
    assert main(["bench", str(field_dirs["unbounded"]), "--n-frames", "2", "--warm-up", "0"]) == 0
    assert capsys.readouterr().out.endswith("48x36 marching by blocks: not in a scene without bounds\n")


def test_only_objects_are_marched_by_blocks(
    field_dirs: dict[str, Path], run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("render", "eval", "bench"):
        assert main([command, str(run_dir), "--march", "blocks"]) == 2
        assert capsys.readouterr().err == (
            "kinosplat: --march blocks is for fields, but this run is of 4dgs; leave it out.\n"
        )
    assert main(["eval", str(field_dirs["unbounded"]), "--march", "blocks"]) == 2
    assert capsys.readouterr().err == (
        "kinosplat: --march blocks is for objects, but this field covers a scene without bounds (5 cascades); "
        "leave it out.\n"
    )


def test_info_explains_a_scene_and_a_run(clip: Toy, run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(clip.folder), "--json"]) == 0
    scene = json.loads(capsys.readouterr().out)
    assert (scene["cameras"], scene["training_views"], scene["held_out_views"], scene["frames"]) == (5, 12, 3, 3)
    assert main(["info", str(run_dir), "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    assert (run["method"], run["steps"], run["checkpoints"]) == ("4dgs", 20, "last, best")


def test_data_knows_the_scene_that_ships(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert entries["tabletop"]["installed"]
    assert main(["data", "info", "tabletop"]) == 0
    assert "CC0" in capsys.readouterr().out
    assert main(["data", "info", "tabeltop"]) == 2
    assert capsys.readouterr().err.startswith("kinosplat: There is no scene 'tabeltop' in the registry; choose one of ")


def test_a_mesh_is_exported_and_measured(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("open3d", reason="no Open3D: pip install 'kinosplat[mesh]'", exc_type=ImportError)
    mesh = tmp_path / "surface.ply"
    assert main(["export", str(run_dir), "--format", "mesh", "--out", str(mesh)]) == 0
    assert "triangles" in capsys.readouterr().out
    command = ["eval", str(run_dir), "--mesh", str(mesh), "--spacing", "0.02", "--cap", "0.5", "--json"]
    assert main([*command, "--truth", str(mesh)]) == 0
    measured = json.loads(capsys.readouterr().out)
    # The mesh's own vertices are the truth, and its triangles have edges of about 0.05: 0.025 and 0.009.
    assert 0 <= measured["accuracy"] < 0.04
    assert 0 < measured["completeness"] < 0.02
    assert main(command) == 2
    assert "has no true points beside it; give them with --truth." in capsys.readouterr().err


def test_without_open3d_a_mesh_names_the_extra(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    assert main(["export", str(run_dir), "--format", "mesh"]) == 2
    assert capsys.readouterr().err == (
        "kinosplat: Fusing depth into a mesh needs Open3D; run 'pip install \"kinosplat[mesh]\"'.\n"
    )
