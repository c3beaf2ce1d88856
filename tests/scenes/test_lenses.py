"""Delivery: undistorted pictures are what a pinhole would have taken, downscaling averages areas, masks are right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kinosplat.errors import InputError
from kinosplat.scenes.distortion import Lens
from kinosplat.scenes.images import LensGaps
from kinosplat.scenes.lenses import Delivery, Undistortion
from kinosplat.scenes.resample import area_resize

WIDTH, HEIGHT = 160, 120
K = (150.0, 145.0, 83.0, 57.0, 0.0)
LENSES = {
    "barrel": Lens("opencv", (-0.25, 0.05, 0.002, -0.001)),
    "fisheye": Lens("opencv_fisheye", (0.05, 0.01)),
    "cushion": Lens("opencv", (0.2,)),
}


def scene_colour(x: torch.Tensor, y: torch.Tensor) -> NDArray[np.uint8]:
    """A smooth world on the plane z = 1, seen in the direction (x, y, 1)."""
    waves = torch.stack([torch.sin(9 * x), torch.cos(8 * y), torch.sin(6 * (x + y))], dim=-1)
    return (127.5 + 120 * waves).round().to(torch.uint8).numpy()


def directions() -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised coordinates of all pixel centres."""
    v, u = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    return (u.double() - K[2]) / K[0], (v.double() - K[3]) / K[1]


@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)
def test_an_undistorted_picture_is_that_of_a_pinhole_with_the_same_k(lens: Lens) -> None:
    x, y = directions()
    real = lens.undistort(torch.stack([x, y], dim=-1))
    raw = scene_colour(real[..., 0], real[..., 1])
    delivery = Delivery(WIDTH, HEIGHT, WIDTH, HEIGHT, Undistortion(lens, K, WIDTH, HEIGHT))
    delivered = delivery.apply(raw).astype(int)
    inside = LensGaps(delivery).load() == 255
    error = np.abs(delivered - scene_colour(x, y))[inside]
    # Measured with bilinear interpolation of 8-bit pictures: mean 0.17, maximum 3, in the corners.
    assert error.mean() < 0.25
    assert error.max() <= 4
    assert np.abs(raw.astype(int) - scene_colour(x, y)).mean() > 4
    assert inside.mean() > 0.7


def test_only_lenses_that_pull_the_border_in_leave_gaps() -> None:
    def delivery(lens: Lens) -> Delivery:
        return Delivery(WIDTH, HEIGHT, WIDTH, HEIGHT, Undistortion(lens, K, WIDTH, HEIGHT))

    assert not delivery(LENSES["barrel"]).leaves_gaps
    assert delivery(LENSES["cushion"]).leaves_gaps
    assert not Delivery(WIDTH, HEIGHT, WIDTH, HEIGHT).leaves_gaps
    gaps = LensGaps(delivery(LENSES["cushion"])).load()
    assert gaps[0, 0] == 0
    assert gaps[int(K[3]), int(K[2])] == 255


def test_pixels_beyond_the_fold_of_a_lens_are_gaps_and_not_copies() -> None:
    lens = Lens("opencv", (-1.5,))
    delivery = Delivery(WIDTH, HEIGHT, WIDTH, HEIGHT, Undistortion(lens, K, WIDTH, HEIGHT))
    x, y = directions()
    beyond = torch.hypot(x, y).numpy() > lens.largest_radius
    assert beyond.any()
    assert not LensGaps(delivery).load()[beyond].any()


def test_area_means_of_whole_and_broken_ratios_are_exact() -> None:
    generator = np.random.default_rng(0)
    picture = generator.random((12, 20, 2)).astype(np.float32)
    halves = picture.reshape(6, 2, 10, 2, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(area_resize(picture, 10, 6), halves, atol=1e-6)
    # 20 columns onto 8 are 40 half columns onto 8, five each; 12 rows onto 5 are 60 fifths of rows, twelve each.
    enlarged = (
        picture.repeat(2, axis=1).reshape(12, 8, 5, 2).mean(axis=2).repeat(5, axis=0).reshape(5, 12, 8, 2).mean(axis=1)
    )
    np.testing.assert_allclose(area_resize(picture, 8, 5), enlarged, atol=1e-6)
    assert area_resize(picture, 7, 11).mean() == pytest.approx(picture.mean(), rel=1e-6)


def test_colour_hidden_behind_alpha_does_not_bleed_in() -> None:
    raw = np.zeros((2, 2, 4), np.uint8)
    raw[:, 0] = (200, 100, 50, 255)
    raw[:, 1] = (0, 255, 0, 0)
    np.testing.assert_array_equal(Delivery(2, 2, 1, 1).apply(raw), [[[200, 100, 50, 128]]])


def test_pictures_of_any_kind_become_three_or_four_channels() -> None:
    delivery = Delivery(2, 1, 2, 1)
    gray = np.array([[7, 200]], np.uint8)
    np.testing.assert_array_equal(delivery.apply(gray), [[[7] * 3, [200] * 3]])
    np.testing.assert_array_equal(delivery.apply(gray[..., None]), [[[7] * 3, [200] * 3]])
    gray_alpha = np.stack([gray, 255 - gray], axis=2)
    np.testing.assert_array_equal(delivery.apply(gray_alpha), [[[7, 7, 7, 248], [200, 200, 200, 55]]])
    np.testing.assert_array_equal(delivery.apply(np.array([[65535, 257 * 9]], np.uint16)), [[[255] * 3, [9] * 3]])


def test_masks_become_one_channel_with_white_inside() -> None:
    delivery = Delivery(2, 1, 2, 1, role="mask")
    for raw in (
        np.array([[0, 255]], np.uint8),
        np.array([[0, 1]], np.uint8),
        np.array([[[0, 0, 0], [0, 255, 9]]], np.uint8),
        np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8),
        np.array([[0, 65535]], np.uint16),
    ):
        np.testing.assert_array_equal(delivery.apply(raw), [[0, 255]])
        np.testing.assert_array_equal(replace(delivery, role="inverted mask").apply(raw), [[255, 0]])
    # An opaque alpha channel says nothing; the colours do.
    np.testing.assert_array_equal(
        delivery.apply(np.array([[[0, 0, 0, 255], [255, 255, 255, 255]]], np.uint8)), [[0, 255]]
    )


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(InputError) as error:
        Delivery(64, 48, 32, 24).apply(np.zeros((48, 60, 3), np.uint8), "a/b.png")
    assert str(error.value) == (
        "a/b.png is 60x48 pixels but its intrinsics are for 64x48; scale one of the two so that they agree."
    )
