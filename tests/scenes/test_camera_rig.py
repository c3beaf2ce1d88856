"""The project's own video layout: what docs/camera_rig.md promises, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinosplat.errors import InputError
from kinosplat.scenes import LoadOptions, load_scene
from scenes.builders import (
    COLORS,
    POINTS,
    UP,
    assert_shows_the_rig,
    camera_rig_content,
    mask,
    picture,
    save,
    save_ply,
    save_video,
    write_camera_rig,
)


def refused(tmp_path: Path, content: dict[str, Any]) -> str:
    """The message with which a rig of this cameras.json is refused."""
    root = write_camera_rig(tmp_path, content=content)
    with pytest.raises(InputError) as error:
        load_scene(root)
    return str(error.value).replace(f"{root}/", "")


def test_videos_points_split_and_up_are_read(tmp_path: Path) -> None:
    scene = load_scene(write_camera_rig(tmp_path, n=3, n_frames=4))
    assert (scene.format, scene.fps, scene.up) == ("camera_rig", 15.0, UP)
    assert scene.times == (0.0, 1 / 15, 2 / 15, 3 / 15)
    assert [view.name for view in scene.test] == [f"cam00/{t:06d}" for t in range(4)]
    assert_shows_the_rig(scene, 3)
    assert scene.points is not None
    np.testing.assert_allclose(scene.to_input.apply(scene.points.positions).numpy(), POINTS, atol=1e-6)
    np.testing.assert_array_equal(scene.points.colors.numpy(), COLORS)


def test_a_folder_of_pictures_stands_in_for_a_video(tmp_path: Path) -> None:
    content = camera_rig_content(3, 4)
    content["cameras"][1]["video"] = "frames/cam01"
    for t in range(4):
        # 2.png comes after 1.png and before 10.png.
        save(tmp_path / "frames" / "cam01" / f"{(1, 2, 10, 11)[t]}.png", picture(1, t))
    assert_shows_the_rig(load_scene(write_camera_rig(tmp_path, content=content)), 3)


def test_a_camera_that_started_late_has_later_times(tmp_path: Path) -> None:
    content = camera_rig_content(3, 4)
    content["cameras"][2]["time_offset"] = 0.01
    scene = load_scene(write_camera_rig(tmp_path, content=content))
    assert len(scene.times) == 8
    late = [view for view in scene.train if view.camera_index == 2]
    assert late[1].camera.time == pytest.approx(1 / 15 + 0.01)


def test_without_a_split_every_8th_camera_is_held_out_with_all_its_frames(tmp_path: Path) -> None:
    content = camera_rig_content(3, 4)
    for camera in content["cameras"]:
        del camera["split"]
    scene = load_scene(write_camera_rig(tmp_path, content=content))
    assert scene.split == "every 8th camera"
    assert {view.camera_index for view in scene.test} == {0}
    assert len(scene.test) == 4


def test_mask_videos_mark_what_counts(tmp_path: Path) -> None:
    content = camera_rig_content(3, 4)
    content["cameras"][1]["mask_video"] = "masks/cam01.mp4"
    frame = np.repeat(mask(1)[..., None], 3, axis=2)
    save_video(tmp_path / "masks" / "cam01.mp4", [frame] * 4)
    scene = load_scene(write_camera_rig(tmp_path, content=content))
    masks = [view.mask for view in scene.train if view.camera_index == 1]
    assert masks[0] is not None
    assert np.abs(masks[0].load().astype(int) - mask(1)).max() <= 2
    assert all(view.mask is None for view in scene.train if view.camera_index == 2)


def test_distortion_is_undone_by_name(tmp_path: Path) -> None:
    content = camera_rig_content(2, 2)
    content["cameras"][1]["distortion"] = {"model": "opencv", "k1": -0.2}
    scene = load_scene(write_camera_rig(tmp_path, n=2, n_frames=2, content=content))
    corner = scene.train[0].image.load()[0, 0].astype(int)
    # A barrel is stretched towards the corners, which then show what was further inside.
    assert corner[0] > picture(1)[0, 0, 0] + 2
    assert scene.train[0].mask is None


def test_a_video_that_is_too_short_is_refused(tmp_path: Path) -> None:
    root = write_camera_rig(tmp_path)
    save_video(root / "videos" / "cam01.mp4", [picture(1, t) for t in range(3)])
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (
        f"{root}/videos/cam01.mp4 has 3 frames but n_frames is 4; record the missing frames or lower n_frames."
    )


def test_a_video_of_another_size_is_refused(tmp_path: Path) -> None:
    root = write_camera_rig(tmp_path)
    save_video(root / "videos" / "cam01.mp4", [picture(1, t, 32, 24) for t in range(4)])
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (
        f"{root}/videos/cam01.mp4 is 32x24 pixels but {root}/cameras.json cameras[1] says 64x48; "
        "scale one of the two so that they agree."
    )


def test_an_unknown_lens_is_refused(tmp_path: Path) -> None:
    content = camera_rig_content()
    content["cameras"][1]["distortion"] = {"model": "mirror"}
    assert refused(tmp_path, content) == (
        "cameras.json cameras[1] distortion model 'mirror' is not known; use one of pinhole, opencv, opencv_fisheye, "
        "thin_prism_fisheye, rad_tan_thin_prism_fisheye, fov, division, eucm."
    )


def test_a_coefficient_the_lens_does_not_have_is_refused(tmp_path: Path) -> None:
    content = camera_rig_content()
    content["cameras"][1]["distortion"] = {"model": "fov", "k1": 0.1}
    assert refused(tmp_path, content) == (
        "cameras.json cameras[1] distortion has 'k1', which the model fov does not have; it has omega."
    )


def test_a_singular_pose_is_refused(tmp_path: Path) -> None:
    content = camera_rig_content()
    content["cameras"][2]["world_to_camera"] = np.diag([0.0, 0.0, 0.0, 1.0]).tolist()
    assert refused(tmp_path, content) == (
        "cameras.json cameras[2] world_to_camera is not a rotation with a translation; "
        "remove that camera or calibrate it again."
    )


def test_intrinsics_without_a_focal_length_are_refused(tmp_path: Path) -> None:
    content = camera_rig_content()
    content["cameras"][0]["K"] = np.diag([0.0, 70.0, 1.0]).tolist()
    assert refused(tmp_path, content) == (
        "cameras.json cameras[0] K is not an upper triangular matrix with positive focal lengths; correct it."
    )


def test_no_cameras_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, camera_rig_content() | {"cameras": []}) == (
        "cameras.json has no cameras; list at least one under 'cameras'."
    )


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, camera_rig_content() | {"version": 2}) == (
        "cameras.json has version 2, but only 1 can be read; update kinosplat."
    )


def test_two_cameras_of_one_name_are_refused(tmp_path: Path) -> None:
    content = camera_rig_content()
    content["cameras"][1]["name"] = "cam00"
    assert refused(tmp_path, content) == "cameras.json has two cameras named 'cam00'; give each its own name."


def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    content = camera_rig_content()
    content["cameras"][1]["name"] = "../cam01"
    assert refused(tmp_path, content).endswith(
        " has a picture named '../cam01/000000', which cannot name a rendering; rename it."
    )


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    content = camera_rig_content()
    del content["cameras"][1]["K"]
    assert refused(tmp_path, content) == "cameras.json cameras[1] has no field 'K'; add it."


def test_points_without_a_point_are_refused(tmp_path: Path) -> None:
    root = write_camera_rig(tmp_path)
    save_ply(root / "points.ply", n=0)
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (
        f"{root}/points.ply holds 0 points; remove it, and first points are found from the pictures."
    )


def test_invalid_json_is_refused(tmp_path: Path) -> None:
    root = write_camera_rig(tmp_path)
    text = (root / "cameras.json").read_text()
    (root / "cameras.json").write_text(text[:-1])
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value).startswith(f"{root}/cameras.json is not valid JSON (line 1: ")
    assert str(error.value).endswith("); correct or copy it again.")
    assert json.loads(text)["format"] == "kinosplat-camera-rig"


def test_a_frame_can_be_picked(tmp_path: Path) -> None:
    scene = load_scene(write_camera_rig(tmp_path), LoadOptions(frame=2))
    assert not scene.is_moving
    assert np.abs(scene.train[0].image.load().astype(int) - picture(1, 2)).max() <= 3
