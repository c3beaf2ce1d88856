"""The page in a real browser: what it shows, whom it lets in, and what it does on a phone."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection

from kinosplat.render.rasterize import rasterize
from kinosplat.viewer.encode import to_pixels
from kinosplat.viewer.look import Look
from kinosplat.viewer.server import ViewerServer
from viewer.pages import PATIENCE, Serve, Visit, choose, control, enter, screenshot, settled, wait_for
from viewer.toys import BallSubject, toy_subject, wait_until


def test_the_page_shows_what_the_rasterizer_draws(visit: Visit, server: ViewerServer) -> None:
    page, session = visit(server, (1280, 720))
    shown = screenshot(page, "page_1280x720")
    subject = toy_subject()
    camera = session.camera()
    # The controls stand beside the picture.
    assert 900 < camera.width < 1000
    assert camera.height == 720
    expected = to_pixels(rasterize(subject.model, [camera], background=subject.background).rgb[0])
    # Below a note of viser's about browsers without a GPU.
    difference = np.abs(shown[200:, : camera.width] - expected[200:])
    # 1.2 on average: JPEG of quality 92.
    assert difference.mean() < 3.0


def test_time_moves_by_slider_by_step_and_by_play(visit: Visit, server: ViewerServer) -> None:
    page, session = visit(server)
    before = screenshot(page, "time_start")
    box = page.locator("input[type=text]").first
    box.fill("0.8")
    box.press("Enter")
    assert wait_for(page, lambda: session.moment(time.monotonic()) == pytest.approx(0.8))
    assert settled(page, session)
    assert np.abs(screenshot(page, "time_later") - before).mean() > 0.5
    page.get_by_role("button", name="+1").click()
    assert wait_for(page, lambda: session.moment(time.monotonic()) == pytest.approx(0.9))
    page.get_by_role("button", name="Play").click()
    assert wait_for(page, lambda: session.playback is not None and session.playback.is_playing)
    n_confirmed = session.stream.meter.n_confirmed
    assert wait_for(page, lambda: session.stream.meter.n_confirmed > n_confirmed + 5)
    page.get_by_role("button", name="Pause").click()
    assert wait_for(page, lambda: session.playback is not None and not session.playback.is_playing)


def test_two_visitors_have_their_own_camera_and_moment(visit: Visit, server: ViewerServer) -> None:
    first_page, first = visit(server)
    second_page, second = visit(server)
    assert len(server.sessions) == 2
    second.look_from(server.subject.cameras[3].at(0.5))
    assert wait_for(
        second_page, lambda: np.linalg.norm(second.client.camera.position - first.client.camera.position) > 4
    )
    assert settled(second_page, second)
    assert first.moment(time.monotonic()) == 0.0
    assert second.moment(time.monotonic()) == pytest.approx(0.5)
    assert np.abs(screenshot(first_page, "first") - screenshot(second_page, "second")).mean() > 1.0
    first_page.close()
    assert wait_until(lambda: server.sessions == [second], PATIENCE), "A visitor who left is forgotten."


def test_a_visitor_who_comes_back_sees_the_scene_again(visit: Visit, server: ViewerServer) -> None:
    page, session = visit(server)
    page.reload()
    assert wait_for(page, lambda: bool(server.sessions) and server.sessions[0] is not session)
    assert settled(page, server.sessions[0])
    assert len(server.sessions) == 1


def test_a_page_whose_line_is_cut_opens_another_and_goes_on(visit: Visit, server: ViewerServer) -> None:
    page, session = visit(server)
    page.evaluate("window.isTheSamePage = true")
    before = screenshot(page, "before_the_cut")
    for line in gc.get_objects():
        if isinstance(line, ServerConnection) and line.local_address[1] == server.port:
            line.loop.call_soon_threadsafe(line.transport.abort)
    assert wait_for(page, lambda: session.closed and len(server.sessions) == 1)
    again = server.sessions[0]
    assert again is not session
    # It looks from where it did.
    assert np.allclose(again.client.camera.position, session.client.camera.position, atol=1e-3)
    again.change_playback(lambda clock, now: clock.seek(0.8, now))
    assert settled(page, again)
    assert np.abs(screenshot(page, "after_the_cut") - before).mean() > 0.5
    assert page.evaluate("window.isTheSamePage")


def test_the_benchmark_reports_its_numbers(visit: Visit, server: ViewerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinosplat.viewer.controls.benchmark.N_FRAMES", 20)
    page, _ = visit(server)
    page.get_by_role("tab", name="Speed").click()
    page.get_by_text("Benchmark").first.click()
    page.get_by_role("button", name="Benchmark").click()
    page.get_by_text("99 of 100 below").wait_for(timeout=1000 * PATIENCE)
    assert " ms" in page.get_by_role("row", name="Median").first.inner_text()
    assert " ms" in page.get_by_role("row", name="Blend").last.inner_text()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as JSON").last.click()
    assert '"p99_ms"' in Path(download.value.path()).read_text()
    widths = "[...document.querySelectorAll('.ksbox')].map((box) => [box.scrollWidth, box.clientWidth])"
    assert all(inside <= outside for inside, outside in page.evaluate(widths)), "A table is wider than the panel."


def test_a_link_restores_all_of_the_view(visit: Visit, browser: Any, server: ViewerServer) -> None:
    page, session = visit(server)
    session.look_from(server.subject.cameras[2].at(0.6))
    choose(page, "Show", "Depth")
    choose(page, "Colours", "viridis")
    control(page, "Fit range").first.click()
    enter(page, "Range", "6.5")
    choose(page, "Speed", "½×")
    enter(page, "SH degree", "0")
    enter(page, "Size", "0.5")
    enter(page, "Exposure", "-1")
    control(page, "Anti-aliasing").first.click()
    choose(page, "Background", "Gray")
    page.get_by_text("Region").first.click()
    enter(page, "Near", "0.5")
    enter(page, "Far", "6")
    control(page, "Crop box").first.click()
    assert wait_for(page, lambda: session.look.crop is not None)
    look = session.look
    assert look.value_range is not None
    assert (look.output, look.color_map, look.value_range[1]) == ("depth", "viridis", 6.5)
    assert (look.sh_degree, look.scale, look.exposure, look.antialiased) == (0, 0.5, -1.0, True)
    assert (look.background, look.near, look.far) == ((0.5, 0.5, 0.5), 0.5, 6.0)
    page.get_by_role("tab", name="Camera").click()
    page.get_by_role("button", name="Copy a link to this view").click()
    link = page.locator("textarea:not([aria-hidden])").last
    link.wait_for(timeout=1000 * PATIENCE)
    address = link.input_value()
    other = browser.new_page(viewport={"width": 800, "height": 600})
    known = session.client.client_id
    other.goto(address)
    assert wait_for(other, lambda: len(server.sessions) == 2)
    restored = next(s for s in server.sessions if s.client.client_id != known)
    assert restored.look.crop is not None
    assert look.crop is not None
    for field in ("center", "size", "wxyz"):
        # The link has six digits.
        assert getattr(restored.look.crop, field) == pytest.approx(getattr(look.crop, field), rel=1e-5, abs=1e-6)
    assert replace(restored.look, crop=None) == replace(look, crop=None)
    assert restored.moment(time.monotonic()) == pytest.approx(0.6)
    assert restored.playback is not None
    assert restored.playback.speed == 0.5
    assert np.allclose(restored.client.camera.position, session.client.camera.position, atol=1e-3)
    # The controls say what is drawn.
    assert control(other, "SH degree").last.input_value() == "0"
    assert control(other, "Show").first.input_value() == "Depth"
    other.close()


def test_nonsense_in_a_link_is_left_alone(browser: Any, server: ViewerServer) -> None:
    page = browser.new_page()
    page.goto(
        f"{server.address}?output=nothing&colors=pink&range=a,b&sh_degree=99&scale=nan&exposure=&background=7,0,0"
        "&near=-3&far=inf&crop=1,2,3&time=later&speed=12&loop=maybe&antialiased=yes"
    )
    assert wait_for(page, lambda: len(server.sessions) == 1)
    assert server.sessions[0].look == Look(near=1e-4)


def test_the_token_opens_the_page_and_leaves_the_address_bar(visit: Visit, serve: Serve, browser: Any) -> None:
    server = serve(toy_subject(), share_token="secret")
    stranger = browser.new_page()
    stranger.goto(server.address.split("?")[0])
    assert "asks for a token" in stranger.content()
    assert not server.sessions
    stranger.close()
    page, _ = visit(server)
    assert "secret" not in page.url


def test_a_phone_sees_the_scene_first_and_unfolds_the_controls(visit: Visit, server: ViewerServer) -> None:
    page, session = visit(server, (390, 844))
    play = page.get_by_role("button", name="Play")
    assert wait_for(page, lambda: not play.is_visible()), "The controls start folded."
    screenshot(page, "phone_folded")
    bar = page.get_by_text(server.subject.label).first
    bar.click()
    assert wait_for(page, play.is_visible)
    # The middle of the scene stays in sight.
    assert wait_for(page, lambda: bar.bounding_box()["y"] > 844 / 2)
    assert screenshot(page, "phone_unfolded").shape == (844, 390, 3)
    box = play.bounding_box()
    assert box is not None
    # The sheet is as wide as the page.
    assert 0 <= box["x"] < 30
    assert 360 < box["x"] + box["width"] <= 390
    # A page that comes back to the server, as after a lost line, is left as the visitor has it.
    session.wire.fold_on_phones()
    page.wait_for_timeout(1000)
    assert play.is_visible()


def test_what_is_not_made_of_gaussians_has_the_controls_that_do_something(visit: Visit, serve: Serve) -> None:
    server = serve(BallSubject())
    page, session = visit(server)
    shown = screenshot(page, "ball")
    middle = (300, session.camera().width // 2)
    assert shown[middle].mean() > 200
    for name in ("SH degree", "Crop box", "Second"):
        assert page.get_by_text(name, exact=True).count() == 0
    page.locator("//*[text()='Show']/ancestor::*[.//input][1]//input").first.click()
    assert page.get_by_role("option").all_inner_texts() == ["Colour", "Depth", "Alpha", "Normals", "Occupied cells"]
    page.get_by_role("option", name="Occupied cells").click()
    assert wait_for(page, lambda: session.look.painter == "occupied cells")
    assert settled(page, session)
    assert np.abs(screenshot(page, "ball_cells")[middle] - 64).max() < 4
