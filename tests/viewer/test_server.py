"""The server as strangers meet it: what it hands out, whom it refuses, and how it forgets who is gone."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import io
import socket
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import viser
import websockets.sync.client
import zstandard
from PIL import Image

from kinosplat.viewer.lens import pose_of, vertical_fov
from kinosplat.viewer.server import ServerOptions, ViewerServer
from viewer.toys import toy_cameras, toy_subject, wait_until


@contextlib.contextmanager
def connected(server: ViewerServer, **options: Any) -> Iterator[Any]:
    """A line as a page opens it, which has said where it looks from."""
    protocol = f"viser-v{viser.__version__}"
    with websockets.sync.client.connect(
        f"ws://localhost:{server.port}", subprotocols=[protocol], max_size=None, **options
    ) as line:
        camera = toy_cameras()[0]
        wxyz, position = pose_of(camera)
        message = {
            "type": "ViewerCameraMessage", "wxyz": wxyz, "position": position, "fov": vertical_fov(camera),
            "near": 0.01, "far": 1000.0, "image_height": 72, "image_width": 96,
            "look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, 0.0, 1.0),
        }  # fmt: skip
        line.send(msgspec.msgpack.encode(message))
        yield line


def received(line: Any, seconds: float = 20.0) -> list[dict[str, Any]]:
    """The messages that come next; TimeoutError when none does."""
    raw = line.recv(timeout=seconds)
    n_bytes, n_packed = int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:16], "little")
    packed = zstandard.ZstdDecompressor().decompress(raw[16 : 16 + n_packed], max_output_size=n_bytes)
    messages: list[dict[str, Any]] = msgspec.msgpack.decode(packed)["messages"]
    return messages


def first_picture(line: Any) -> Image.Image:
    """The first that comes."""
    while True:
        for message in received(line):
            if message["type"] == "BackgroundImageMessage" and message["rgb_data"] is not None:
                return Image.open(io.BytesIO(message["rgb_data"]))


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
        assert not session.stream._thread.is_alive()


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
            assert len(first.stream._on_the_way) <= 3
            stop.set()
            reader.join(timeout=5)


def confirm(line: Any, stop: threading.Event) -> None:
    """Say of everything that it has arrived, as pages do."""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            for message in received(line, 0.5):
                if message["type"] == "LocalStorageGetItemRequestMessage":
                    answer = {"type": "LocalStorageGetItemResponseMessage", "value": "", "error": None}
                    line.send(msgspec.msgpack.encode(answer | {"request_uuid": message["request_uuid"]}))


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
