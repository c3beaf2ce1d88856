"""Photos in the panel are called what tells their cameras apart, and measured as a report measures them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from scenes.builders import write_blender, write_n3dv, write_panoptic
from trainers.toys import tiny_config, write_toy

from kinosplat.opening import open_subject
from kinosplat.scenes import load_scene
from kinosplat.subjects import MethodSubject
from kinosplat.trainers.methods.config import ThreeDGS
from kinosplat.trainers.run import train
from kinosplat.viewer.controls.photos import camera_names


def test_every_pose_of_a_clip_that_moves_its_camera_has_a_name_of_its_own(tmp_path: Path) -> None:
    views = load_scene(write_blender(tmp_path, times=True)).views
    names = camera_names(views)
    assert list(names) == ["train/r_000", "train/r_001", "train/r_002", "test/r_003"]
    assert all(
        views[i].camera_index == index and views[i].name == name for i, (name, index) in enumerate(names.items())
    )


def test_cameras_that_stay_are_called_without_the_frame(tmp_path: Path) -> None:
    for write in (write_panoptic, write_n3dv):
        views = load_scene(write(tmp_path / write.__name__)).views
        names = camera_names(views)
        assert len(names) == len({view.camera_index for view in views})
        for view in views:
            name = next(name for name, index in names.items() if index == view.camera_index)
            assert view.name.startswith(f"{name}/")


@pytest.mark.parametrize("background", ["black", "white"])
def test_the_psnr_of_a_photo_is_the_reports(background: str, tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy", n_train=4, n_test=2)
    config = tiny_config(ThreeDGS(), toy)
    config = replace(config, image=replace(config.image, background=background))
    train(config, toy.scene(), tmp_path / "run")
    subject = open_subject(tmp_path / "run", device="cpu")
    assert isinstance(subject, MethodSubject)
    rows = {row["name"]: row for row in csv.DictReader((tmp_path / "run" / "test.csv").open())}
    photos = subject.photos
    held_out = photos.views[photos.n_train :]
    assert len(held_out) == 2
    for view in held_out:
        compared = photos.compare(view)
        assert compared.psnr == pytest.approx(float(rows[view.name]["psnr"]), abs=1e-6)
        assert compared.region == "whole picture"
        assert compared.photo.shape == compared.rendered.shape == (view.camera.height, view.camera.width, 3)
