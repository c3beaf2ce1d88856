"""One visitor: their camera, their moment of the clip, their look, their stream and their controls.

Callbacks of the page run on viser's threads; what they change are frozen values that are replaced whole, under
one lock.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import viser

from kinosplat.errors import InputError
from kinosplat.render.camera import Camera
from kinosplat.viewer.controls.build import Panel, build_panels
from kinosplat.viewer.failures import in_words
from kinosplat.viewer.jobs import Wish
from kinosplat.viewer.lens import camera_of, fitting_fov, pose_of
from kinosplat.viewer.look import Look
from kinosplat.viewer.playback import Playback
from kinosplat.viewer.renderer import Renderer
from kinosplat.viewer.stream import ClientStream
from kinosplat.viewer.subject import Subject
from kinosplat.viewer.training import TrainingWatch, refresh_interval
from kinosplat.viewer.wire import PageWire

DEFAULT_FPS = 30.0
"""Frames a second of a clip that does not say."""


class Session:
    """Made when a page connects, closed when it goes."""

    def __init__(self, client: viser.ClientHandle, renderer: Renderer, training: TrainingWatch | None) -> None:
        self.client, self.renderer, self.training = client, renderer, training
        self.subject: Subject = renderer.subject
        self.lock = threading.RLock()
        self.closed = False
        with self.subject.turn():
            self.times = self.subject.times
            self.cameras = list(self.subject.cameras)
            self.fps = self.subject.fps or DEFAULT_FPS
        self.playback: Playback | None = None
        if len(self.times) > 1:
            self.playback = Playback(self.times[0], self.times[-1], self.fps, anchor=self.times[0])
        self.look = Look.of(self.subject.settings)
        self.wire = PageWire(client, lambda number: self.stream.confirm(number))
        self.stream = ClientStream(
            self.wire.send_picture, renderer.wake, self.moment, renderer.encoder, tell=self._tell_no_picture
        )
        self.shown_version = self.subject.version
        self._refreshed_at = 0.0
        self._objects: set[str] = set()
        self.panels: list[Panel] = build_panels(self)
        self.wire.fold_on_phones()
        query = dict(parse_qsl(self.wire.query()))
        if "initialCameraFov" not in query:
            client.camera.fov = self._fitting_fov(self.cameras[0])
        self._restore(query)
        client.camera.on_update(lambda _: self.wish())
        renderer.add(self.stream)
        self.wish()

    # What is to be seen.

    def moment(self, now: float) -> float | None:
        """Moment of the clip at a time of day (monotonic seconds); None where nothing moves."""
        if self.playback is None:
            return self.times[0] if self.times else None
        return self.playback.at(now)

    def camera(self) -> Camera:
        """What the page looks through now, at the size of its canvas."""
        held = self.client.camera
        moment = self.moment(time.monotonic())
        return camera_of(
            held.wxyz.tolist(), held.position.tolist(), held.fov, held.image_width, held.image_height, moment
        )

    def wish(self) -> None:
        """Show what camera, moment and look say now."""
        if not self.closed and self.client.camera.image_width > 0:
            self.stream.wish(Wish(self.camera(), self.look))

    def change_look(self, **changes: Any) -> None:
        """Replace fields of the look and show it."""
        with self.lock:
            self.look = replace(self.look, **changes)
        self.wish()

    def change_playback(self, change: Callable[[Playback, float], Playback]) -> None:
        """Replace the clip's clock by `change(clock, now)` and show where it is."""
        with self.lock:
            if self.playback is None:
                return
            self.playback = change(self.playback, time.monotonic())
            self.stream.set_playing(self.playback.is_playing)
        self.wish()

    def look_from(self, camera: Camera) -> None:
        """Move the page's camera to `camera`; the point it turns around stays as far away as it was."""
        held = self.client.camera
        wxyz, position = pose_of(camera)
        forward = camera.forward.detach().double().cpu().numpy()
        distance = float(((held.look_at - held.position) ** 2).sum() ** 0.5)
        with self.client.atomic():
            held.wxyz = wxyz  # type: ignore[assignment]
            held.position = position  # type: ignore[assignment]
            held.look_at = [p + distance * f for p, f in zip(position, forward, strict=True)]  # type: ignore[assignment]
            held.fov = self._fitting_fov(camera)
        if camera.time is not None and self.playback is not None:
            moment = camera.time
            self.change_playback(lambda clock, now: clock.pause(now).seek(moment, now))
        self.wish()

    def page_size(self) -> tuple[int, int]:
        """Width and height of the page's canvas, pixels; something small before it has said."""
        held = self.client.camera
        return max(held.image_width, 16), max(held.image_height, 16)

    def _fitting_fov(self, camera: Camera) -> float:
        """Field of view at which the page, which may be a phone's, shows all of what `camera` shows."""
        return fitting_fov(camera, *self.page_size())

    def set_objects(self, kind: str, shown: bool) -> None:
        """Whether viser's own objects of a kind are in the scene, which then need the picture's depth."""
        (self._objects.add if shown else self._objects.discard)(kind)
        self.stream.has_objects = bool(self._objects)
        self.wish()

    # The life of a session.

    def tick(self, now: float) -> None:
        """A few times a second: sliders that follow the clip, numbers, a model that changed."""
        if self.closed:
            return
        if self.playback is not None and self.playback.has_ended(now):
            self.change_playback(lambda clock, at: clock.pause(at))
        version = self.subject.version
        last = self.stream.meter.last()
        cost = last.render + last.read if last else 0.0
        if version != self.shown_version and now - self._refreshed_at > refresh_interval(cost):
            self.shown_version, self._refreshed_at = version, now
            self.stream.refresh()
        for panel in self.panels:
            panel.tick(now)

    def close(self) -> None:
        """The page is gone."""
        self.closed = True
        self.renderer.remove(self.stream)
        self.stream.close()
        for panel in self.panels:
            panel.close()

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Show on the page what cannot be used and what failed, instead of raising it on one of viser's threads."""
        try:
            yield
        except InputError as error:
            self.tell("That does not work", str(error), color="red")
        except Exception as error:
            traceback.print_exc()
            self.tell("That failed", in_words(error), color="red")

    def _tell_no_picture(self, why: str) -> None:
        self.tell("The picture could not be drawn", f"{why} The one before stays.", color="red")

    def tell(self, title: str, text: str, *, color: Any = None, seconds: float = 8.0) -> None:
        """A note in the corner of the page that goes away by itself."""
        if not self.closed:
            self.client.add_notification(title, text, color=color, auto_close_seconds=seconds)

    def _restore(self, query: dict[str, str]) -> None:
        """What a shared link says beside the camera, which the page restores itself; nonsense is left alone."""
        for panel in self.panels:
            panel.restore(query)
