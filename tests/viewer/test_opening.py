"""Files that say little still open with sensible cameras and times; what cannot be opened is refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kinosplat.cli import main
from kinosplat.compression.formats import export_gaussians
from kinosplat.compression.kino import Metadata, write_kino
from kinosplat.errors import InputError
from kinosplat.opening import open_subject
from kinosplat.viewer.draw import draw
from kinosplat.viewer.look import Look
from kinosplat.viewer.subject import GaussianSubject
from viewer.toys import toy_gaussians


def opened(path: Path) -> GaussianSubject:
    subject = open_subject(path, device="cpu")
    assert isinstance(subject, GaussianSubject)
    return subject


def test_a_still_ply_is_seen_whole_from_where_one_starts(tmp_path: Path) -> None:
    subject = opened(export_gaussians(toy_gaussians(moving=False), tmp_path / "toy.ply", "ply"))
    assert (subject.times, subject.fps) == ((), None)
    alpha = draw(subject, subject.cameras[0].resized(96, 72), Look(output="alpha")).picture[..., 0]
    assert alpha[20:52, 30:66].mean() > 0.5
    assert torch.cat([alpha[0], alpha[-1]]).mean() < 0.1


def test_a_moving_file_has_a_clip(tmp_path: Path) -> None:
    path = tmp_path / "toy.kino"
    write_kino(path, toy_gaussians(), metadata=Metadata(fps=10.0, duration=1.0, up=(0.0, 0.0, 1.0)))
    subject = opened(path)
    assert subject.times == pytest.approx([i / 10 for i in range(11)])
    assert (subject.fps, subject.up) == (10.0, (0.0, 0.0, 1.0))
    camera = subject.cameras[0].resized(96, 72)
    first, last = (draw(subject, camera.at(time), Look()).picture for time in (0.0, 1.0))
    assert (first - last).abs().mean() > 0.01


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.ply"
    with pytest.raises(InputError) as error:
        open_subject(missing)
    assert str(error.value) == f"{missing} does not exist; give the folder of a run, or a file of Gaussians."
    with pytest.raises(InputError) as error:
        open_subject(tmp_path)
    assert (
        str(error.value)
        == f"{tmp_path} is not the folder of a run: it has no config.json; give one that has, or a file."
    )


def test_the_command_says_what_is_wrong_and_exits_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(tmp_path / "nothing.ply")]) == 2
    assert "does not exist; give the folder of a run, or a file of Gaussians." in capsys.readouterr().err


def test_bench_takes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = export_gaussians(toy_gaussians(moving=False), tmp_path / "toy.ply", "ply")
    assert main(["bench", str(path), "--n-frames", "5", "--warm-up", "1", "--resolution", "64", "48"]) == 0
    assert "300 primitives at 64x48" in capsys.readouterr().out
