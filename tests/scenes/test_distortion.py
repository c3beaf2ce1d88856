"""Lens formulas: values worked out by hand from COLMAP's documentation, their inverse, and where they fold back."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from kinosplat.errors import InputError
from kinosplat.scenes.distortion import COEFFICIENTS, Lens, LensModel

POINT = torch.tensor([0.3, 0.4], dtype=torch.float64)  # r = 0.5, r^2 = 0.25, angle = atan(0.5)
THETA = math.atan(0.5)
WEAK = {
    "pinhole": (),
    "opencv": (-0.1, 0.02, 0.003, -0.002, 0.01, 0.01, -0.02, 0.005),
    "opencv_fisheye": (0.05, -0.01, 0.003, 0.001),
    "thin_prism_fisheye": (0.05, -0.01, 0.002, -0.001, 0.003, 0.001, 0.002, -0.003),
    "rad_tan_thin_prism_fisheye": (
        0.05,
        -0.01,
        0.003,
        0.001,
        -0.001,
        0.0005,
        0.002,
        -0.001,
        0.002,
        0.001,
        -0.003,
        0.001,
    ),
    "fov": (0.9,),
    "division": (-0.1,),
    "eucm": (0.6, 1.1),
}


def distorted(model: LensModel, *coefficients: float) -> list[float]:
    """Where POINT goes."""
    return Lens(model, coefficients).distort(POINT).tolist()


def test_a_pinhole_changes_nothing() -> None:
    assert distorted("pinhole") == [0.3, 0.4]


def test_opencv_is_radial_tangential_and_rational() -> None:
    # 1 + k1 r^2 + k2 r^4 = 1 + 0.1 * 0.25 + 0.2 * 0.0625 = 1.0375
    assert distorted("opencv", 0.1, 0.2) == pytest.approx([0.31125, 0.415], rel=1e-14)
    # x: 2 p1 xy + p2 (r^2 + 2 x^2) = 0.0024 + 0.0086; y: 2 p2 xy + p1 (r^2 + 2 y^2) = 0.0048 + 0.0057
    assert distorted("opencv", 0, 0, 0.01, 0.02) == pytest.approx([0.311, 0.4105], rel=1e-14)
    # (1 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6) = 1.0046875 / (1 + 0.1 + 0.03125 + 0.009375)
    factor = 1.0046875 / 1.140625
    assert distorted("opencv", 0, 0, 0, 0, 0.3, 0.4, 0.5, 0.6) == pytest.approx([0.3 * factor, 0.4 * factor], rel=1e-14)


def test_fisheye_coefficients_act_on_the_angle() -> None:
    assert distorted("opencv_fisheye") == pytest.approx([0.6 * THETA, 0.8 * THETA], rel=1e-14)
    radius = THETA * (1 + 0.1 * THETA**2 + 0.2 * THETA**4 + 0.3 * THETA**6 + 0.4 * THETA**8)
    assert distorted("opencv_fisheye", 0.1, 0.2, 0.3, 0.4) == pytest.approx([0.6 * radius, 0.8 * radius], rel=1e-14)


def test_thin_prisms_shift_fisheye_points() -> None:
    x, y = 0.6 * THETA, 0.8 * THETA
    # sx1 theta^2 and sy1 theta^2 on top of the angle alone.
    expected = [x + 0.05 * THETA**2, y + 0.06 * THETA**2]
    assert distorted("thin_prism_fisheye", 0, 0, 0, 0, 0, 0, 0.05, 0.06) == pytest.approx(expected, rel=1e-14)
    # k3, k4 come after p1, p2: theta (1 + k3 theta^6 + k4 theta^8)
    factor = 1 + 0.1 * THETA**6 + 0.2 * THETA**8
    assert distorted("thin_prism_fisheye", 0, 0, 0, 0, 0.1, 0.2) == pytest.approx([x * factor, y * factor], rel=1e-14)


def test_project_arias_lens_distorts_what_is_already_radially_distorted() -> None:
    factor = 1 + 0.1 * THETA**2 + 0.2 * THETA**12
    x, y = 0.6 * THETA * factor, 0.8 * THETA * factor
    r2 = x * x + y * y
    # p0 goes with x: dx = 2 p1 xy + p0 (r^2 + 2 x^2); thin prism: s0 r^2 + s1 r^4 in x, s2 r^2 + s3 r^4 in y.
    expected = [
        x + 2 * 0.02 * x * y + 0.01 * (r2 + 2 * x * x) + 0.03 * r2 + 0.04 * r2**2,
        y + 2 * 0.01 * x * y + 0.02 * (r2 + 2 * y * y) + 0.05 * r2 + 0.06 * r2**2,
    ]
    found = distorted("rad_tan_thin_prism_fisheye", 0.1, 0, 0, 0, 0, 0.2, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
    assert found == pytest.approx(expected, rel=1e-14)


def test_the_field_of_view_model_is_an_arc_tangent() -> None:
    radius = math.atan(2 * 0.5 * math.tan(0.45)) / 0.9
    assert distorted("fov", 0.9) == pytest.approx([0.6 * radius, 0.8 * radius], rel=1e-14)
    # For small omega: 1 + omega^2 (r^2 / 3 ... ) vanishes to second order, so the picture is nearly unchanged.
    assert distorted("fov", 1e-4) == pytest.approx([0.3, 0.4], rel=1e-8)


def test_the_division_model_is_undone_by_a_division() -> None:
    x, y = distorted("division", -0.2)
    denominator = 1 - 0.2 * (x * x + y * y)
    assert [x / denominator, y / denominator] == pytest.approx([0.3, 0.4], rel=1e-14)


def test_the_unified_model_divides_by_a_mean_of_depth_and_distance() -> None:
    denominator = 0.6 * math.sqrt(1.5 * 0.25 + 1) + 0.4
    assert distorted("eucm", 0.6, 1.5) == pytest.approx([0.3 / denominator, 0.4 / denominator], rel=1e-14)


@pytest.mark.parametrize("model", get_args(LensModel))
def test_undistorting_what_was_distorted_gives_the_point_back(model: LensModel) -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(500, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.8
    lens = Lens(model, WEAK[model])
    # Measured at most 3e-15 over all models.
    torch.testing.assert_close(lens.undistort(lens.distort(points)), points, rtol=0, atol=1e-12)
    assert torch.equal(lens.distort(torch.zeros(1, 2, dtype=torch.float64)), torch.zeros(1, 2, dtype=torch.float64))


def test_strong_barrel_distortion_is_trusted_up_to_where_it_folds() -> None:
    # d/dr (r + k1 r^3) = 0 at r = 1 / sqrt(-3 k1) = 1.291.
    assert Lens("opencv", (-0.2,)).largest_radius == pytest.approx(1 / math.sqrt(0.6), abs=0.002)
    assert Lens("opencv", (0.2,)).largest_radius == 20.0


def test_lenses_that_do_nothing_say_so() -> None:
    assert Lens().is_identity
    assert Lens("opencv", (0.0,) * 8).is_identity
    assert not Lens("opencv", (0.0, 1e-9)).is_identity
    # A fisheye without coefficients still maps angles.
    assert not Lens("opencv_fisheye").is_identity


def test_coefficients_can_be_given_by_name() -> None:
    assert Lens.from_names("thin_prism_fisheye", {"k4": 0.5, "p1": 0.25}).coefficients == (0, 0, 0.25, 0, 0, 0.5, 0, 0)
    assert set(COEFFICIENTS) == set(get_args(LensModel))


def test_what_is_no_lens_is_refused() -> None:
    with pytest.raises(InputError) as error:
        Lens("mirror")  # type: ignore[arg-type]
    assert str(error.value) == (
        "The lens model 'mirror' is not known; use one of pinhole, opencv, opencv_fisheye, thin_prism_fisheye, "
        "rad_tan_thin_prism_fisheye, fov, division, eucm."
    )
    with pytest.raises(InputError) as error:
        Lens("fov", (0.1, 0.2))
    assert str(error.value) == "The lens model fov takes at most 1 coefficients, got 2."
    with pytest.raises(InputError) as error:
        Lens("fov", (math.nan,))
    assert str(error.value) == "The lens model fov needs finite coefficients, got (nan,)."
