"""What a look does to a picture."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from kinosplat.render.rasterize import rasterize
from kinosplat.viewer.colors import color_table, map_colors
from kinosplat.viewer.draw import count_alive, draw, is_inside, outputs_of
from kinosplat.viewer.look import HAS_RANGE, CropBox, Look, Output
from kinosplat.viewer.subject import GaussianSubject
from viewer.toys import BallSubject, toy_subject

CAMERA = toy_subject().cameras[0].at(0.5)


@pytest.mark.parametrize("output", get_args(Output))
@pytest.mark.parametrize("moving", [True, False])
def test_every_output_is_a_picture(output: Output, moving: bool) -> None:
    drawn = draw(toy_subject(moving=moving), CAMERA if moving else CAMERA.at(None), Look(output=output))
    assert drawn.picture.shape == (72, 96, 3)
    assert torch.isfinite(drawn.picture).all()
    assert (drawn.value_range is not None) == (output in HAS_RANGE)
    if output != "speed" or moving:
        assert drawn.picture.std() > 0.01


def test_colour_is_the_rasterizers_and_exposure_doubles_it_a_stop() -> None:
    subject = toy_subject()
    expected = rasterize(subject.model, [CAMERA], background=subject.background).rgb[0]
    assert torch.equal(draw(subject, CAMERA, Look()).picture, expected)
    assert torch.allclose(draw(subject, CAMERA, Look(exposure=1.0)).picture, 2 * expected)


def test_speed_is_in_units_a_second() -> None:
    drawn = draw(toy_subject(), CAMERA, Look(output="speed"))
    assert drawn.value_range is not None
    # Every Gaussian moves by 0.4 a second; blending divides out again.
    assert drawn.value_range[1] == pytest.approx(0.4, abs=1e-3)


def test_overlap_counts_gaussians_on_a_ray() -> None:
    subject = toy_subject(n=1)
    one = replace(
        subject.model,
        means=torch.zeros(1, 3),
        displacements=torch.zeros(1, 3),
        log_scales=torch.zeros(1, 3),
        log_durations=torch.full((1,), torch.inf),
    )
    twice = one.map(lambda tensor: torch.cat([tensor, tensor, tensor]))
    drawn = draw(replace(subject, model=twice), CAMERA, Look(output="overlap", value_range=None))
    assert drawn.value_range is not None
    # A Gaussian far wider than the picture has a fall-off near 1 in its middle; 2.96 of 3.
    assert drawn.value_range[1] == pytest.approx(3.0, abs=0.15)


def test_the_crop_box_hides_what_is_outside_at_that_moment() -> None:
    subject = toy_subject()
    far_away = Look(crop=CropBox((50.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    assert draw(subject, CAMERA, far_away).n_visible == 0
    everything = Look(crop=CropBox((0.0, 0.0, 0.0), (9.0, 9.0, 9.0)))
    assert torch.allclose(draw(subject, CAMERA, everything).picture, draw(subject, CAMERA, Look()).picture, atol=1e-3)
    half = draw(subject, CAMERA, Look(crop=CropBox((0.0, 0.0, 1.0), (9.0, 9.0, 2.0)))).n_visible
    assert 0 < half < draw(subject, CAMERA, Look()).n_visible


def test_a_turned_box_holds_what_is_in_it() -> None:
    quarter = CropBox((1.0, 0.0, 0.0), (4.0, 1.0, 1.0), (0.70710678, 0.0, 0.0, 0.70710678))
    points = torch.tensor([[1.0, 1.9, 0.0], [2.9, 0.0, 0.0]])
    assert is_inside(points, quarter).tolist() == [True, False]


def test_smaller_gaussians_cover_less() -> None:
    subject = toy_subject()

    def covered(scale: float) -> float:
        return float(draw(subject, CAMERA, Look(output="alpha", scale=scale)).picture.mean())

    assert covered(0.3) < 0.5 * covered(1.0)


def test_depth_is_infinite_where_nothing_is() -> None:
    depth = draw(toy_subject(), CAMERA, Look(), depth=True).depth
    assert depth is not None
    assert torch.isinf(depth[0, 0])
    assert 2.0 < float(depth[36, 48]) < 6.0


def test_a_methods_own_picture_is_shown_instead() -> None:
    subject = replace(toy_subject(), painters={"Mask": lambda camera: torch.full((72, 96, 3), 0.25)})
    assert isinstance(subject, GaussianSubject)
    assert float(draw(subject, CAMERA, Look(painter="Mask")).picture.mean()) == 0.25


def test_the_living_are_those_the_rasterizer_would_not_skip() -> None:
    model = toy_subject().model
    assert count_alive(model, 0.5) == len(model)
    assert count_alive(model, 60.0) == 0


@pytest.mark.parametrize("name", ["turbo", "viridis", "gray"])
def test_colour_maps_run_from_their_first_colour_to_their_last(name: str) -> None:
    table = color_table(name, torch.device("cpu"))  # type: ignore[arg-type]
    colors = map_colors(torch.tensor([[-5.0, 1.0, 2.0, torch.nan]]), 1.0, 2.0, name)  # type: ignore[arg-type]
    assert torch.equal(colors[0, 0], table[0])
    assert torch.equal(colors[0, 1], table[0])
    assert torch.equal(colors[0, 2], table[-1])


def test_what_is_not_made_of_gaussians_shows_what_its_own_renderer_gives() -> None:
    ball, camera = BallSubject(), toy_subject(moving=False).cameras[0]
    assert outputs_of(ball) == ("color", "depth", "alpha", "normals")
    assert outputs_of(replace(ball, has_normals=False)) == ("color", "depth", "alpha")
    drawn = draw(ball, camera, Look(), depth=True)
    assert drawn.depth is not None
    # The nearest point of the ball is at the distance of the camera less its radius.
    assert float(drawn.depth.min()) == pytest.approx(17**0.5 - 1, abs=1e-3)
    assert float(draw(ball, camera, Look(output="depth")).picture.std()) > 0.1
    middle = draw(ball, camera, Look(output="normals")).picture[36, 48]
    toward = camera.position / camera.position.norm()
    assert torch.allclose(middle, 0.5 + 0.5 * toward, atol=0.02)
    assert torch.equal(draw(ball, camera, Look(output="ellipsoids")).picture, draw(ball, camera, Look()).picture)
    assert float(draw(ball, camera, Look(painter="occupied cells")).picture.mean()) == 0.25


def test_speed_is_offered_for_what_moves_only() -> None:
    assert "speed" in outputs_of(toy_subject())
    assert "speed" not in outputs_of(toy_subject(moving=False))
