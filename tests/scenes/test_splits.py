"""Which cameras are held out."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinosplat.errors import InputError
from kinosplat.scenes import LoadOptions, Scene, load_scene
from scenes.builders import write_blender, write_idr, write_panoptic


def numbers(scene: Scene) -> tuple[list[int], list[int]]:
    """Training and test cameras."""
    return (
        sorted({view.camera_index for view in scene.train}),
        sorted({view.camera_index for view in scene.test}),
    )


def test_without_a_split_the_first_camera_of_every_eight_is_held_out(tmp_path: Path) -> None:
    scene = load_scene(write_idr(tmp_path, n=10, masks=False))
    assert numbers(scene) == ([1, 2, 3, 4, 5, 6, 7, 9], [0, 8])
    assert scene.split == "every 8th camera"
    every_third = load_scene(tmp_path, LoadOptions(test_every=3))
    assert numbers(every_third)[1] == [0, 3, 6, 9]
    assert every_third.split == "every 3rd camera"
    nothing = load_scene(tmp_path, LoadOptions(test_every=0))
    assert numbers(nothing) == (list(range(10)), [])
    assert nothing.split == "no view held out"


def test_a_single_camera_is_for_training(tmp_path: Path) -> None:
    assert numbers(load_scene(write_idr(tmp_path, n=1, masks=False))) == ([0], [])


def test_the_data_sets_own_split_can_be_overruled(tmp_path: Path) -> None:
    root = write_blender(tmp_path, n=4)
    assert numbers(load_scene(root)) == ([0, 1, 2], [3])
    assert numbers(load_scene(root, LoadOptions(split="every"))) == ([1, 2, 3], [0])


def test_cameras_of_clips_are_held_out_with_all_their_frames(tmp_path: Path) -> None:
    scene = load_scene(write_panoptic(tmp_path, n=4, n_frames=3), LoadOptions(split="every", test_every=2))
    assert numbers(scene) == ([1, 3], [0, 2])
    assert len(scene.test) == 6


@pytest.mark.parametrize("n", [3, 6, 9])
def test_dtu_scenes_have_the_sparse_split_of_pixelnerf_and_regnerf(tmp_path: Path, n: int) -> None:
    root = write_idr(tmp_path / "scan24", n=49, masks=False)
    scene = load_scene(root, LoadOptions(train_views=n))  # type: ignore[arg-type]
    train, test = numbers(scene)
    assert train == sorted([25, 22, 28, 40, 44, 48, 0, 8, 13][:n])
    # The test cameras do not depend on n, and the nine training cameras are never among them.
    assert test == [
        1, 2, 9, 10, 11, 12, 14, 15, 23, 24, 26, 27, 29, 30, 31, 32, 33, 34, 35, 41, 42, 43, 45, 46, 47,
    ]  # fmt: skip
    assert scene.split == f"{n} views, PixelNeRF's of DTU"


def test_elsewhere_sparse_views_are_spread_evenly_over_the_training_cameras(tmp_path: Path) -> None:
    root = write_idr(tmp_path / "toy", n=18, masks=False)
    scene = load_scene(root, LoadOptions(train_views=3))
    assert numbers(scene) == ([1, 9, 17], [0, 8, 16])
    assert scene.split == "3 views evenly spaced, tested on every 8th camera"


def test_too_few_cameras_for_a_sparse_split_are_told(tmp_path: Path) -> None:
    root = write_idr(tmp_path, n=4, masks=False)
    with pytest.raises(InputError) as error:
        load_scene(root, LoadOptions(train_views=6))
    assert str(error.value) == (
        "train_views 6 needs that many training cameras, but the scene has only 3; leave it out to use them all."
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"downscale": 0.5}, "downscale must be at least 1, got 0.5; pictures are never enlarged."),
        ({"resolution": (0, 5)}, "resolution must be at least 1 1, got 0 5."),
        ({"resolution": (8, 8), "downscale": 2.0}, "resolution and downscale exclude each other; give one of them."),
        ({"test_every": 1}, "test_every must be 0 or at least 2, got 1; 1 would leave nothing to learn from."),
        ({"frames": (0, 5), "frame": 1}, "frame and frames exclude each other; give one of them."),
        ({"frames": (5, 5)}, "frames must be a first frame and a later one, counted from 0, got 5 5."),
        ({"frame": -1}, "frame counts from 0, got -1."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_make_no_sense_are_told(options: dict[str, object], text: str) -> None:
    with pytest.raises(InputError) as error:
        LoadOptions(**options)  # type: ignore[arg-type]
    assert str(error.value) == text
