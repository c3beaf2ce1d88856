"""A page without a browser: a process that speaks viser's protocol over a websocket on this machine.

It turns its camera, or holds still; it decodes every picture, several at once as browsers do but in processes of their
own (Pillow lets no other thread run meanwhile), and confirms each when it is decoded (a page confirms before that).
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec
import viser
import websockets.asyncio.client
import websockets.exceptions
import zstandard
from PIL import Image

from kinosplat.render import Camera
from kinosplat.viewer.lens import pose_of, vertical_fov

SETTLING = 2.0
"""Seconds after the connection that do not count: the page's controls are sent, pictures find their size."""
N_DECODING = 3
"""Pictures that are decoded at the same time; more are never on the way."""
PATIENCE = 120.0
"""Seconds to wait for a page to end beyond the time it was given."""


@dataclass(frozen=True)
class Seen:
    """What a page got."""

    fps: float
    """Pictures a second that were received and decoded."""
    n_pictures: int
    """All that counted."""
    size: tuple[int, int] | None
    """Median width and height."""


class HeadlessPage:
    """Connects on construction; `seen` waits for its end."""

    def __init__(self, port: int, cameras: Sequence[Camera], seconds: float, turns_per_second: float) -> None:
        """Looks from `cameras` one after another, `turns_per_second` of them; with one camera it holds still."""
        context = multiprocessing.get_context("spawn")
        self._answers: Any = context.Queue()
        self._seconds = seconds
        messages = [camera_message(camera) for camera in cameras]
        arguments = (port, messages, seconds, turns_per_second, self._answers)
        # Not a daemon, which may have no processes of its own; it ends by itself.
        self._process = context.Process(target=_run, args=arguments)
        self._process.start()

    def seen(self) -> Seen:
        """What it got, when it is over."""
        answer: Seen = self._answers.get(timeout=self._seconds + PATIENCE)
        self._process.join()
        return answer


def camera_message(camera: Camera) -> dict[str, Any]:
    """What a page sends when its camera moves."""
    wxyz, position = pose_of(camera)
    return {
        "type": "ViewerCameraMessage",
        "wxyz": wxyz,
        "position": position,
        "fov": vertical_fov(camera),
        "near": 0.01,
        "far": 1000.0,
        "image_height": camera.height,
        "image_width": camera.width,
        "look_at": (0.0, 0.0, 0.0),
        "up_direction": (0.0, 0.0, 1.0),
    }


def _run(port: int, messages: list[dict[str, Any]], seconds: float, turns_per_second: float, answers: Any) -> None:
    n_decoding = N_DECODING if len(messages) > 1 else 1
    with ProcessPoolExecutor(n_decoding, multiprocessing.get_context("spawn")) as pool:
        for _ in pool.map(_decode, [_encoded_nothing()] * n_decoding):
            pass
        answers.put(asyncio.run(_look(port, messages, seconds, turns_per_second, pool)))


async def _look(
    port: int, messages: list[dict[str, Any]], seconds: float, turns_per_second: float, pool: ProcessPoolExecutor
) -> Seen:
    url, protocol = f"ws://localhost:{port}", f"viser-v{viser.__version__}"
    arrived: list[tuple[float, tuple[int, int]]] = []
    async with websockets.asyncio.client.connect(url, subprotocols=[protocol], max_size=None) as socket:  # type: ignore[list-item]

        async def turn() -> None:
            for i in range(len(messages) if len(messages) == 1 else 10**9):
                await socket.send(msgspec.msgpack.encode(messages[i % len(messages)]))
                await asyncio.sleep(1 / turns_per_second)

        async def show(picture: bytes, decoding: list[asyncio.Task[None]]) -> None:
            size = await asyncio.get_running_loop().run_in_executor(pool, _decode, picture)
            # In the order in which they came.
            await asyncio.gather(*decoding)
            arrived.append((time.monotonic(), size))

        async def confirm(request: str, decoding: list[asyncio.Task[None]]) -> None:
            await asyncio.gather(*decoding)
            # The last ones find the line closed.
            with contextlib.suppress(websockets.exceptions.ConnectionClosed):
                await socket.send(msgspec.msgpack.encode(_answer(request)))

        async def receive() -> None:
            decompressor = zstandard.ZstdDecompressor()
            decoding: list[asyncio.Task[None]] = []
            confirming: set[asyncio.Task[None]] = set()
            while True:
                raw = await socket.recv()
                assert isinstance(raw, bytes)
                n_bytes, n_packed = int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:16], "little")
                packed = decompressor.decompress(raw[16 : 16 + n_packed], max_output_size=n_bytes)
                for message in msgspec.msgpack.decode(packed)["messages"]:
                    if message["type"] == "BackgroundImageMessage" and message["rgb_data"] is not None:
                        decoding = [task for task in decoding if not task.done()]
                        decoding.append(asyncio.create_task(show(message["rgb_data"], list(decoding))))
                    elif message["type"] == "LocalStorageGetItemRequestMessage":
                        task = asyncio.create_task(confirm(message["request_uuid"], list(decoding)))
                        confirming.add(task)
                        task.add_done_callback(confirming.discard)

        began = time.monotonic()
        tasks = [asyncio.create_task(turn()), asyncio.create_task(receive())]
        await asyncio.wait([tasks[1]], timeout=SETTLING + seconds)
        for task in tasks:
            task.cancel()
    counted = [size for when, size in arrived if when - began > SETTLING]
    sizes = sorted(counted)
    return Seen(len(counted) / seconds, len(counted), sizes[len(sizes) // 2] if sizes else None)


def _decode(picture: bytes) -> tuple[int, int]:
    image = Image.open(io.BytesIO(picture))
    image.load()
    return image.size


def _encoded_nothing() -> bytes:
    """A picture that wakes the processes before anything counts."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    return file.getvalue()


def _answer(request: str) -> dict[str, Any]:
    return {"type": "LocalStorageGetItemResponseMessage", "value": "", "error": None, "request_uuid": request}
