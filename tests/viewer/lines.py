"""The line of a page without a browser: viser's protocol over a websocket, one message after another."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import viser
import websockets.sync.client
import zstandard
from PIL import Image

from kinosplat.viewer.lens import pose_of, vertical_fov
from kinosplat.viewer.server import ViewerServer
from viewer.toys import toy_cameras


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


def confirm(line: Any, stop: threading.Event) -> None:
    """Say of everything that it has arrived, as pages do."""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            for message in received(line, 0.5):
                if message["type"] == "LocalStorageGetItemRequestMessage":
                    answer = {"type": "LocalStorageGetItemResponseMessage", "value": "", "error": None}
                    line.send(msgspec.msgpack.encode(answer | {"request_uuid": message["request_uuid"]}))
