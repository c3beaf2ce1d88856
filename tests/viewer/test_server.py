"""The server as strangers meet it: what it hands out, whom it refuses, and how it forgets who is gone."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import threading
import time
import warnings
from typing import Any

import pytest
import viser
import websockets.exceptions

from kinosplat.viewer.census import Census
from kinosplat.viewer.controls.statistics import StatisticsPanel
from kinosplat.viewer.controls.time import TimePanel
from kinosplat.viewer.renderer import Renderer
from kinosplat.viewer.server import ServerOptions, ViewerServer
from kinosplat.viewer.subject import GaussianSubject
from viewer.lines import confirm, connected, first_picture
from viewer.toys import toy_subject, wait_until


def test_a_line_whose_other_end_vanishes_is_forgotten(server: ViewerServer) -> None:
    warnings.simplefilter("ignore")
    with contextlib.suppress(OSError), connected(server) as line:
        assert first_picture(line).size[0] > 0
        assert wait_until(lambda: len(server.sessions) == 1)
        session = server.sessions[0]
        # No goodbye of the protocol's: as when a cable is pulled and the system resets the line.
        line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        line.socket.close()
        assert wait_until(lambda: not server.sessions)
        assert session.closed
        assert wait_until(lambda: session.stream not in server.renderer._streams)
        assert not session.stream.delivery.is_alive


def test_a_line_from_a_page_of_another_origin_is_refused(server: ViewerServer) -> None:
    with (
        pytest.raises(websockets.exceptions.InvalidStatus, match="403"),
        connected(server, origin="http://evil.example"),
    ):
        pass
    assert not server.sessions


@pytest.mark.parametrize(
    "path", ["/../../../../etc/passwd", "/..%2f..%2f..%2f..%2fetc/passwd", "//etc/passwd", "/assets/../../gate.py"]
)
def test_no_path_leads_out_of_what_the_page_is_made_of(server: ViewerServer, path: str) -> None:
    connection = http.client.HTTPConnection("localhost", server.port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status in (200, 403, 404)
    # A 200 is the page itself, whatever was asked for.
    assert b"root:" not in content
    assert b"class Gate" not in content
    connection.close()


def test_a_slow_line_gets_few_pictures_and_the_others_all_of_theirs(server: ViewerServer) -> None:
    with connected(server) as slow:
        assert wait_until(lambda: len(server.sessions) == 1)
        first = server.sessions[0]
        first.change_playback(lambda clock, now: clock.play(now))
        with connected(server) as other:
            assert wait_until(lambda: len(server.sessions) == 2)
            second = next(session for session in server.sessions if session is not first)
            second.change_playback(lambda clock, now: clock.play(now))
            first_picture(slow)
            stop = threading.Event()
            reader = threading.Thread(target=confirm, args=(other, stop), daemon=True)
            reader.start()
            assert wait_until(lambda: second.stream.meter.n_confirmed > 20)
            assert first.stream.meter.n_confirmed == 0
            assert first.stream.delivery.n_on_the_way(time.monotonic()) <= 3
            stop.set()
            reader.join(timeout=5)


def test_who_keeps_the_renderer_does_not_hold_up_sliders_and_numbers(server: ViewerServer) -> None:
    with connected(server) as line:
        first_picture(line)
        assert wait_until(lambda: len(server.sessions) == 1)
        session = server.sessions[0]
        panels = session.panels
        slider = next(panel.slider for panel in panels if isinstance(panel, TimePanel))
        census = next(panel.census for panel in panels if isinstance(panel, StatisticsPanel))
        assert wait_until(lambda: census.total == census.alive == 300)
        # As a Benchmark does.
        with server.renderer.alone():
            for moment in (0.2, 0.4, 0.6):
                session.change_playback(lambda clock, now, moment=moment: clock.seek(moment, now))
                assert wait_until(lambda moment=moment: slider.value == moment)
                # Long enough for a count to begin, which has to wait.
                time.sleep(1.0)


def test_a_model_that_stays_is_counted_once() -> None:
    counts: list[int] = []

    class Counted(GaussianSubject):
        @property
        def n_primitives(self) -> int:
            counts.append(1)
            return 4

    toy = toy_subject()
    subject = Counted(toy.label, toy.model, toy.cameras, toy.background, times=toy.times)
    renderer = Renderer(subject)
    census = Census(renderer)
    for moment in (0.0, 0.5):
        census.ask(0, moment)
        assert wait_until(lambda: census.total == 4)
        assert len(counts) == 1
    census.ask(1, 0.5)
    assert wait_until(lambda: len(counts) == 2)
    assert wait_until(lambda: census.alive == 300)
    census.close()
    renderer.close()


def test_stopping_ends_every_thread() -> None:
    before = set(threading.enumerate())
    with ViewerServer(toy_subject(), ServerOptions(port=0)) as server, connected(server) as line:
        first_picture(line)
    ours = [t for t in threading.enumerate() if t not in before and t.name.startswith("kinosplat")]
    assert wait_until(lambda: not any(thread.is_alive() for thread in ours)), ours


def test_a_page_of_another_origin_gets_nothing_in_a_real_browser(browser: Any, server: ViewerServer) -> None:
    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>stranger</title>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{stranger.server_port}/")
        line = f"""new Promise((done) => {{
            const line = new WebSocket("ws://localhost:{server.port}", "viser-v{viser.__version__}");
            line.onopen = () => done("open");
            line.onerror = () => done("refused");
        }})"""
        assert page.evaluate(line) == "refused"
        fetched = (
            f"""fetch("http://localhost:{server.port}/", {{mode: "no-cors"}}).then(() => "got", () => "refused")"""
        )
        assert page.evaluate(fetched) == "refused"
        framed = f"""new Promise((done) => {{
            const frame = document.createElement("iframe");
            frame.src = "http://localhost:{server.port}/";
            frame.onload = () => done(frame.contentDocument === null);
            document.body.append(frame);
        }})"""
        assert page.evaluate(framed)
        page.wait_for_timeout(1000)
        assert not server.sessions
        page.close()
        stranger.shutdown()
