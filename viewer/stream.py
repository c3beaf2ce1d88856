"""Pictures to clients: one thread renders, each client has one more that encodes and sends.

A client's wishes are its camera, its moment and its look; the newest wish wins, older ones are dropped. While wishes
keep coming, pictures are as small as the target frame rate asks for; when they stop, one picture of full quality
follows. A client gets no further picture while three are on their way to it, so a slow line costs only its own client.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from kinosplat.render.camera import Camera
from kinosplat.render.pass_times import Pass, PassTimes
from kinosplat.viewer.adaptive import AdaptiveResolution, limited_size, scaled_size
from kinosplat.viewer.draw import Drawn, draw
from kinosplat.viewer.encode import Coding, PictureEncoder, encode_depth, to_canvas, to_depth_steps
from kinosplat.viewer.look import Look
from kinosplat.viewer.scheduler import next_turn
from kinosplat.viewer.stages import FrameMeter, FrameTimes
from kinosplat.viewer.subject import Subject

MAX_IN_FLIGHT = 3
"""Pictures on their way to a page that has not confirmed them."""
STILL_AFTER = 0.2
"""Seconds without a new wish until the picture of full quality."""
LOST_AFTER = 5.0
"""Seconds after which a picture that was not confirmed counts as lost, so that a page that slept goes on."""
DEPTH_SIDE = 480
"""Longest side of the depth sent for compositing, pixels."""

PictureSink = Callable[[int, bytes, Coding, "bytes | None"], None]
"""Sends picture `number` with its coding, and the depth as PNG; as `PageWire.send_picture`."""


@dataclass(frozen=True)
class StreamSettings:
    """How a client wants its pictures made."""

    target_fps: float = 30.0
    """Frames a second while moving: pictures are made smaller until it is reached, and never more often."""
    adaptive: bool = True
    """Make pictures smaller while moving."""
    longest_side: int = 1920
    """Pixels; also of pictures that stand still."""
    coding: Coding = "jpeg"
    """How pictures are sent."""
    quality: int = 80
    """Of the coding while moving, 1 to 100."""
    still_quality: int = 92
    """Of the coding for pictures that stand still."""
    composite: bool = True
    """Send the depth too, so that objects in the scene hide and are hidden; only while there are any."""


@dataclass(frozen=True)
class Wish:
    """What a client wants to see."""

    camera: Camera
    """At the size of the page's canvas, on the CPU."""
    look: Look
    """How."""


@dataclass(frozen=True)
class Job:
    """One picture to be made."""

    camera: Camera
    """At the size to render."""
    look: Look
    """How."""
    depth: bool
    """Whether the depth is sent too."""
    coding: Coding
    """How it is sent."""
    quality: int
    """Of the coding."""
    wished_at: float
    """When the wish arrived."""
    moving: bool
    """Whether a sharper one follows."""


@dataclass(frozen=True)
class _Parcel:
    job: Job
    canvas: NDArray[np.uint8]
    depth: NDArray[np.uint8] | None
    n_visible: int
    render: float
    passes: dict[Pass, float]
    read: float


class ClientStream:
    """The pictures of one client. Its own thread encodes and sends; `close` ends it."""

    def __init__(
        self,
        send: PictureSink,
        wake: Callable[[], None],
        moment: Callable[[float], float | None],
        encoder: PictureEncoder,
    ) -> None:
        """`wake` is called when there may be something to render; `moment` gives the clip's moment at a time of day."""
        self.meter = FrameMeter()
        self.adaptive = AdaptiveResolution()
        self.last_turn = 0.0
        self.last_drawn: Drawn | None = None
        self.has_objects = False
        self._send, self._wake, self._moment, self._encoder = send, wake, moment, encoder
        self._settings = StreamSettings()
        self._wish: Wish | None = None
        self._playing = False
        self._wished_at = 0.0
        self._must_draw = False
        self._may_refine = False
        self._parcel: _Parcel | None = None
        self._on_the_way: dict[int, tuple[float, FrameTimes, float]] = {}
        self._number = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._deliver, name="kinosplat-send", daemon=True)
        self._thread.start()

    # What the page wishes.

    def wish(self, wish: Wish) -> None:
        """Show this from now on."""
        self._ask(lambda: setattr(self, "_wish", wish))

    def set_settings(self, settings: StreamSettings) -> None:
        """Make pictures like this from now on."""
        self._ask(lambda: setattr(self, "_settings", settings))

    def set_playing(self, playing: bool) -> None:
        """While playing there is always a next picture to make."""
        self._ask(lambda: setattr(self, "_playing", playing))

    @property
    def settings(self) -> StreamSettings:
        """How pictures are made."""
        return self._settings

    @property
    def wished(self) -> Wish | None:
        """What is to be seen."""
        return self._wish

    def refresh(self) -> None:
        """The model changed: show it again, at full quality at once if nobody moves."""
        with self._changed:
            self._may_refine = True
        self._wake()

    def _ask(self, change: Callable[[], None]) -> None:
        with self._changed:
            change()
            self._must_draw = True
            self._wished_at = time.monotonic()
        self._wake()

    # What the scheduler asks.

    def is_moving(self, now: float) -> bool:
        """Whether wishes keep coming."""
        return self._playing or self._must_draw or now - self._wished_at < STILL_AFTER

    def due(self, now: float) -> float | None:
        """See `scheduler.Due`."""
        with self._changed:
            if self._closed or self._wish is None or self._parcel is not None:
                return None
            self._forget_lost(now)
            if len(self._on_the_way) >= MAX_IN_FLIGHT:
                # Woken by the confirmation; asked again in case it never comes.
                return now + LOST_AFTER
            if self._must_draw or self._playing:
                return self.last_turn + 1 / self._settings.target_fps
            if self._may_refine:
                return max(self._wished_at + STILL_AFTER, self.last_turn)
            return None

    def take_job(self, now: float, n_moving: int) -> Job | None:
        """The picture to make now; called by the rendering thread after `due`."""
        with self._changed:
            wish, settings = self._wish, self._settings
            if wish is None or self._closed:
                return None
            moving = self._must_draw or self._playing
            full = limited_size(wish.camera.width, wish.camera.height, settings.longest_side)
            size = full
            if settings.adaptive:
                n_pixels = full[0] * full[1]
                by_target = self.adaptive.scale(n_pixels, settings.target_fps, n_moving)
                size = scaled_size(*full, by_target if moving else self.adaptive.still_scale(n_pixels))
            wished_at = now if self._playing and not self._must_draw else self._wished_at
            if not moving:
                wished_at = now
            self._must_draw = False
            self.last_turn = now
            self._may_refine = moving
            depth = settings.composite and self.has_objects
            quality = settings.quality if moving else max(settings.quality, settings.still_quality)
            camera = wish.camera.resized(*size).at(self._moment(now))
            return Job(camera, wish.look, depth, settings.coding, quality, wished_at, moving)

    def hand_over(self, job: Job, drawn: Drawn, render: float, passes: dict[Pass, float]) -> None:
        """The rendering thread is done: bring the picture to the CPU and leave the rest to this client's thread.

        `render` and `passes` are the seconds it took, as a whole and in parts.
        """
        began = time.perf_counter()
        canvas = to_canvas(drawn.picture)
        depth = None if drawn.depth is None or not job.depth else to_depth_steps(drawn.depth, DEPTH_SIDE)
        parcel = _Parcel(job, canvas, depth, drawn.n_visible, render, passes, time.perf_counter() - began)
        with self._changed:
            self.last_drawn = replace(drawn, picture=drawn.picture[:0], depth=None)
            self._parcel = parcel
            self._changed.notify_all()

    # The client's own thread.

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
            job = parcel.job
            began = time.perf_counter()
            picture = self._encoder.encode(parcel.canvas, job.coding, job.quality)
            depth = None if parcel.depth is None else encode_depth(parcel.depth)
            encode = time.perf_counter() - began
            self.adaptive.learn(job.camera.width * job.camera.height, parcel.render + parcel.read + encode)
            self._refine_further(job)
            n_bytes = len(picture) + (0 if depth is None else len(depth))
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
                n_bytes=n_bytes,
                width=job.camera.width,
                height=job.camera.height,
                n_visible=parcel.n_visible,
            )
            with self._changed:
                self._number += 1
                number = self._number
                self._on_the_way[number] = (time.monotonic(), times, job.wished_at)
            self._send(number, picture, job.coding, depth)
            self._wake()

    def _refine_further(self, job: Job) -> None:
        """Once more after a still picture that was made smaller than it had to be, as one now knows."""
        with self._changed:
            if job.moving or not self._settings.adaptive or self._wish is None:
                return
            wished, longest = self._wish.camera, self._settings.longest_side
            full = limited_size(wished.width, wished.height, longest)
            possible = scaled_size(*full, self.adaptive.still_scale(full[0] * full[1]))
            self._may_refine |= job.camera.width < possible[0]

    def confirm(self, number: int) -> None:
        """The page has picture `number`."""
        now = time.monotonic()
        with self._changed:
            entry = self._on_the_way.pop(number, None)
        if entry is not None:
            sent_at, times, wished_at = entry
            self.meter.add(replace(times, send=now - sent_at, latency=now - wished_at, confirmed_at=now))
        self._wake()

    def _forget_lost(self, now: float) -> None:
        lost = [number for number, (sent_at, *_) in self._on_the_way.items() if now - sent_at > LOST_AFTER]
        for number in lost:
            del self._on_the_way[number]

    def close(self) -> None:
        """The client is gone; its thread ends with the picture it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._wake()
        self._thread.join(timeout=1.0)


class Renderer:
    """The one thread that renders, for all clients of a server."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.encoder = PictureEncoder()
        self._streams: list[ClientStream] = []
        self._woken = threading.Condition()
        self._exclusive = threading.RLock()
        self._n_wakes = 0
        self._closed = False
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="kinosplat-render", daemon=True)
        self._thread.start()

    def add(self, stream: ClientStream) -> None:
        """Serve a client from now on."""
        with self._woken:
            self._streams.append(stream)
        self.wake()

    def remove(self, stream: ClientStream) -> None:
        """Serve it no more."""
        with self._woken:
            if stream in self._streams:
                self._streams.remove(stream)

    def wake(self) -> None:
        """Look again who is due."""
        with self._woken:
            self._n_wakes += 1
            self._woken.notify_all()

    @contextmanager
    def alone(self) -> Iterator[Subject]:
        """The subject for the caller alone: nothing is rendered for clients and nobody changes the model meanwhile."""
        with self._exclusive, self.subject.turn():
            yield self.subject

    def close(self) -> None:
        """End the thread."""
        with self._woken:
            self._closed = True
            self._woken.notify_all()
        self._thread.join(timeout=5.0)
        self.encoder.close()

    def _run(self) -> None:
        seen = -1
        while True:
            with self._woken:
                if self._closed:
                    return
                streams, seen = list(self._streams), self._n_wakes
            now = time.monotonic()
            stream, wait = next_turn(streams, now)
            if stream is None:
                with self._woken:
                    if self._n_wakes == seen and not self._closed:
                        self._woken.wait(wait)
                continue
            n_moving = sum(other.is_moving(now) for other in streams)
            job = stream.take_job(now, n_moving)
            if job is not None:
                self._render(stream, job)

    def _render(self, stream: ClientStream, job: Job) -> None:
        """One picture; a failure is told once and costs that picture only."""
        try:
            with self.alone() as subject:
                times = PassTimes()
                began = time.perf_counter()
                drawn = draw(subject, job.camera, job.look, depth=job.depth, times=times)
                wait_for(subject.device)
                render = time.perf_counter() - began
                stream.hand_over(job, drawn, render, times.seconds())
        except Exception as error:
            sentence = f"{type(error).__name__}: {error}"
            if sentence not in self._told:
                self._told.add(sentence)
                traceback.print_exc()


def wait_for(device: torch.device) -> None:
    """Until everything queued on `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
