"""Panoptic folders: cameras, times, split, masks, points, parts of the clip, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kinosplat.errors import InputError
from kinosplat.scenes import LoadOptions, load_scene
from scenes.builders import COLORS, POINTS, assert_shows_the_rig, save, write_panoptic


def test_every_camera_and_frame_is_found_with_its_time(tmp_path: Path) -> None:
    scene = load_scene(write_panoptic(tmp_path, n=4, n_frames=3, test=(2,)))
    assert (scene.format, scene.split, scene.fps) == ("panoptic", "the data set's own", 30.0)
    assert scene.times == (0.0, 1 / 30, 2 / 30)
    assert [view.name for view in scene.test] == ["cam20/000000", "cam20/000001", "cam20/000002"]
    assert [view.name for view in scene.train][:4] == ["cam00/000000", "cam00/000001", "cam00/000002", "cam10/000000"]
    assert {view.camera_index for view in scene.test} == {2}
    assert_shows_the_rig(scene, 4)


def test_one_frame_makes_a_static_scene(tmp_path: Path) -> None:
    scene = load_scene(write_panoptic(tmp_path), LoadOptions(frame=1))
    assert not scene.is_moving
    assert scene.times == ()
    assert [view.camera.time for view in scene.views] == [None] * 4
    assert {view.name.split("/")[1] for view in scene.views} == {"000001"}


def test_a_range_of_frames_starts_its_own_clock(tmp_path: Path) -> None:
    scene = load_scene(write_panoptic(tmp_path), LoadOptions(frames=(1, 3)))
    assert scene.times == (0.0, pytest.approx(1 / 30))
    assert {view.name.split("/")[1] for view in scene.views} == {"000001", "000002"}


def test_a_range_beyond_the_clip_is_refused(tmp_path: Path) -> None:
    root = write_panoptic(tmp_path)
    with pytest.raises(InputError) as error:
        load_scene(root, LoadOptions(frames=(0, 4)))
    assert str(error.value) == (
        f"{root} has 3 frames, numbered from 0, so frames 0 4 goes beyond its end; ask for less."
    )
    with pytest.raises(InputError) as error:
        load_scene(root, LoadOptions(frame=3))
    assert str(error.value) == f"{root} has 3 frames, numbered from 0, so frame 3 goes beyond its end; ask for less."


def test_segments_of_0_and_1_become_masks_that_may_be_empty(tmp_path: Path) -> None:
    root = write_panoptic(tmp_path, masks=True)
    save(root / "seg" / "0" / "000001.png", np.zeros((48, 64), np.uint8))
    first, second = load_scene(root).train[:2]
    assert first.mask is not None
    assert second.mask is not None
    assert set(np.unique(first.mask.load())) == {0, 255}
    assert not second.mask.load().any()


def test_first_points_come_with_colours_and_in_scene_coordinates(tmp_path: Path) -> None:
    root = write_panoptic(tmp_path)
    np.savez(root / "init_pt_cld.npz", data=np.hstack([POINTS, COLORS / 255, np.ones((3, 1))]))
    scene = load_scene(root)
    assert scene.points is not None
    np.testing.assert_allclose(scene.to_input.apply(scene.points.positions).numpy(), POINTS, atol=1e-6)
    np.testing.assert_array_equal(scene.points.colors.numpy(), COLORS)


def test_points_without_a_point_are_refused(tmp_path: Path) -> None:
    root = write_panoptic(tmp_path)
    np.savez(root / "init_pt_cld.npz", data=np.zeros((0, 7)))
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (
        f"{root}/init_pt_cld.npz holds 0 points; remove it, and first points are found from the pictures."
    )


def test_a_frame_that_is_missing_is_named(tmp_path: Path) -> None:
    root = write_panoptic(tmp_path)
    (root / "ims" / "10" / "000002.jpg").unlink()
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (
        f"{root}/ims/10/000002.jpg does not exist; put the frame 2 of camera 1 there or correct the path."
    )
    assert len(load_scene(root, LoadOptions(frames=(0, 2))).train) == 6


def test_a_camera_that_is_not_finite_is_named(tmp_path: Path) -> None:
    root = write_panoptic(tmp_path)
    meta = json.loads((root / "train_meta.json").read_text())
    meta["w2c"][1][2][0][3] = float("nan")
    (root / "train_meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (
        f"{root}/train_meta.json w2c[1][2] holds values that are not finite; remove that camera or calibrate it again."
    )


def test_json_of_another_dialect_is_refused(tmp_path: Path) -> None:
    root = write_panoptic(tmp_path)
    (root / "train_meta.json").write_text('{"frames": []}')
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == f"{root}/train_meta.json has no field 'cam_id'; add it."


def test_no_cameras_at_all_are_refused(tmp_path: Path) -> None:
    root = write_panoptic(tmp_path, n=1, test=())
    empty = {"w": 64, "h": 48, "k": [], "w2c": [], "fn": [], "cam_id": []}
    (root / "train_meta.json").write_text(json.dumps(empty))
    (root / "test_meta.json").unlink()
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (f"{root}/train_meta.json has no cameras (cam_id is empty); check that it is complete.")


def test_basketball_is_read_as_it_is_published(real_data: Path) -> None:
    scene = load_scene(real_data / "panoptic_basketball", LoadOptions(frames=(0, 2)))
    assert (len(scene.train), len(scene.test)) == (54, 8)
    assert {view.name for view in scene.test if view.name.endswith("000000")} == {
        "cam00/000000", "cam10/000000", "cam15/000000", "cam30/000000",
    }  # fmt: skip
    positions = torch.stack([view.camera.position for view in scene.views])
    # The dome has a radius of about 2.75 m, so its cameras are at one unit from the point they look at.
    assert 2.5 < scene.to_input.scale < 3.0
    assert 0.9 < positions.norm(dim=1).min() < positions.norm(dim=1).max() < 1.1
    # Its y axis points down.
    assert scene.up is not None
    assert scene.up[1] < -0.95
