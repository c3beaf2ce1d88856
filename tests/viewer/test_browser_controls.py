"""Every control of the page, used as a visitor does: typed into, clicked, dragged, downloaded from."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from kinosplat.render.camera import Camera
from kinosplat.render.paths import load_camera_path
from kinosplat.render.settings import RasterSettings
from kinosplat.viewer.controls.path import PathPanel
from kinosplat.viewer.draw import draw
from kinosplat.viewer.encode import to_pixels
from kinosplat.viewer.lens import pose_of
from kinosplat.viewer.look import Look
from kinosplat.viewer.server import ViewerServer
from kinosplat.viewer.training import TrainingWatch
from viewer.pages import (
    PATIENCE,
    Serve,
    Visit,
    choose,
    click_in_the_middle,
    control,
    enter,
    press,
    saved,
    screenshot,
    settled,
    upload,
    wait_for,
)
from viewer.toys import ToyPhotos, toy_subject, wait_until


@pytest.fixture
def run(serve: Serve, tmp_path: Path) -> ViewerServer:
    """A run with a folder and with photos, the last camera's held out."""
    subject = toy_subject()
    subject = replace(subject, folder=tmp_path / "run", photos=ToyPhotos(subject.model))
    return serve(subject)


def test_outputs_have_colours_a_range_and_a_bar_that_says_what_they_mean(visit: Visit, server: ViewerServer) -> None:
    page, session = visit(server)
    before = screenshot(page, "output_colour")
    control(page, "Show").first.click()
    names = page.get_by_role("option").all_inner_texts()
    assert names == [
        "Colour", "Depth", "Alpha", "Normals", "Speed of motion", "Overlap, hidden too", "Points", "Ellipsoids",
    ]  # fmt: skip
    page.get_by_role("option", name="Depth", exact=True).click()
    page.get_by_text("scene units").wait_for(timeout=1000 * PATIENCE)
    assert settled(page, session)
    assert np.abs(screenshot(page, "output_depth") - before).mean() > 3
    choose(page, "Colours", "gray")
    assert wait_for(page, lambda: session.look.color_map == "gray")
    control(page, "Fit range").first.click()
    low = control(page, "Range").first
    low.wait_for(timeout=1000 * PATIENCE)
    low.fill("1.5")
    low.press("Enter")
    assert wait_for(page, lambda: session.look.value_range is not None and session.look.value_range[0] == 1.5)
    page.locator(".ksends").get_by_text("1.5", exact=True).first.wait_for(timeout=1000 * PATIENCE)
    for name in names[2:]:
        choose(page, "Show", name)
        assert settled(page, session)
    assert session.look.output == "ellipsoids"


def test_numbers_change_how_the_scene_is_drawn(visit: Visit, server: ViewerServer) -> None:
    page, session = visit(server)
    enter(page, "SH degree", "0")
    enter(page, "Size", "0.5")
    enter(page, "Exposure", "1")
    control(page, "Anti-aliasing").first.click()
    choose(page, "Background", "White")
    page.get_by_text("Region").first.click()
    enter(page, "Near", "3.5")
    enter(page, "Far", "4.5")
    expected = Look(
        sh_degree=0, scale=0.5, exposure=1.0, antialiased=True, background=(1.0, 1.0, 1.0), near=3.5, far=4.5
    )
    assert wait_for(page, lambda: session.look == expected), session.look
    assert settled(page, session)
    with server.subject.turn():
        drawn = to_pixels(draw(server.subject, session.camera(), expected).picture)
    part = np.s_[200:600, 0 : drawn.shape[1]]
    # 1.0 on average: JPEG of quality 92.
    assert np.abs(screenshot(page, "drawn_otherwise")[part] - drawn[part]).mean() < 3


def test_far_leaves_the_near_plane_where_it_was_trained(visit: Visit, serve: Serve) -> None:
    subject = replace(toy_subject(), settings=RasterSettings(near=0.3))
    server = serve(subject)
    page, session = visit(server)
    page.get_by_text("Region").first.click()
    assert control(page, "Near").first.input_value() == "0.3"
    for far, expected in (("4.5", 4.5), ("1000", Look.far)):
        enter(page, "Far", far)
        assert wait_for(page, lambda expected=expected: session.look.far == expected)
        assert session.look.near == 0.3


def test_the_crop_box_hides_what_is_outside_and_follows_its_gizmo(visit: Visit, server: ViewerServer) -> None:
    page, session = visit(server)
    page.get_by_text("Region").first.click()
    control(page, "Crop box").first.click()
    assert wait_for(page, lambda: session.look.crop is not None)
    sides = control(page, "Box size")
    for i, length in enumerate(("1", "0.8", "0.6")):
        sides.nth(i).fill(length)
        sides.nth(i).press("Enter")
    assert wait_for(page, lambda: session.look.crop is not None and session.look.crop.size == (1.0, 0.8, 0.6))
    assert settled(page, session)
    screenshot(page, "crop_box")
    # The arrow that points up, dragged upwards: the box goes with it.
    before = session.look.crop.center[2] if session.look.crop else 0.0
    middle = session.camera().width // 2
    page.mouse.move(middle, 196)
    page.mouse.down()
    page.mouse.move(middle, 110, steps=10)
    page.mouse.up()
    assert wait_for(page, lambda: session.look.crop is not None and abs(session.look.crop.center[2] - before) > 0.05)
    control(page, "Crop box").first.click()
    assert wait_for(page, lambda: session.look.crop is None)


def test_the_camera_is_dragged_flown_and_brought_back(visit: Visit, server: ViewerServer) -> None:
    page, session = visit(server)
    start = session.client.camera.position.copy()

    def away() -> float:
        return float(np.linalg.norm(session.client.camera.position - start))

    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.move(450, 320, steps=8)
    page.mouse.up()
    assert wait_for(page, lambda: away() > 0.5)
    page.get_by_role("tab", name="Camera").click()
    press(page, "Back to the start")
    assert wait_for(page, lambda: away() < 0.02)
    page.mouse.click(300, 300)
    page.keyboard.down("w")
    assert wait_for(page, lambda: away() > 0.1)
    page.keyboard.up("w")
    enter(page, "Field of view", "60")

    def is_wished() -> bool:
        wished = session.stream.wished
        # viser's page makes its canvas smaller where the machine is slow.
        focal = pytest.approx(session.client.camera.image_height / 2 / np.tan(np.radians(30)), rel=1e-3)
        return wished is not None and float(wished.camera.K[1, 1]) == focal

    # A movement that was on its way still says the angle before.
    assert wait_for(page, is_wished)
    assert wait_for(page, lambda: session.client.camera.fov == pytest.approx(np.radians(60), abs=1e-3))


def test_a_screenshot_is_the_rasterizers_picture(visit: Visit, server: ViewerServer) -> None:
    page, session = visit(server)
    page.get_by_role("tab", name="Camera").click()
    choose(page, "Picture size", "2× page")
    file = saved(page, "Screenshot")
    camera = session.camera()
    camera = camera.resized(2 * camera.width, 1200)
    expected = to_pixels(draw(server.subject, camera, session.look).picture)
    # The camera of the page is read back in double precision: the last bit may differ.
    assert np.abs(np.asarray(Image.open(file)).astype(int) - expected).max() <= 1


def test_a_path_is_made_previewed_filmed_saved_and_opened_again(
    visit: Visit, run: ViewerServer, tmp_path: Path
) -> None:
    page, session = visit(run, (1280, 720))
    page.get_by_role("tab", name="Camera").click()
    page.get_by_text("Camera path").first.click()
    press(page, "Preview")
    page.get_by_text("The path has no key frame yet; add views first.").wait_for(timeout=1000 * PATIENCE)
    ends = [run.subject.cameras[0].at(0.0), run.subject.cameras[1].at(0.8)]
    enter(page, "Seconds later", "1.5")
    for i, camera in enumerate(ends):
        session.look_from(camera)
        assert wait_for(page, lambda c=camera: session.moment(time.monotonic()) == pytest.approx(c.time))
        press(page, "Add this view")
        page.get_by_role("cell", name=f"{1.5 * i:.2f}", exact=True).wait_for(timeout=1000 * PATIENCE)

    content = json.loads(saved(page, "Save as JSON").read_text())
    file = tmp_path / "downloaded.json"
    file.write_text(json.dumps(content))
    path = load_camera_path(file)
    assert [(key.seconds, key.time) for key in path.keyframes] == [(0.0, pytest.approx(0.0)), (1.5, pytest.approx(0.8))]
    for key, camera in zip(path.keyframes, ends, strict=True):
        assert key.position == pytest.approx(pose_of(camera)[1], abs=1e-3)

    session.look_from(run.subject.cameras[0].at(0.0))
    press(page, "Preview")
    assert wait_for(page, lambda: session.moment(time.monotonic()) == pytest.approx(0.8))
    last = np.array(pose_of(ends[1])[1])
    assert wait_for(page, lambda: np.allclose(session.client.camera.position, last, atol=1e-3))
    page.get_by_role("button", name="Preview", exact=True).wait_for(timeout=1000 * PATIENCE)
    # Key frames stand in the scene, the one that the page looks from aside.
    session.look_from(run.subject.cameras[4].at(0.0))
    assert settled(page, session)
    screenshot(page, "path")

    enter(page, "Video FPS", "8")
    choose(page, "Video", "640 × 360")
    for name, codec in (("MP4 (H.264)", "h264"), ("WebM (VP9)", "vp9")):
        choose(page, "Format", name)
        with av.open(str(saved(page, "Render video"))) as video:
            stream = video.streams.video[0]
            assert (stream.codec_context.name.removeprefix("lib"), stream.width, stream.height) == (codec, 640, 360)
            assert sum(1 for _ in video.decode(stream)) == 13

    press(page, "Store with the run")
    page.get_by_text("Stored as paths/path.json").wait_for(timeout=1000 * PATIENCE)
    stored = tmp_path / "run" / "paths" / "path.json"
    assert json.loads(stored.read_text()) == content
    box = control(page, "Name").first
    box.fill("../outside")
    box.press("Enter")
    press(page, "Store with the run")
    page.get_by_text("is no name for a file").wait_for(timeout=1000 * PATIENCE)
    assert sorted(p.name for p in tmp_path.rglob("*.json")) == ["downloaded.json", "path.json"]

    rows = page.get_by_role("cell", name="1.50", exact=True)
    for bring_back in (lambda: upload(page, "Load JSON", file), lambda: choose(page, "Stored paths", "path")):
        press(page, "clear")
        assert wait_for(page, lambda: rows.count() == 0)
        bring_back()
        rows.wait_for(timeout=1000 * PATIENCE)
    file.write_text("{")
    upload(page, "Load JSON", file)
    page.get_by_text("is not JSON").wait_for(timeout=1000 * PATIENCE)


def test_a_key_frame_is_chosen_seen_replaced_moved_and_deleted(visit: Visit, run: ViewerServer) -> None:
    page, session = visit(run, (1280, 720))
    edit = next(panel.edit for panel in session.panels if isinstance(panel, PathPanel))
    cameras = run.subject.cameras

    def place_of(camera: Camera) -> np.ndarray:
        return np.array(pose_of(camera)[1])

    def is_at(camera: Camera) -> bool:
        here = session.client.camera.position
        return bool(np.allclose(here, place_of(camera), atol=1e-3)) and session.moment(0.0) == pytest.approx(
            camera.time
        )

    page.get_by_role("tab", name="Camera").click()
    page.get_by_text("Camera path").first.click()
    for i in range(3):
        session.look_from(cameras[i].at(0.4 * i))
        assert wait_for(page, lambda i=i: is_at(cameras[i].at(0.4 * i)))
        press(page, "Add this view")
        assert wait_for(page, lambda i=i: len(edit.keys) == i + 1)
    choose(page, "Key frame", "2")
    assert wait_for(page, lambda: control(page, "At second").first.input_value() == "2")
    assert control(page, "Of the clip").first.input_value() == "0.4"
    press(page, "go to")
    assert wait_for(page, lambda: is_at(cameras[1].at(0.4)))
    session.look_from(cameras[4].at(0.6))
    assert wait_for(page, lambda: is_at(cameras[4].at(0.6)))
    press(page, "replace")
    assert wait_for(page, lambda: edit.keys[1].time == pytest.approx(0.6))
    assert np.allclose(edit.keys[1].position, place_of(cameras[4]), atol=1e-3)
    enter(page, "At second", "5")
    assert wait_for(page, lambda: [key.seconds for key in edit.keys] == [0.0, 4.0, 5.0])
    page.get_by_role("cell", name="5.00", exact=True).wait_for()
    enter(page, "Of the clip", "0.9")
    assert wait_for(page, lambda: edit.keys[2].time == 0.9)
    screenshot(page, "key_frames")
    press(page, "delete")
    assert wait_for(page, lambda: len(edit.keys) == 2)
    press(page, "undo")
    assert wait_for(page, lambda: len(edit.keys) == 3)
    # From behind the first one, which then stands in the middle of the page.
    back = cameras[0].world_to_camera.clone()
    back[2, 3] += 1.0
    session.look_from(replace(cameras[0], world_to_camera=back, time=0.5))
    assert settled(page, session)
    assert click_in_the_middle(page, lambda: is_at(cameras[0].at(0.0)))
    assert edit.chosen == 0


def test_what_fails_is_told_on_the_page(
    visit: Visit, serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("kinosplat.viewer.controls.benchmark.benchmark", fail)
    server = serve(replace(toy_subject(), painters={"broken": fail}))
    page, _ = visit(server)
    choose(page, "Show", "Broken")
    page.get_by_text("The picture could not be drawn").wait_for()
    page.get_by_text("make it smaller: Speed, Streaming, Longest side").first.wait_for()
    page.get_by_role("tab", name="Speed").click()
    page.get_by_text("Benchmark").first.click()
    press(page, "Benchmark")
    page.get_by_text("That failed").wait_for()
    # And it can be tried again.
    assert wait_for(page, lambda: page.get_by_role("button", name="Benchmark", exact=True).is_enabled())
    assert "OutOfMemoryError" in capsys.readouterr().err


def test_a_click_on_a_camera_shows_its_photo_the_difference_and_the_psnr(visit: Visit, run: ViewerServer) -> None:
    page, session = visit(run, (1280, 720))
    page.get_by_role("tab", name="Camera").click()
    control(page, "Show cameras").first.click()
    # From behind camera 3, which then stands in the middle of the page.
    camera = run.subject.cameras[3]
    back = camera.world_to_camera.clone()
    back[2, 3] += 1.5
    session.look_from(replace(camera, world_to_camera=back, time=1.0))
    assert settled(page, session)
    screenshot(page, "frusta")
    note = page.get_by_text("More in Camera, Photos.")
    assert click_in_the_middle(page, lambda: note.count() > 0)
    photos = run.subject.photos
    assert photos is not None
    expected = photos.compare(photos.views[7])
    facts = page.get_by_text("whole picture").first.inner_text()
    assert f"{expected.psnr:.2f} dB" in facts
    assert "1.00 s; learned from" in facts
    for name in ("Photo", "Rendered", "Difference, 4×"):
        assert page.get_by_text(name, exact=True).count() == 1
    screenshot(page, "photo")
    choose(page, "Camera", "cam05")
    press(page, "Compare with the photo")
    page.get_by_text("held out").first.wait_for(timeout=1000 * PATIENCE)
    press(page, "Look from there")
    place = np.array(pose_of(run.subject.cameras[5])[1])
    assert wait_for(page, lambda: np.allclose(session.client.camera.position, place, atol=1e-3))


def test_streaming_options_reach_the_pictures(visit: Visit, server: ViewerServer) -> None:
    page, session = visit(server)
    page.get_by_role("tab", name="Speed").click()
    assert page.get_by_text("Delivered FPS").count() == 1
    page.get_by_text("Streaming").first.click()
    choose(page, "Coding", "WebP")
    enter(page, "Longest side", "256")
    enter(page, "Quality", "50")
    enter(page, "Target FPS", "20")
    assert wait_for(page, lambda: session.stream.settings.target_fps == 20)
    settings = session.stream.settings
    assert (settings.coding, settings.longest_side, settings.quality) == ("webp", 256, 50)
    assert wait_for(page, lambda: (last := session.stream.meter.last()) is not None and last.height == 256)
    page.get_by_text("×256, ").wait_for(timeout=1000 * PATIENCE)
    assert np.ptp(screenshot(page, "webp")[200:400, 100:300]) > 50


def test_training_is_watched_paused_and_resumed(visit: Visit, serve: Serve) -> None:
    watch, stop = TrainingWatch(steps=100_000), threading.Event()

    def train() -> None:
        while not stop.is_set():
            watch.turn.pass_by()
            watch.step += 1
            if watch.step % 50 == 0:
                watch.history.append((watch.step, 20 + watch.step / 1000))
            stop.wait(0.005)
        watch.turn.end()

    trainer = threading.Thread(target=train, daemon=True)
    server = serve(toy_subject(), watch)
    trainer.start()
    page, _ = visit(server)
    press(page, "Pause training")
    assert wait_until(lambda: watch.turn.is_paused)
    page.get_by_role("button", name="Resume training").wait_for(timeout=1000 * PATIENCE)
    paused_at = watch.step
    page.wait_for_timeout(500)
    assert watch.step == paused_at
    assert wait_for(
        page, lambda: f"{paused_at:,} of 100,000" in page.get_by_role("row", name="Step").first.inner_text()
    )
    screenshot(page, "training_paused")
    press(page, "Resume training")
    assert wait_for(page, lambda: watch.step > paused_at + 10)
    stop.set()
    trainer.join(timeout=5)
    watch.state = "finished"
    page.get_by_role("button", name="Training is done").wait_for(timeout=1000 * PATIENCE)
