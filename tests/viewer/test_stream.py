"""Pictures to clients: small while moving, full when still; a slow client costs the others nothing."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from PIL import Image

from kinosplat.render.rasterize import rasterize
from kinosplat.viewer.encode import Coding, to_pixels
from kinosplat.viewer.failures import in_words
from kinosplat.viewer.jobs import Wish
from kinosplat.viewer.look import Look
from kinosplat.viewer.renderer import Renderer
from kinosplat.viewer.stream import MAX_IN_FLIGHT, ClientStream
from viewer.toys import toy_cameras, toy_subject, wait_until


@dataclass
class Page:
    """Stands for a browser: keeps what arrives, and confirms it unless told not to."""

    confirms: bool = True
    arrived: list[tuple[int, bytes, Coding, bytes | None]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    stream: ClientStream | None = None

    def receive(self, number: int, picture: bytes, coding: Coding, depth: bytes | None) -> None:
        self.arrived.append((number, picture, coding, depth))
        if self.confirms and self.stream is not None:
            self.stream.confirm(number)

    def newest(self) -> Image.Image:
        return Image.open(io.BytesIO(self.arrived[-1][1]))


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    made = Renderer(toy_subject())
    yield made
    made.close()


def connect(renderer: Renderer, page: Page, *, size: tuple[int, int] = (192, 144)) -> ClientStream:
    stream = ClientStream(page.receive, renderer.wake, lambda now: 0.5, renderer.encoder, page.told.append)
    page.stream = stream
    renderer.add(stream)
    stream.wish(wish(size))
    return stream


def wish(size: tuple[int, int] = (192, 144), look: Look | None = None, camera: int = 0) -> Wish:
    return Wish(toy_cameras()[camera].resized(*size), look or Look())


def test_a_still_client_ends_with_the_rasterizers_picture_at_full_size(renderer: Renderer) -> None:
    page = Page()
    stream = connect(renderer, page)
    assert wait_until(lambda: bool(page.arrived) and page.newest().size == (192, 144))
    camera = wish().camera.at(0.5)
    expected = rasterize(renderer.subject.gaussians(), [camera], background=renderer.subject.background).rgb[0]
    difference = np.abs(np.asarray(page.newest(), dtype=float) - to_pixels(expected))
    # 1.6 on average for JPEG of quality 92, full colour resolution.
    assert difference.mean() < 3.0
    n_arrived = len(page.arrived)
    time.sleep(0.5)
    assert len(page.arrived) == n_arrived, "A client that wants nothing new gets nothing."
    stream.close()


def test_pictures_are_small_while_moving(renderer: Renderer) -> None:
    page = Page()
    stream = connect(renderer, page, size=(960, 720))
    stream.set_settings(replace(stream.settings, target_fps=60.0))
    for i in range(40):
        stream.wish(wish((960, 720), camera=i % 6))
        time.sleep(0.01)
    small = [Image.open(io.BytesIO(picture)).size[0] for _, picture, _, _ in page.arrived]
    assert min(small) < 960
    assert wait_until(lambda: page.newest().size == (960, 720)), "The last picture is of full size."
    stream.close()


def test_a_page_that_confirms_nothing_gets_three_pictures_and_the_others_go_on(renderer: Renderer) -> None:
    slow, fast = Page(confirms=False), Page()
    slow_stream, fast_stream = connect(renderer, slow), connect(renderer, fast)
    slow_stream.set_playing(True)
    fast_stream.set_playing(True)
    assert wait_until(lambda: len(fast.arrived) > 20)
    assert len(slow.arrived) <= MAX_IN_FLIGHT + 1
    slow_stream.close()
    fast_stream.close()


def test_a_page_that_blocks_while_it_receives_does_not_hold_the_others(renderer: Renderer) -> None:
    fast, blocked = Page(), threading.Event()

    def receive(*_: object) -> None:
        blocked.wait(timeout=30)

    stuck = ClientStream(receive, renderer.wake, lambda now: 0.5, renderer.encoder, fast.told.append)
    renderer.add(stuck)
    stuck.wish(wish())
    stream = connect(renderer, fast)
    stream.set_playing(True)
    assert wait_until(lambda: len(fast.arrived) > 20)
    blocked.set()
    stuck.close()
    stream.close()


def test_two_moving_clients_share_the_renderer_evenly(renderer: Renderer) -> None:
    pages = [Page(), Page()]
    streams = [connect(renderer, page, size=(320, 240)) for page in pages]
    for stream in streams:
        stream.set_settings(replace(stream.settings, adaptive=False, target_fps=60.0))
        stream.set_playing(True)
    assert wait_until(lambda: sum(len(page.arrived) for page in pages) > 60)
    counts = [len(page.arrived) for page in pages]
    assert min(counts) > 0.6 * max(counts)
    for stream in streams:
        stream.close()


def test_a_failing_picture_is_told_once_in_a_row_and_the_next_one_comes(
    renderer: Renderer, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Page()
    stream = connect(renderer, page)
    nonsense = Look(color_map="nonsense", output="depth")  # type: ignore[arg-type]
    for n_told in (1, 2):
        for _ in range(3):
            stream.wish(Wish(wish().camera, nonsense))
            assert wait_until(lambda: stream.due(time.monotonic()) is None)
        assert wait_until(lambda n=n_told: len(page.told) == n)
        assert "nonsense" in page.told[-1]
        n_arrived = len(page.arrived)
        stream.wish(wish())
        assert wait_until(lambda n=n_arrived: len(page.arrived) > n)
    # The terminal has where it came from, once.
    assert capsys.readouterr().err.count("Traceback") == 1
    stream.close()


def test_a_lack_of_memory_is_told_with_the_remedy() -> None:
    assert "Longest side" in in_words(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."))
    assert in_words(ValueError("first\nsecond")) == "ValueError: first"


def test_what_is_measured_adds_up(renderer: Renderer) -> None:
    page = Page()
    stream = connect(renderer, page)
    stream.set_playing(True)
    assert wait_until(lambda: stream.meter.n_confirmed > 10)
    frame = stream.meter.last()
    assert frame is not None
    assert frame.n_visible > 0
    assert frame.latency >= frame.render + frame.read + frame.encode
    assert stream.meter.delivered_fps(time.monotonic()) > 0
    assert stream.meter.delivered_fps(time.monotonic() + 60) == 0
    numbers, render, latency = stream.meter.history(5)
    assert len(numbers) == len(render) == len(latency) == 5
    assert np.all(np.diff(numbers) == 1)
    stream.close()


def test_depth_is_sent_only_while_there_are_objects(renderer: Renderer) -> None:
    page = Page()
    stream = connect(renderer, page)
    assert wait_until(lambda: bool(page.arrived))
    assert page.arrived[-1][3] is None
    stream.has_objects = True
    stream.wish(wish())
    assert wait_until(lambda: page.arrived[-1][3] is not None)
    stream.close()


def test_a_first_picture_that_took_long_does_not_leave_a_small_one(renderer: Renderer) -> None:
    page = Page()
    stream = connect(renderer, page)
    stream.adaptive.learn(192 * 144, 30.0)
    stream.wish(wish())
    assert wait_until(lambda: bool(page.arrived) and page.newest().size == (192, 144))
    stream.close()
