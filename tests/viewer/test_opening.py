"""Files that say little still open with sensible cameras and times; what cannot be opened is refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kinosplat.cli import main
from kinosplat.compression.formats import ExportFormat, export_gaussians
from kinosplat.compression.kino import Metadata, write_kino
from kinosplat.errors import InputError
from kinosplat.opening import open_subject
from kinosplat.render.gaussians import Gaussians
from kinosplat.starting import UNKNOWN_UP, likely_up
from kinosplat.viewer.draw import draw
from kinosplat.viewer.look import Look
from kinosplat.viewer.subject import GaussianSubject
from viewer.toys import toy_gaussians


def opened(path: Path) -> GaussianSubject:
    subject = open_subject(path, device="cpu")
    assert isinstance(subject, GaussianSubject)
    return subject


@pytest.mark.parametrize("format", ["ply", "glb"])
def test_a_still_file_is_seen_whole_from_where_one_starts(format: ExportFormat, tmp_path: Path) -> None:
    subject = opened(export_gaussians(toy_gaussians(moving=False), tmp_path / f"toy.{format}", format))
    assert (subject.times, subject.fps) == ((), None)
    alpha = draw(subject, subject.cameras[0].resized(96, 72), Look(output="alpha")).picture[..., 0]
    assert alpha[20:52, 30:66].mean() > 0.5
    assert torch.cat([alpha[0], alpha[-1]]).mean() < 0.1


def ground_with_balls(up: torch.Tensor) -> Gaussians:
    """A wide smooth ground, and small balls of many colours on the side of it that `up` says."""
    generator = torch.Generator().manual_seed(5)
    aside = torch.linalg.svd(up[None]).Vh[1:]
    across = 4 * torch.rand(400, 2, generator=generator) - 2
    ground, balls = across[:300] @ aside, across[300:] @ (0.4 * aside) + 0.25 * up
    sizes = torch.cat([torch.full((300,), 0.2), torch.full((100,), 0.03)]).log()
    return Gaussians(
        means=torch.cat([ground, balls]),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(400, 1),
        log_scales=sizes[:, None].expand(-1, 3).contiguous(),
        opacity_logits=torch.full((400,), 3.0),
        sh_dc=torch.cat([torch.zeros(300, 3), 4 * torch.rand(100, 3, generator=generator) - 2]),
        sh_rest=torch.zeros(400, 0, 3),
    )


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0)])
def test_what_stands_on_a_ground_is_seen_from_above(up: tuple[float, float, float], tmp_path: Path) -> None:
    path = export_gaussians(ground_with_balls(torch.tensor(up)), tmp_path / "ground.ply", "ply")
    subject = opened(path)
    assert subject.up == pytest.approx(up)
    heights = [float(camera.position @ torch.tensor(up)) for camera in subject.cameras]
    assert min(heights) > 0.3


def test_up_may_be_slanted_and_is_a_convention_where_nothing_is_flat() -> None:
    slanted = torch.nn.functional.normalize(torch.tensor([0.5, -1.0, 0.3]), dim=0)
    # The balls tilt the plane of least extent by less than a degree.
    assert torch.tensor(likely_up(ground_with_balls(slanted))) @ slanted > 0.999
    assert likely_up(toy_gaussians(moving=False)) == UNKNOWN_UP


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
    assert (
        str(error.value) == f"{missing} does not exist; give the folder of a run, or a file of Gaussians or of a field."
    )
    with pytest.raises(InputError) as error:
        open_subject(tmp_path)
    assert (
        str(error.value)
        == f"{tmp_path} is not the folder of a run: it has no config.json; give one that has, or a file."
    )


def test_the_command_says_what_is_wrong_and_exits_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(tmp_path / "nothing.ply")]) == 2
    assert "does not exist; give the folder of a run, or a file of Gaussians or of a field." in capsys.readouterr().err


def test_bench_takes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = export_gaussians(toy_gaussians(moving=False), tmp_path / "toy.ply", "ply")
    assert main(["bench", str(path), "--n-frames", "5", "--warm-up", "1", "--resolution", "64", "48"]) == 0
    assert "300 primitives at 64x48" in capsys.readouterr().out
