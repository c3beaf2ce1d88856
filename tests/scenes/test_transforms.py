"""transforms.json in its dialects: axes, intrinsics in every spelling, splits, masks, points, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinosplat.errors import InputError
from kinosplat.scenes import LoadOptions, load_scene
from kinosplat.scenes.images import LensGaps
from scenes.builders import (
    COLORS,
    HEIGHT,
    POINTS,
    WIDTH,
    K,
    assert_shows_the_rig,
    mask,
    nerfstudio_content,
    picture,
    save,
    save_ply,
    write_blender,
    write_nerfstudio,
)

INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_model")


def refused(tmp_path: Path, content: Any) -> str:
    """The message with which a folder with this transforms.json is refused."""
    root = write_nerfstudio(tmp_path, content=content)
    with pytest.raises(InputError) as error:
        load_scene(root)
    return str(error.value).replace(f"{root}/", "")


def test_opengl_cameras_become_opencv_cameras(tmp_path: Path) -> None:
    scene = load_scene(write_nerfstudio(tmp_path))
    assert scene.format == "transforms (nerfstudio)"
    assert_shows_the_rig(scene, 4)
    assert [view.name for view in scene.train] == ["frame_00001", "frame_00002", "frame_00003"]


def test_intrinsics_of_a_frame_win_over_those_of_the_file(tmp_path: Path) -> None:
    content = nerfstudio_content()
    for frame in content["frames"]:
        frame.update({key: content[key] for key in INTRINSICS})
    assert_shows_the_rig(load_scene(write_nerfstudio(tmp_path, content=content | {"fl_x": 1.0, "w": 7})), 4)


def test_focal_lengths_may_be_fields_of_view(tmp_path: Path) -> None:
    content = nerfstudio_content()
    for key in ("fl_x", "fl_y"):
        del content[key]
    content["x_fov"] = math.degrees(2 * math.atan(WIDTH / 2 / 70))
    content["camera_angle_y"] = 2 * math.atan(HEIGHT / 2 / 72)
    assert_shows_the_rig(load_scene(write_nerfstudio(tmp_path, content=content)), 4)


def test_size_and_principal_point_have_defaults(tmp_path: Path) -> None:
    content = nerfstudio_content()
    for key in ("w", "h", "cx", "cy", "fl_y"):
        del content[key]
    expected = np.array([[70.0, 0, WIDTH / 2], [0, 70.0, HEIGHT / 2], [0, 0, 1]])
    assert_shows_the_rig(load_scene(write_nerfstudio(tmp_path, content=content)), 4, expected)


def test_distortion_is_undone_and_gaps_are_masked(tmp_path: Path) -> None:
    scene = load_scene(write_nerfstudio(tmp_path, content=nerfstudio_content() | {"k1": 0.3}))
    view = scene.train[0]
    np.testing.assert_allclose(view.camera.K.numpy(), K)
    assert isinstance(view.mask, LensGaps)
    gaps = view.mask.load()
    assert gaps[HEIGHT // 2, WIDTH // 2] == 255
    assert gaps[0, 0] == 0


def test_a_fisheye_lens_is_read_in_both_spellings(tmp_path: Path) -> None:
    by_model = nerfstudio_content() | {"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k4": 0.01}
    by_flag = {**by_model, "is_fisheye": True}
    del by_flag["camera_model"]
    pictures = [
        load_scene(write_nerfstudio(tmp_path / name, content=content)).train[0].image.load()
        for name, content in (("a", by_model), ("b", by_flag))
    ]
    np.testing.assert_array_equal(*pictures)
    assert np.abs(pictures[0].astype(int) - picture(1)).max() > 5


def test_masks_points_and_the_listed_split_are_read(tmp_path: Path) -> None:
    content = nerfstudio_content(4) | {
        "ply_file_path": "sparse_pc.ply",
        "train_filenames": ["images/frame_00002.png", "images/frame_00000.png"],
        "val_filenames": ["images/frame_00001.png"],
        "test_filenames": ["images/frame_00001.png"],
        "applied_transform": [[1, 0, 0, 5], [0, 0, 1, 6], [0, -1, 0, 7]],
    }
    for i, frame in enumerate(content["frames"]):
        frame["mask_path"] = f"masks/{i}.png"
        save(tmp_path / "masks" / f"{i}.png", mask(i))
    tmp_path.mkdir(exist_ok=True)
    save_ply(tmp_path / "sparse_pc.ply")
    scene = load_scene(write_nerfstudio(tmp_path, content=content))
    assert [view.name for view in scene.train] == ["frame_00000", "frame_00002"]
    assert [view.name for view in scene.test] == ["frame_00001"]
    assert scene.split == "the data set's own"
    assert scene.test[0].mask is not None
    np.testing.assert_array_equal(scene.test[0].mask.load(), mask(1))
    assert scene.points is not None
    np.testing.assert_allclose(scene.to_input.apply(scene.points.positions).numpy(), POINTS, atol=1e-6)
    np.testing.assert_array_equal(scene.points.colors.numpy(), COLORS)


def test_smaller_pictures_on_disk_are_taken_when_just_that_size_is_asked_for(tmp_path: Path) -> None:
    root = write_nerfstudio(tmp_path)
    for i in range(4):
        save(root / "images_2" / f"frame_{i:05d}.png", picture(i, 5, WIDTH // 2, HEIGHT // 2))
    view = load_scene(root, LoadOptions(downscale=2)).train[0]
    np.testing.assert_array_equal(view.image.load(), picture(1, 5, WIDTH // 2, HEIGHT // 2))
    np.testing.assert_allclose(view.camera.K.numpy(), np.diag([0.5, 0.5, 1]) @ K)
    note = load_scene(root, LoadOptions(downscale=2)).resolution_note
    assert note == "as on disk, 32x24, from pictures scaled 1/2 on disk"
    assert load_scene(root, LoadOptions(downscale=4)).resolution_note == "area filter, 64x48 -> 16x12"


def test_instant_ngp_leaves_out_pictures_its_script_discarded(tmp_path: Path) -> None:
    content = nerfstudio_content() | {"aabb_scale": 4}
    for frame in content["frames"]:
        frame["sharpness"] = 30.0
        frame["file_path"] = frame["file_path"].replace("/", "\\").replace(".png", "")
    root = write_nerfstudio(tmp_path, content=content)
    (root / "images" / "frame_00001.png").unlink()
    scene = load_scene(root)
    assert scene.format == "transforms (instant-ngp)"
    assert [view.name for view in scene.views] == ["frame_00002", "frame_00003", "frame_00000"]


def test_dynamic_masks_of_instant_ngp_are_white_on_what_is_not_looked_at(tmp_path: Path) -> None:
    root = write_nerfstudio(tmp_path)
    save(root / "images" / "dynamic_mask_frame_00001.png", mask(1))
    view = load_scene(root).train[0]
    assert view.mask is not None
    np.testing.assert_array_equal(view.mask.load(), 255 - mask(1))


def test_blender_scenes_have_alpha_over_white_a_split_and_z_up(tmp_path: Path) -> None:
    scene = load_scene(write_blender(tmp_path, n=4))
    assert scene.format == "transforms (Blender)"
    assert [view.name for view in scene.train] == ["train/r_000", "train/r_001", "train/r_002"]
    assert [view.name for view in scene.test] == ["test/r_003"]
    assert (scene.background, scene.up) == ((1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
    np.testing.assert_array_equal(scene.test[0].image.load()[..., 3], mask(3))
    expected = np.array([[70.0, 0, WIDTH / 2], [0, 70.0, HEIGHT / 2], [0, 0, 1]])
    assert_shows_the_rig(scene, 4, expected)


def test_dnerf_scenes_move_from_0_to_1(tmp_path: Path) -> None:
    scene = load_scene(write_blender(tmp_path, n=5, times=True))
    assert scene.format == "transforms (D-NeRF)"
    assert scene.times == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert [view.camera.time for view in scene.train] == [0.0, 0.25, 0.5, 0.75]
    assert [view.camera.time for view in scene.test] == [1.0]


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    root = write_nerfstudio(tmp_path)
    (root / "images" / "frame_00002.png").unlink()
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (
        f"{root}/images/frame_00002.png does not exist; put the picture there or correct the path."
    )


def test_a_picture_of_another_size_is_named(tmp_path: Path) -> None:
    root = write_nerfstudio(tmp_path)
    save(root / "images" / "frame_00002.png", picture(2, 0, 32, 24))
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (
        f"{root}/images/frame_00002.png is 32x24 pixels but its intrinsics are for 64x48; "
        "scale one of the two so that they agree."
    )


def test_an_unknown_camera_model_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path, nerfstudio_content() | {"camera_model": "EQUIRECTANGULAR"}) == (
        "transforms.json frames[0] camera_model 'EQUIRECTANGULAR' is not known; "
        "use one of OPENCV, SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV_FISHEYE."
    )


def test_panoramas_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, nerfstudio_content() | {"equirectangular": True}) == (
        "transforms.json frames[0] is taken with a lens of type equirectangular; cut it into pinhole pictures first."
    )


def test_a_coefficient_of_the_other_model_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, nerfstudio_content() | {"k4": 0.1}) == (
        "transforms.json frames[0] k4 belongs to camera_model OPENCV_FISHEYE, not OPENCV; correct one of the two."
    )


def test_a_pose_that_is_not_finite_is_named(tmp_path: Path) -> None:
    content = nerfstudio_content()
    content["frames"][2]["transform_matrix"][1][3] = float("nan")
    assert refused(tmp_path, content) == (
        "transforms.json frames[2] transform_matrix holds values that are not finite; "
        "remove that camera or calibrate it again."
    )


def test_a_singular_pose_is_named(tmp_path: Path) -> None:
    content = nerfstudio_content()
    content["frames"][2]["transform_matrix"] = [[0.0] * 4] * 3 + [[0.0, 0.0, 0.0, 1.0]]
    assert refused(tmp_path, content) == (
        "transforms.json frames[2] transform_matrix is not a rotation with a translation; "
        "remove that camera or calibrate it again."
    )


def test_a_missing_focal_length_is_named(tmp_path: Path) -> None:
    content = nerfstudio_content()
    del content["fl_x"], content["fl_y"]
    assert refused(tmp_path, content) == (
        "transforms.json frames[0] has no focal length; add fl_x, x_fov or camera_angle_x, to it or to the top."
    )


def test_no_frames_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, nerfstudio_content() | {"frames": []}) == (
        "transforms.json has no cameras (frames is empty); check that it is complete."
    )


def test_json_of_another_dialect_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, {"views": [], "poses": []}) == "transforms.json has no field 'frames'; add it."
    assert refused(tmp_path, [1, 2]) == (
        "transforms.json holds a JSON list where an object is expected; is it the right file?"
    )


def test_a_listed_picture_without_a_frame_is_named(tmp_path: Path) -> None:
    listed = {"train_filenames": ["images/frame_00009.png"], "test_filenames": []}
    assert refused(tmp_path, nerfstudio_content() | listed) == (
        "transforms.json lists frame_00009.png in its split but has no frame of that name; correct one of the two."
    )


def test_the_fox_is_read_as_it_is_published(real_data: Path) -> None:
    scene = load_scene(real_data / "fox", LoadOptions(downscale=4))
    # 67 frames are listed; the pictures of 17 were discarded as blurred.
    assert (len(scene.train), len(scene.test)) == (43, 7)
    assert scene.up is not None
    assert scene.up[2] > 0.99
    assert scene.train[0].image.load().shape == (480, 270, 3)
