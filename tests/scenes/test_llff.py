"""LLFF photos and N3DV videos: the order of axes, sizes, split, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kinosplat.errors import InputError
from kinosplat.scenes import LoadOptions, load_scene
from kinosplat.scenes.formats.colmap_points import read_points3D
from scenes.builders import (
    HEIGHT,
    WIDTH,
    assert_shows_the_rig,
    picture,
    poses_bounds,
    save,
    save_video,
    write_colmap,
    write_llff,
    write_n3dv,
)

CENTRED_K = np.array([[70.0, 0, WIDTH / 2], [0, 70.0, HEIGHT / 2], [0, 0, 1]])


def message(root: Path, options: LoadOptions | None = None) -> str:
    """The message with which a folder is refused, without its path."""
    with pytest.raises(InputError) as error:
        load_scene(root, options)
    return str(error.value).replace(f"{root}/", "")


def test_axes_down_right_backward_become_opencv_cameras(tmp_path: Path) -> None:
    scene = load_scene(write_llff(tmp_path))
    assert scene.format == "llff"
    assert_shows_the_rig(scene, 4, CENTRED_K)


def test_smaller_photos_are_matched_by_their_order(tmp_path: Path) -> None:
    root = write_llff(tmp_path)
    for i in range(4):
        save(root / "images_4" / f"image{i:03d}.png", picture(i, 5, 16, 12))
    view = load_scene(root, LoadOptions(downscale=4)).train[0]
    np.testing.assert_array_equal(view.image.load(), picture(1, 5, 16, 12))
    np.testing.assert_allclose(view.camera.K.numpy(), np.diag([0.25, 0.25, 1]) @ CENTRED_K)


def test_smaller_photos_alone_are_scaled_the_rest_of_the_way(tmp_path: Path) -> None:
    root = write_llff(tmp_path)
    (root / "images").rename(root / "images_full")
    for i in range(4):
        save(root / "images_2" / f"{i}.png", picture(i, 0, 32, 24))
    scene = load_scene(root, LoadOptions(downscale=4))
    assert scene.resolution_note == "area filter, 32x24 -> 16x12, from pictures scaled 1/2 on disk"
    np.testing.assert_allclose(scene.train[0].camera.K.numpy(), np.diag([0.25, 0.25, 1]) @ CENTRED_K)
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (
        f"{root} has no folder images/ (smaller ones: images_2); put the photos there or ask for a downscale."
    )


def test_a_colmap_model_beside_it_is_preferred(tmp_path: Path) -> None:
    root = write_colmap(tmp_path)
    np.save(root / "poses_bounds.npy", poses_bounds(4))
    assert load_scene(root).format == "colmap"


def test_videos_are_read_and_camera_0_is_held_out(tmp_path: Path) -> None:
    scene = load_scene(write_n3dv(tmp_path, n=3, n_frames=4))
    assert (scene.format, scene.fps, scene.split) == ("n3dv", 30.0, "the data set's own")
    assert scene.times == (0.0, 1 / 30, 2 / 30, 3 / 30)
    assert [view.name for view in scene.test] == [f"cam00/{t:06d}" for t in range(4)]
    assert_shows_the_rig(scene, 3, CENTRED_K)


def test_a_missing_row_is_refused(tmp_path: Path) -> None:
    root = write_llff(tmp_path / "photos")
    np.save(root / "poses_bounds.npy", poses_bounds(3))
    assert message(root) == ("images holds 4 pictures but poses_bounds.npy has 3 rows; remove what does not belong.")
    root = write_n3dv(tmp_path / "videos")
    np.save(root / "poses_bounds.npy", poses_bounds(2))
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (f"{root} holds 3 videos but poses_bounds.npy has 2 rows; remove what does not belong.")


def test_a_shorter_video_is_refused_unless_its_end_is_not_asked_for(tmp_path: Path) -> None:
    root = write_n3dv(tmp_path, n=3, n_frames=4)
    save_video(root / "cam01.mp4", [picture(1, t) for t in range(3)], fps=30)
    assert message(root) == ("cam01.mp4 has 3 frames where others have 4; record it again, or choose frames 0 3.")
    assert len(load_scene(root, LoadOptions(frames=(0, 3))).views) == 9


def test_a_photo_of_another_shape_is_refused(tmp_path: Path) -> None:
    root = write_llff(tmp_path)
    save(root / "images" / "IMG_0002.png", picture(2, 0, HEIGHT, WIDTH))
    assert message(root) == (
        "images/IMG_0002.png is 48x64 pixels but its intrinsics are for 64x48; scale one of the two so that they agree."
    )


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        (4, 0.0, "poses_bounds.npy row 1 has a height, width or focal length that is not positive; correct it."),
        (15, -1.0, "poses_bounds.npy has depth bounds that are not positive; run the reconstruction again."),
        (3, np.nan, "poses_bounds.npy holds values that are not finite; remove that camera or calibrate it again."),
    ],
    ids=["height", "bounds", "nan"],
)
def test_values_that_cannot_be_are_refused(tmp_path: Path, column: int, value: float, text: str) -> None:
    root = write_llff(tmp_path)
    table = poses_bounds(4)
    table[1, column] = value
    np.save(root / "poses_bounds.npy", table)
    assert message(root) == text


def test_no_cameras_are_refused(tmp_path: Path) -> None:
    root = write_llff(tmp_path)
    np.save(root / "poses_bounds.npy", np.zeros((0, 17)))
    assert message(root) == "poses_bounds.npy has no cameras (0 rows); run the reconstruction again."


def test_another_table_is_refused(tmp_path: Path) -> None:
    root = write_llff(tmp_path)
    np.save(root / "poses_bounds.npy", np.zeros((4, 14)))
    assert message(root) == "poses_bounds.npy has shape 4 x 14 instead of n x 17; correct it."


def test_real_points_project_onto_their_colours(real_data: Path, tmp_path: Path) -> None:
    """DTU's poses_bounds.npy and points3D.bin are of one COLMAP model; a wrong axis would scatter the points."""
    dtu = real_data / "dtu_scan24"
    (tmp_path / "images").symlink_to(dtu / "image", target_is_directory=True)
    (tmp_path / "poses_bounds.npy").symlink_to(dtu / "poses_bounds.npy")
    scene = load_scene(tmp_path, LoadOptions(downscale=2))
    points = read_points3D(dtu / "colmap_partial" / "points3D.bin")
    positions = scene.to_input.invert(torch.from_numpy(points.positions).float())
    errors, shifted_errors = [], []
    for view in scene.views[::12]:
        in_camera = positions @ view.camera.world_to_camera[:3, :3].T + view.camera.world_to_camera[:3, 3]
        pixels = (in_camera @ view.camera.K.T)[:, :2] / in_camera[:, 2:]
        size = torch.tensor([view.camera.width, view.camera.height])
        inside = (in_camera[:, 2] > 0) & ((pixels >= 0) & (pixels < size)).all(dim=1)
        assert inside.float().mean() > 0.7
        image = view.image.load().astype(int)
        colors = points.colors[inside.numpy()].astype(int)
        for shift, found in ((0, errors), (40, shifted_errors)):
            x, y = ((pixels[inside].long() + shift) % size).numpy().T
            found.append(np.median(np.abs(image[y, x] - colors).mean(axis=1)))
    # Measured 32 against 46 grey levels; the lamp moves with DTU's camera, so colours never agree exactly.
    assert np.mean(errors) < 0.8 * np.mean(shifted_errors)
