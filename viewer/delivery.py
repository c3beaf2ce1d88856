"""Pictures on their way to a page: encoded and sent by a thread of their own, counted until they are confirmed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kinosplat.render.pass_times import Pass
from kinosplat.viewer.draw import Drawn
from kinosplat.viewer.encode import Coding, PictureEncoder, encode_depth, to_canvas, to_depth_steps
from kinosplat.viewer.jobs import Job
from kinosplat.viewer.stages import FrameMeter, FrameTimes

LOST_AFTER = 5.0
"""Seconds after which a picture that was not confirmed counts as lost, so that a page that slept goes on."""
DEPTH_SIDE = 480
"""Longest side of the depth sent for compositing, pixels."""

PictureSink = Callable[[int, bytes, Coding, "bytes | None"], None]
"""Sends picture `number` with its coding, and the depth as PNG; as `PageWire.send_picture`."""


@dataclass(frozen=True)
class _Parcel:
    job: Job
    canvas: NDArray[np.uint8]
    depth: NDArray[np.uint8] | None
    n_visible: int
    render: float
    passes: dict[Pass, float]
    read: float


class Delivery:
    """Takes one picture at a time; `close` ends the thread."""

    def __init__(
        self, send: PictureSink, encoder: PictureEncoder, made: Callable[[Job, float], None], wake: Callable[[], None]
    ) -> None:
        """`made` hears of every picture that is ready to be sent, and of the seconds that making it took; `wake` is
        called when another one may be rendered.
        """
        self.meter = FrameMeter()
        self._send, self._encoder, self._made, self._wake = send, encoder, made, wake
        self._parcel: _Parcel | None = None
        self._on_the_way: dict[int, tuple[float, FrameTimes, float]] = {}
        self._number = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._deliver, name="kinosplat-send", daemon=True)
        self._thread.start()

    @property
    def is_taken(self) -> bool:
        """Whether a picture waits to be encoded."""
        return self._parcel is not None

    @property
    def is_alive(self) -> bool:
        """Whether its thread has not ended."""
        return self._thread.is_alive()

    def n_on_the_way(self, now: float) -> int:
        """Pictures that were sent and not confirmed; those that are lost count no more."""
        with self._changed:
            lost = [number for number, (sent_at, *_) in self._on_the_way.items() if now - sent_at > LOST_AFTER]
            for number in lost:
                del self._on_the_way[number]
            return len(self._on_the_way)

    def take(self, job: Job, drawn: Drawn, render: float, passes: dict[Pass, float]) -> None:
        """Bring a picture to the CPU, on the thread that rendered it, and leave the rest to this one's.

        `render` and `passes` are the seconds it took, as a whole and in parts.
        """
        began = time.perf_counter()
        canvas = to_canvas(drawn.picture)
        depth = None if drawn.depth is None or not job.depth else to_depth_steps(drawn.depth, DEPTH_SIDE)
        parcel = _Parcel(job, canvas, depth, drawn.n_visible, render, passes, time.perf_counter() - began)
        with self._changed:
            self._parcel = parcel
            self._changed.notify_all()

    def confirm(self, number: int) -> None:
        """The page has picture `number`."""
        now = time.monotonic()
        with self._changed:
            entry = self._on_the_way.pop(number, None)
        if entry is not None:
            sent_at, times, wished_at = entry
            self.meter.add(replace(times, send=now - sent_at, latency=now - wished_at, confirmed_at=now))
        self._wake()

    def close(self) -> None:
        """The client is gone; the thread ends with the picture it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=1.0)

    def _deliver(self) -> None:
        while True:
            with self._changed:
                while self._parcel is None and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                parcel, self._parcel = self._parcel, None
            assert parcel is not None
            # The next picture may be rendered while this one is encoded.
            self._wake()
            self._encode_and_send(parcel)
            self._wake()

    def _encode_and_send(self, parcel: _Parcel) -> None:
        job = parcel.job
        began = time.perf_counter()
        picture = self._encoder.encode(parcel.canvas, job.coding, job.quality)
        depth = None if parcel.depth is None else encode_depth(parcel.depth)
        encode = time.perf_counter() - began
        self._made(job, parcel.render + parcel.read + encode)
        times = FrameTimes(
            render=parcel.render,
            project=parcel.passes.get("project", 0.0),
            bin=parcel.passes.get("bin", 0.0),
            blend=parcel.passes.get("blend", 0.0),
            read=parcel.read,
            encode=encode,
            send=0.0,
            latency=0.0,
            confirmed_at=0.0,
            n_bytes=len(picture) + (0 if depth is None else len(depth)),
            width=job.camera.width,
            height=job.camera.height,
            n_visible=parcel.n_visible,
        )
        with self._changed:
            self._number += 1
            number = self._number
            self._on_the_way[number] = (time.monotonic(), times, job.wished_at)
        self._send(number, picture, job.coding, depth)
