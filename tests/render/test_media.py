"""Pictures and videos come out whole or not at all."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from kinosplat.errors import InputError
from kinosplat.render.media import PictureWriter, VideoWriter, colorize, depth_range, to_uint8, write_image


def test_float_images_are_rounded_and_non_finite_pixels_become_black_or_white() -> None:
    image = torch.tensor([0.0, 0.5, 1.0, 2.0, -1.0, float("nan"), float("inf")])
    assert to_uint8(image).tolist() == [0, 128, 255, 255, 0, 0, 255]


def test_colors_run_from_blue_to_red_and_invalid_pixels_are_black() -> None:
    colors = colorize(torch.tensor([[1.0, 3.0, 3.0]]), 1.0, 3.0, valid=torch.tensor([[True, True, False]]))
    assert colors.tolist() == [[[48, 18, 59], [122, 4, 2], [0, 0, 0]]]


def test_the_depth_range_ignores_what_is_not_covered() -> None:
    depth = torch.cat([torch.linspace(2, 4, 101), torch.full((50,), 1000.0)])
    alpha = torch.cat([torch.ones(101), torch.zeros(50)])
    low, high = depth_range(depth, alpha)
    assert low == pytest.approx(2.04)
    assert high == pytest.approx(3.96)
    assert depth_range(depth, torch.zeros_like(depth)) == (0.0, 1.0)


def test_a_picture_survives_the_disk_and_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_image(tmp_path / "new" / "a.png", image)
    assert (iio.imread(tmp_path / "new" / "a.png") == image).all()
    with pytest.raises(InputError, match=r"the name of a picture must end in one of \.png, \.jpg, \.jpeg, \.webp\."):
        write_image(tmp_path / "a.bmp3", image)


def test_pictures_of_a_writer_are_all_there_when_it_is_left(tmp_path: Path) -> None:
    images = [np.full((8, 8, 3), i, dtype=np.uint8) for i in range(100)]
    with PictureWriter() as writer:
        for i, image in enumerate(images):
            writer.write(tmp_path / "folder" / f"{i}.png", image)
    found = [iio.imread(tmp_path / "folder" / f"{i}.png") for i in range(100)]
    assert all(np.array_equal(a, b) for a, b in zip(images, found, strict=True))


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), PictureWriter() as writer:
        writer.write(tmp_path / "file" / "a.png", np.zeros((8, 8, 3), dtype=np.uint8))


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_a_video_has_the_frames_that_were_written(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"clip{ending}"
    with VideoWriter(path, fps=12.5) as video:
        for level in (40, 120, 200):
            video.write(np.full((33, 48, 3), level, dtype=np.uint8))
    frames = iio.imread(path, plugin="pyav")
    assert frames.shape == (3, 32, 48, 3)
    # Lossy coding of flat frames: measured at most 2 levels off.
    assert np.abs(frames.mean(axis=(1, 2, 3)) - [40, 120, 200]).max() < 4


def test_a_failed_video_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> None:
        with VideoWriter(tmp_path / "clip.mp4", fps=10) as video:
            video.write(np.zeros((32, 32, 3), dtype=np.uint8))
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"the name of a video must end in \.mp4 or \.webm\."):
        VideoWriter(tmp_path / "clip.gif", fps=10)
