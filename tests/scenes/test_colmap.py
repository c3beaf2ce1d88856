"""COLMAP models: text and binary, every camera model, points, masks, smaller pictures, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kinosplat.errors import InputError
from kinosplat.scenes import LoadOptions, load_scene
from kinosplat.scenes.distortion import COEFFICIENTS
from kinosplat.scenes.formats.colmap_cameras import CAMERA_MODELS, CameraModel, read_cameras
from kinosplat.scenes.formats.colmap_points import read_points3D
from scenes.builders import (
    COLORS,
    HEIGHT,
    POINTS,
    WIDTH,
    K,
    assert_shows_the_rig,
    mask,
    picture,
    save,
    write_colmap,
)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "text"])
def test_a_model_is_read_with_its_points(tmp_path: Path, binary: bool) -> None:
    scene = load_scene(write_colmap(tmp_path, binary=binary))
    assert scene.format == "colmap"
    assert_shows_the_rig(scene, 4)
    assert [view.name for view in scene.train] == ["photo 1", "photo 2", "photo 3"]
    assert scene.points is not None
    np.testing.assert_allclose(scene.to_input.apply(scene.points.positions).numpy(), POINTS, atol=1e-6)
    np.testing.assert_array_equal(scene.points.colors.numpy(), COLORS)


@pytest.mark.parametrize("folder", ["sparse/0", "sparse", "colmap/sparse/0", "."])
def test_a_model_is_found_where_tools_leave_it(tmp_path: Path, folder: str) -> None:
    assert_shows_the_rig(load_scene(write_colmap(tmp_path, folder=folder)), 4)


def test_files_of_later_versions_do_not_disturb(tmp_path: Path) -> None:
    root = write_colmap(tmp_path)
    for name in ("rigs.bin", "frames.bin"):
        (root / "sparse" / "0" / name).write_bytes(b"\x01\x00\x00\x00")
    assert_shows_the_rig(load_scene(root), 4)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "text"])
@pytest.mark.parametrize(("model_id", "model"), CAMERA_MODELS.items(), ids=lambda value: getattr(value, "name", value))
def test_every_camera_model_is_read(tmp_path: Path, model_id: int, model: CameraModel, binary: bool) -> None:
    focal = [70.0, 72.0][: model.n_focal]
    coefficients = [0.01 * (i + 1) for i in range(model.n_coefficients)]
    entry = (model_id, model.name, (*focal, 33.0, 22.0, *coefficients))
    root = write_colmap(tmp_path, n=1, model=entry, binary=binary)
    camera = read_cameras(root / "sparse" / "0" / ("cameras.bin" if binary else "cameras.txt"))[7]
    np.testing.assert_array_equal(camera.K, [[70.0, 0, 33.0], [0, focal[-1], 22.0], [0, 0, 1]])
    assert (camera.width, camera.height) == (WIDTH, HEIGHT)
    assert camera.lens.model == model.lens
    assert list(camera.lens.coefficients) == coefficients
    assert load_scene(root).train[0].image.load().shape == (HEIGHT, WIDTH, 3)


def test_the_table_of_models_agrees_with_the_formulas() -> None:
    for model in CAMERA_MODELS.values():
        assert model.n_coefficients <= len(COEFFICIENTS[model.lens]), model.name
    # Parameter counts of COLMAP's documentation, in the order of their numbers.
    counts = [model.n_parameters for model in CAMERA_MODELS.values()]
    assert counts == [3, 4, 4, 5, 8, 8, 12, 5, 4, 5, 12, 16, 4, 5, 3, 4, 6]


def test_masks_are_named_after_the_whole_file_name(tmp_path: Path) -> None:
    names = ["left/a.png", "left/b.png", "right/a.png", "right/b.png"]
    root = write_colmap(tmp_path, names=names)
    save(root / "masks" / "left" / "b.png.png", mask(1))
    scene = load_scene(root)
    assert [view.name for view in scene.views] == ["left/b", "right/a", "right/b", "left/a"]
    assert scene.train[0].mask is not None
    np.testing.assert_array_equal(scene.train[0].mask.load(), mask(1))
    assert scene.train[1].mask is None


def test_smaller_pictures_on_disk_are_taken_when_just_that_size_is_asked_for(tmp_path: Path) -> None:
    root = write_colmap(tmp_path)
    for i in range(4):
        save(root / "images_2" / f"photo {i}.png", picture(i, 5, WIDTH // 2, HEIGHT // 2))
    view = load_scene(root, LoadOptions(downscale=2)).train[0]
    np.testing.assert_array_equal(view.image.load(), picture(1, 5, WIDTH // 2, HEIGHT // 2))
    np.testing.assert_allclose(view.camera.K.numpy(), np.diag([0.5, 0.5, 1]) @ K)


def message(root: Path) -> str:
    """The message with which a folder is refused, without its path."""
    with pytest.raises(InputError) as error:
        load_scene(root)
    return str(error.value).replace(f"{root}/", "")


def test_an_unknown_camera_model_is_named(tmp_path: Path) -> None:
    known = ", ".join(model.name for model in CAMERA_MODELS.values())
    assert message(write_colmap(tmp_path / "a", model=(99, "", (70.0, 33.0, 22.0)))) == (
        f"sparse/0/cameras.bin camera 7 has the camera model 99, which is not known; use one of {known}."
    )
    assert message(write_colmap(tmp_path / "b", model=(17, "EQUIRECTANGULAR", (64.0, 48.0)), binary=False)) == (
        f"sparse/0/cameras.txt line 2 has the camera model EQUIRECTANGULAR, which is not known; use one of {known}."
    )


def test_a_wrong_number_of_parameters_is_named(tmp_path: Path) -> None:
    assert message(write_colmap(tmp_path, model=(1, "PINHOLE", (70.0, 33.0, 22.0)), binary=False)) == (
        "sparse/0/cameras.txt line 2 has 3 parameters, but PINHOLE takes 4; correct it."
    )


def test_a_pose_that_is_not_finite_is_named(tmp_path: Path) -> None:
    root = write_colmap(tmp_path, binary=False)
    path = root / "sparse" / "0" / "images.txt"
    lines = path.read_text().splitlines()
    words = lines[3].split(" ")
    path.write_text("\n".join([*lines[:3], " ".join([words[0], "nan", *words[2:]]), *lines[4:]]))
    assert message(root) == (
        "sparse/0/images.txt line 4 pose holds values that are not finite; remove that camera or calibrate it again."
    )


def test_a_rotation_of_zeros_is_named(tmp_path: Path) -> None:
    root = write_colmap(tmp_path, n=1, binary=False)
    (root / "sparse" / "0" / "images.txt").write_text("1 0 0 0 0 1 2 3 7 photo 0.png\n\n")
    assert message(root) == (
        "sparse/0/images.txt line 1 has the rotation 0 0 0 0; remove that image or register it again."
    )


def test_no_registered_images_are_refused(tmp_path: Path) -> None:
    assert message(write_colmap(tmp_path, n=0, names=[])) == (
        "sparse/0/images.bin has no cameras (no registered images); run the reconstruction again."
    )


def test_points_without_a_point_are_refused(tmp_path: Path) -> None:
    for binary, name in ((True, "points3D.bin"), (False, "points3D.txt")):
        assert message(write_colmap(tmp_path / name, binary=binary, n_points=0)) == (
            f"sparse/0/{name} holds 0 points; remove it, and first points are found from the pictures."
        )


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    root = write_colmap(tmp_path)
    path = root / "sparse" / "0" / name
    path.write_bytes(path.read_bytes()[:-3])
    assert message(root) == f"sparse/0/{name} is truncated or no COLMAP file; copy it again."


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    root = write_colmap(tmp_path)
    (root / "images" / "photo 2.png").unlink()
    assert message(root) == "images/photo 2.png does not exist; put the picture there or correct the path."


def test_a_missing_images_folder_is_named(tmp_path: Path) -> None:
    root = write_colmap(tmp_path)
    (root / "images").rename(root / "pictures")
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == f"{root} has no folder images/ or input/ or image/ or rgb/; put the pictures there."


def test_points_of_a_real_model_are_read(real_data: Path) -> None:
    points = read_points3D(real_data / "dtu_scan24" / "colmap_partial" / "points3D.bin")
    assert points.positions.shape == (34673, 3)
    # Everything lies before COLMAP's first camera, a few of its units away.
    assert 4 < np.median(points.positions[:, 2]) < 7
