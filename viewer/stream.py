"""The pictures of one client: which is to be made next.

A client's wishes are its camera, its moment and its look; the newest wish wins, older ones are dropped. While wishes
keep coming, pictures are as small as the target frame rate asks for; when they stop, one picture of full quality
follows. A client gets no further picture while three are on their way to it, so a slow line costs only its own client.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from kinosplat.render.pass_times import Pass
from kinosplat.viewer.adaptive import AdaptiveResolution, limited_size, scaled_size
from kinosplat.viewer.delivery import LOST_AFTER, Delivery, PictureSink
from kinosplat.viewer.draw import Drawn
from kinosplat.viewer.encode import PictureEncoder
from kinosplat.viewer.failures import in_words
from kinosplat.viewer.jobs import Job, StreamSettings, Wish
from kinosplat.viewer.stages import FrameMeter

MAX_IN_FLIGHT = 3
"""Pictures on their way to a page that has not confirmed them."""
STILL_AFTER = 0.2
"""Seconds without a new wish until the picture of full quality."""


class ClientStream:
    """Wishes in, jobs for the rendering thread out; `close` when the client is gone."""

    def __init__(
        self,
        send: PictureSink,
        wake: Callable[[], None],
        moment: Callable[[float], float | None],
        encoder: PictureEncoder,
        tell: Callable[[str], None],
    ) -> None:
        """`wake` is called when there may be something to render; `moment` gives the clip's moment at a time of day;
        `tell` is called with a sentence when a picture cannot be made.
        """
        self.delivery = Delivery(send, encoder, self._learn, wake)
        self.adaptive = AdaptiveResolution()
        self.last_turn = 0.0
        self.last_drawn: Drawn | None = None
        self.has_objects = False
        self._wake, self._moment, self._tell = wake, moment, tell
        self._told: str | None = None
        self._settings = StreamSettings()
        self._wish: Wish | None = None
        self._playing = False
        self._wished_at = 0.0
        self._must_draw = False
        self._may_refine = False
        self._closed = False
        self._lock = threading.Lock()

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
    def meter(self) -> FrameMeter:
        """What its pictures took."""
        return self.delivery.meter

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
        with self._lock:
            self._may_refine = True
        self._wake()

    def _ask(self, change: Callable[[], None]) -> None:
        with self._lock:
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
        with self._lock:
            if self._closed or self._wish is None or self.delivery.is_taken:
                return None
            if self.delivery.n_on_the_way(now) >= MAX_IN_FLIGHT:
                # Woken by the confirmation; asked again in case it never comes.
                return now + LOST_AFTER
            if self._must_draw or self._playing:
                return self.last_turn + 1 / self._settings.target_fps
            if self._may_refine:
                return max(self._wished_at + STILL_AFTER, self.last_turn)
            return None

    def take_job(self, now: float, n_moving: int) -> Job | None:
        """The picture to make now; called by the rendering thread after `due`."""
        with self._lock:
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

    # What becomes of a job.

    def hand_over(self, job: Job, drawn: Drawn, render: float, passes: dict[Pass, float]) -> None:
        """The picture is made; `render` and `passes` are the seconds it took, as a whole and in parts."""
        self.delivery.take(job, drawn, render, passes)
        self._told = None
        self.last_drawn = replace(drawn, picture=drawn.picture[:0], depth=None)

    def fail(self, error: Exception) -> None:
        """The picture could not be made; the client hears of it unless it is why there was no picture before."""
        sentence = in_words(error)
        if sentence != self._told:
            self._told = sentence
            self._tell(sentence)

    def confirm(self, number: int) -> None:
        """The page has picture `number`."""
        self.delivery.confirm(number)

    def _learn(self, job: Job, seconds: float) -> None:
        """Making it took so long; a still picture that turns out to have been smaller than it had to be comes again."""
        self.adaptive.learn(job.camera.width * job.camera.height, seconds)
        with self._lock:
            if job.moving or not self._settings.adaptive or self._wish is None:
                return
            wished, longest = self._wish.camera, self._settings.longest_side
            full = limited_size(wished.width, wished.height, longest)
            possible = scaled_size(*full, self.adaptive.still_scale(full[0] * full[1]))
            self._may_refine |= job.camera.width < possible[0]

    def close(self) -> None:
        """The client is gone."""
        with self._lock:
            self._closed = True
        self._wake()
        self.delivery.close()
