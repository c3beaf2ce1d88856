"""IDR/NeuS folders: cameras out of projections, the unit sphere and the way back, masks, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kinosplat.errors import InputError
from kinosplat.scenes import LoadOptions, load_scene
from kinosplat.scenes.formats.idr import decompose_projection
from scenes.builders import K, Rig, assert_shows_the_rig, mask, picture, save, write_idr


def change(root: Path, **arrays: np.ndarray) -> None:
    """Replace arrays of the camera file."""
    path = root / "cameras_sphere.npz"
    with np.load(path) as archive:
        content = {name: archive[name] for name in archive.files}
    np.savez(path, **(content | arrays))


def test_projections_are_taken_apart_into_the_cameras_they_were_made_of(tmp_path: Path) -> None:
    scene = load_scene(write_idr(tmp_path))
    assert scene.format == "idr"
    assert scene.masks_cut_out
    assert_shows_the_rig(scene, 4)


def test_scene_coordinates_are_those_of_the_unit_sphere_and_lead_back_to_the_input(tmp_path: Path) -> None:
    scene = load_scene(write_idr(tmp_path, scale=2.5, offset=(1.0, -2.0, 3.0)))
    assert scene.to_input.scale == 2.5
    assert scene.to_input.offset == (1.0, -2.0, 3.0)
    expected = (Rig(4).positions[0] - (1.0, -2.0, 3.0)) / 2.5
    np.testing.assert_allclose(scene.test[0].camera.position.numpy(), expected, atol=1e-6)


def test_a_projection_is_decomposed_whatever_its_scale_and_sign() -> None:
    pose = Rig(3).poses[1]
    for factor in (1.0, -3.0, 1e-3):
        found_K, found_pose = decompose_projection(factor * (np.hstack([K, np.zeros((3, 1))]) @ pose), "P")
        np.testing.assert_allclose(found_K, K, atol=1e-10)
        np.testing.assert_allclose(found_pose, pose, atol=1e-12)


def test_masks_are_one_channel_and_can_be_ignored(tmp_path: Path) -> None:
    root = write_idr(tmp_path)
    view = load_scene(root).train[0]
    assert view.mask is not None
    np.testing.assert_array_equal(view.mask.load(), mask(1))
    assert all(view.mask is None for view in load_scene(root, LoadOptions(masks="ignore")).views)


def test_cameras_large_is_read_when_there_is_nothing_else(tmp_path: Path) -> None:
    root = write_idr(tmp_path)
    (root / "cameras_sphere.npz").rename(root / "cameras_large.npz")
    assert_shows_the_rig(load_scene(root), 4)


def test_fewer_pictures_than_cameras_are_matched_by_their_numbers(tmp_path: Path) -> None:
    root = write_idr(tmp_path)
    (root / "image" / "000001.png").unlink()
    (root / "mask" / "001.png").unlink()
    scene = load_scene(root, LoadOptions(test_every=0))
    assert [view.name for view in scene.train] == ["000000", "000002", "000003"]
    np.testing.assert_array_equal(scene.train[1].image.load(), picture(2))
    # Measured 3e-7; float32 at coordinates of about 4.
    torch.testing.assert_close(
        scene.to_input.apply(scene.train[1].camera.position).double(),
        torch.from_numpy(Rig(4).positions[2]),
        atol=3e-6,
        rtol=0,
    )


def test_an_extra_picture_is_refused(tmp_path: Path) -> None:
    root = write_idr(tmp_path)
    save(root / "image" / "extra.png", picture(0))
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (
        f"{root}/image holds 5 pictures but cameras_sphere.npz has 4 cameras (world_mat_i); "
        "remove what does not belong, or name each picture by its camera's number."
    )


def test_a_camera_that_is_not_finite_is_named(tmp_path: Path) -> None:
    root = write_idr(tmp_path)
    change(root, world_mat_2=np.full((4, 4), np.nan))
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (
        f"{root}/cameras_sphere.npz world_mat_2 holds values that are not finite; "
        "remove that camera or calibrate it again."
    )


def test_a_singular_camera_is_named(tmp_path: Path) -> None:
    root = write_idr(tmp_path)
    change(root, world_mat_1=np.zeros((4, 4)))
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (
        f"{root}/cameras_sphere.npz world_mat_1 is singular; remove that camera or calibrate it again."
    )


def test_a_file_without_cameras_is_refused(tmp_path: Path) -> None:
    root = write_idr(tmp_path, n=1)
    np.savez(root / "cameras_sphere.npz", something=np.eye(4))
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == f"{root}/cameras_sphere.npz has no cameras (no world_mat_0); is it the right file?"


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    root = write_idr(tmp_path, n=2)
    (root / "cameras_sphere.npz").write_bytes((root / "cameras_sphere.npz").read_bytes()[:200])
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == f"{root}/cameras_sphere.npz is not a readable .npz file (BadZipFile); copy it again."


def test_a_normalisation_that_is_no_similarity_is_refused(tmp_path: Path) -> None:
    root = write_idr(tmp_path)
    change(root, scale_mat_0=np.diag([1.0, 2.0, 1.0, 1.0]))
    with pytest.raises(InputError) as error:
        load_scene(root)
    assert str(error.value) == (
        f"{root}/cameras_sphere.npz scale_mat_0 is not a uniform scale with a translation; "
        "normalise the scene without rotating it."
    )


def test_an_empty_mask_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    root = write_idr(tmp_path)
    save(root / "mask" / "001.png", np.zeros_like(mask(1)))
    view = load_scene(root).train[0]
    assert view.mask is not None
    with pytest.raises(InputError) as error:
        view.mask.load()
    assert str(error.value) == (
        f"{root}/mask/001.png is an empty mask, with no pixel inside; remove it or set masks to ignore."
    )


def test_dtu_is_read_as_it_is_published(real_data: Path) -> None:
    scene = load_scene(real_data / "dtu_scan24", LoadOptions(downscale=4))
    assert (len(scene.train), len(scene.test)) == (42, 7)
    assert scene.resolution_note == "area filter, 1600x1200 -> 400x300"
    positions = torch.stack([view.camera.position for view in scene.views])
    # The cameras stand on a piece of a sphere around the object, which fills the unit sphere.
    assert 2.5 < positions.norm(dim=1).min() < positions.norm(dim=1).max() < 3.2
    for view in scene.views:
        towards_object = torch.nn.functional.normalize(-view.camera.position, dim=0)
        assert towards_object @ view.camera.forward > 0.97
        # Millimetres: DTU's arm moves the camera within about a metre.
    assert 300 < (scene.to_input.apply(positions) - scene.to_input.apply(positions).mean(dim=0)).norm(dim=1).max() < 700
