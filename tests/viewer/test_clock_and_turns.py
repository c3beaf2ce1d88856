"""The arithmetic of the viewer: the clip's clock, the size of pictures, whose turn it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest

from kinosplat.viewer.adaptive import AdaptiveResolution, limited_size, scaled_size
from kinosplat.viewer.lens import fitting_fov, vertical_fov
from kinosplat.viewer.playback import Playback
from kinosplat.viewer.scheduler import next_turn
from viewer.toys import toy_cameras

CLIP = Playback(first=0.0, last=2.0, fps=10.0)


def test_a_clip_plays_at_its_speed_and_stands_where_it_is_paused() -> None:
    clock = CLIP.set_speed(0.5, 0.0).play(now=100.0)
    assert clock.at(101.0) == pytest.approx(0.5)
    paused = clock.pause(101.0)
    assert paused.at(500.0) == pytest.approx(0.5)
    assert not paused.is_playing


def test_a_looping_clip_shows_its_last_frame_as_long_as_the_others() -> None:
    clock = CLIP.play(0.0)
    assert clock.at(2.05) == 2.0
    assert clock.at(2.15) == pytest.approx(0.05)
    assert not clock.has_ended(100.0)


def test_a_clip_that_does_not_loop_ends_and_begins_again_when_played() -> None:
    clock = CLIP.set_loop(False, 0.0).play(0.0)
    assert clock.at(5.0) == 2.0
    assert clock.has_ended(5.0)
    assert clock.pause(5.0).play(6.0).at(6.5) == pytest.approx(0.5)


def test_backwards_is_a_negative_speed() -> None:
    clock = CLIP.seek(1.0, 0.0).set_speed(-1.0, 0.0).play(0.0)
    assert clock.at(0.25) == pytest.approx(0.75)


def test_steps_land_on_frames_and_go_around() -> None:
    assert CLIP.seek(0.33, 0.0).step(1, 0.0).at(9.0) == pytest.approx(0.4)
    assert CLIP.step(-1, 0.0).at(9.0) == pytest.approx(2.0)
    assert replace(CLIP, loop=False).step(-1, 0.0).at(9.0) == 0.0


def test_changing_speed_or_loop_while_playing_does_not_jump() -> None:
    clock = CLIP.play(0.0)
    assert clock.set_speed(2.0, 0.7).at(0.7) == pytest.approx(0.7)
    assert clock.set_loop(False, 0.7).at(0.7) == pytest.approx(0.7)


def test_pictures_shrink_until_the_target_is_met_and_no_further() -> None:
    adaptive = AdaptiveResolution()
    adaptive.learn(1000, 0.010)
    # 10 µs a pixel, 85% of 1/20 s: 4250 pixels of 40,000, so at most sqrt(0.106) = 0.326 of each side.
    scale = adaptive.scale(40_000, target_fps=20.0)
    assert scale == 5 / 16
    assert adaptive.scale(40_000, target_fps=20.0, n_sharing=2) < scale
    assert adaptive.scale(1000, target_fps=1.0) == 1.0
    assert adaptive.scale(10**9, target_fps=60.0) == 0.15


def test_a_still_picture_has_all_pixels_unless_it_would_take_too_long() -> None:
    adaptive = AdaptiveResolution()
    assert adaptive.still_scale(10**6) == 0.25, "Nothing is known yet."
    adaptive.learn(1000, 0.001)
    assert adaptive.still_scale(10**6) == 1.0
    # 1 µs a pixel: 3 s are enough for 3 of 12 million pixels, half of each side.
    assert adaptive.still_scale(12 * 10**6) == 0.5


def test_one_slow_frame_does_not_halve_the_picture() -> None:
    adaptive = AdaptiveResolution()
    for _ in range(5):
        adaptive.learn(1000, 0.001)
    before = adaptive.scale(10**6, 30.0)
    adaptive.learn(1000, 1.0)
    assert adaptive.scale(10**6, 30.0) > 0.5 * before


def test_sizes_are_even_and_keep_their_shape() -> None:
    assert scaled_size(1281, 721, 0.5) == (640, 360)
    assert scaled_size(1281, 721, 1.0) == (1281, 721)
    assert limited_size(3840, 2160, 1920) == (1920, 1080)
    assert scaled_size(40, 30, 0.15) == (16, 16)


@dataclass
class Client:
    """Someone in the queue."""

    wants_at: float | None
    moving: bool
    last_turn: float

    def due(self, now: float) -> float | None:
        return self.wants_at

    def is_moving(self, now: float) -> bool:
        return self.moving


def test_turns_go_around_between_clients_that_move() -> None:
    clients = [Client(0.0, True, 0.0), Client(0.0, True, 0.0), Client(0.0, True, 0.0)]
    order = []
    for now in range(1, 7):
        chosen, _ = next_turn(clients, float(now))
        assert chosen is not None
        chosen.last_turn = now
        order.append(clients.index(chosen))
    assert order == [0, 1, 2, 0, 1, 2]


def test_who_moves_goes_before_who_waits_for_sharpness() -> None:
    still, moving = Client(0.0, False, 0.0), Client(0.0, True, 5.0)
    assert next_turn([still, moving], 6.0)[0] is moving


def test_nobody_due_gives_the_time_until_somebody_is() -> None:
    assert next_turn([Client(9.0, True, 0.0), Client(None, True, 0.0)], 6.0) == (None, 3.0)
    assert next_turn([Client(None, True, 0.0)], 6.0) == (None, None)


def test_a_narrow_page_shows_all_that_a_wide_camera_shows() -> None:
    camera = toy_cameras()[0]
    fov = vertical_fov(camera)
    assert fitting_fov(camera, 1280, 720) == pytest.approx(fov)
    narrow = fitting_fov(camera, 390, 844)
    across = math.tan(0.5 * narrow) * 390 / 844
    assert across == pytest.approx(math.tan(0.5 * fov) * camera.width / camera.height)
