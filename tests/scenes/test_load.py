"""Finding a scene by path or name, its size, its coordinates, and what is refused for every format alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kinosplat.errors import InputError
from kinosplat.scenes import LoadOptions, find_scene, load_scene
from scenes.builders import (
    POINTS,
    RADIUS,
    TARGET,
    K,
    Rig,
    nerfstudio_content,
    picture,
    poses_bounds,
    write_colmap,
    write_idr,
    write_llff,
    write_nerfstudio,
)


def test_a_scene_is_found_by_path_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_nerfstudio(tmp_path / "toy")
    monkeypatch.setenv("KINOSPLAT_DATA", str(tmp_path))
    assert find_scene(root) == find_scene(str(root)) == find_scene("toy") == root
    assert load_scene("toy").name == "toy"


def test_an_unknown_name_is_answered_with_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nerfstudio(tmp_path / "toy")
    (tmp_path / "notes").mkdir()
    monkeypatch.setenv("KINOSPLAT_DATA", str(tmp_path))
    monkeypatch.setattr("kinosplat.scenes.load.data_folders", lambda: [tmp_path])
    with pytest.raises(InputError) as error:
        load_scene("tory")
    assert str(error.value) == (
        "There is no scene 'tory': it is neither a folder nor one of the scenes found by name (toy); "
        "give a path, or set KINOSPLAT_DATA to the folder that holds it."
    )


def test_the_scene_that_ships_with_the_project_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KINOSPLAT_DATA", raising=False)
    assert find_scene("tabletop").name == "tabletop"


def test_a_folder_without_a_scene_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_scene(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} is not in a known layout; it needs one of cameras.json, train_meta.json, cameras_sphere.npz, "
        "transforms.json, poses_bounds.npy or sparse/."
    )
    (tmp_path / "a.zip").touch()
    with pytest.raises(InputError) as error:
        load_scene(tmp_path / "a.zip")
    assert str(error.value) == f"{tmp_path}/a.zip is a file; give the folder of the scene."


def test_pictures_and_intrinsics_are_scaled_together(tmp_path: Path) -> None:
    root = write_nerfstudio(tmp_path)
    scene = load_scene(root, LoadOptions(downscale=2))
    view = scene.train[0]
    np.testing.assert_allclose(view.camera.K.numpy(), np.diag([0.5, 0.5, 1]) @ K)
    mean = picture(1).reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(view.image.load() - mean).max() <= 0.5
    assert scene.resolution_note == "area filter, 64x48 -> 32x24"
    assert load_scene(root).resolution_note == "full resolution, 64x48"


def test_a_resolution_may_change_the_aspect_ratio(tmp_path: Path) -> None:
    view = load_scene(write_nerfstudio(tmp_path), LoadOptions(resolution=(40, 24))).train[0]
    assert view.image.load().shape == (24, 40, 3)
    np.testing.assert_allclose(view.camera.K.numpy(), np.diag([40 / 64, 0.5, 1]) @ K, rtol=1e-6)


def test_pictures_are_never_enlarged(tmp_path: Path) -> None:
    root = write_nerfstudio(tmp_path)
    with pytest.raises(InputError) as error:
        load_scene(root, LoadOptions(resolution=(65, 48)))
    assert str(error.value) == (
        f"resolution 65 48 is larger than {root}/images/frame_00001.png with 64x48 pixels; "
        "choose a smaller one, pictures are never enlarged."
    )


def test_static_scenes_have_no_frames_to_choose_from(tmp_path: Path) -> None:
    root = write_nerfstudio(tmp_path)
    with pytest.raises(InputError) as error:
        load_scene(root, LoadOptions(frame=0))
    assert str(error.value) == f"{root} is static, so frame and frames do not apply; leave them out."


def test_the_origin_is_where_the_cameras_look_and_they_are_one_unit_away(tmp_path: Path) -> None:
    scene = load_scene(write_nerfstudio(tmp_path, n=6))
    np.testing.assert_allclose(scene.to_input.offset, TARGET, atol=1e-9)
    assert scene.to_input.scale == pytest.approx(RADIUS)
    distances = torch.stack([view.camera.position for view in scene.views]).norm(dim=1)
    torch.testing.assert_close(distances, torch.ones(6), atol=1e-5, rtol=0)
    assert scene.up == pytest.approx((0, 0, 1), abs=1e-9)


def test_rotations_and_projections_do_not_change_with_the_coordinates(tmp_path: Path) -> None:
    scene = load_scene(write_nerfstudio(tmp_path))
    points = scene.to_input.invert(torch.from_numpy(POINTS).float())
    torch.testing.assert_close(scene.to_input.apply(points).double(), torch.from_numpy(POINTS), atol=1e-6, rtol=0)
    camera = scene.train[0].camera
    pose = Rig(4).poses[1]
    in_scene = points @ camera.world_to_camera[:3, :3].T + camera.world_to_camera[:3, 3]
    in_input = POINTS @ pose[:3, :3].T + pose[:3, 3]
    np.testing.assert_allclose(in_scene.numpy() * scene.to_input.scale, in_input, atol=1e-5)


def test_cameras_that_look_the_same_way_are_centred_before_themselves(tmp_path: Path) -> None:
    root = write_llff(tmp_path, n=4)
    table = poses_bounds(4)
    for i in range(4):
        table[i, :15] = table[0, :15]
        table[i, 3] += 0.1 * i
    np.save(root / "poses_bounds.npy", table)
    scene = load_scene(root)
    forward = Rig(4).poses[0][2, :3]
    mean = Rig(4).positions[0] + (0.15, 0, 0)
    # The harmonic mean of the bounds 2 and 8.
    np.testing.assert_allclose(scene.to_input.offset, mean + 3.2 * forward, atol=1e-6)
    assert scene.to_input.scale == pytest.approx(3.2, rel=0.01)


def test_parallel_cameras_with_points_are_centred_at_the_depth_of_the_points(tmp_path: Path) -> None:
    root = write_colmap(tmp_path, n=1)
    scene = load_scene(root)
    pose = Rig(1).poses[0]
    depth = float(np.median(POINTS @ pose[2, :3] + pose[2, 3]))
    np.testing.assert_allclose(scene.to_input.offset, Rig(1).positions[0] + depth * pose[2, :3], atol=1e-6)


def test_a_picture_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    content = nerfstudio_content()
    content["frames"].append(content["frames"][1])
    root = write_nerfstudio(tmp_path, content=content)
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == f"{root} has two pictures named 'frame_00001'; keep one of them."


def test_a_split_that_leaves_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    content = nerfstudio_content(2) | {"train_filenames": [], "test_filenames": ["images/frame_00000.png"]}
    root = write_nerfstudio(tmp_path, n=2, content=content)
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (f"{root} has no training views left; choose another split, or a smaller test_every.")


def test_loading_is_cheap_because_no_picture_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_idr(tmp_path)
    monkeypatch.setattr("kinosplat.scenes.images.read_pixels", lambda path: pytest.fail(f"{path} was decoded"))
    assert len(load_scene(root).views) == 4
