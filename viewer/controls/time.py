"""The clip: slider, play and pause, single frames, speed, loop. Only there for what moves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from viser import Icon

from kinosplat.viewer.controls.build import PlainPanel, on_visitor, show_value
from kinosplat.viewer.controls.link import number, to_words

if TYPE_CHECKING:
    from kinosplat.viewer.session import Session

SPEEDS = {"¼×": 0.25, "½×": 0.5, "1×": 1.0, "2×": 2.0, "−1×": -1.0}
START, BACK, FORWARD = "first", "−1", "+1"


class TimePanel(PlainPanel):
    """Drives the session's `Playback`."""

    def __init__(self, session: Session) -> None:
        assert session.playback is not None
        self.session = session
        clock, gui = session.playback, session.client.gui
        self._shown = clock.anchor
        with gui.add_folder("Time"):
            self.slider = gui.add_slider(
                "Second",
                round(clock.first, 3),
                round(clock.last, 3),
                0.001,
                round(clock.first, 3),
                hint="Moment of the clip, in seconds.",
            )
            self.play = gui.add_button("Play", icon=Icon.PLAYER_PLAY)
            self.steps = gui.add_button_group("Frame", [START, BACK, FORWARD])
            self.speed = gui.add_dropdown(
                "Speed", list(SPEEDS), initial_value="1×", hint="Of the clip; −1× is backwards."
            )
            self.loop = gui.add_checkbox("Loop", clock.loop, hint="Begin again at the end.")

        on_visitor(self.slider, self._on_slider)
        self.play.on_click(lambda _: self._toggle())
        self.steps.on_click(lambda event: self._step(event.target.value))
        self.speed.on_update(lambda _: self._set_speed(self.speed.value))
        self.loop.on_update(lambda _: session.change_playback(lambda c, now: c.set_loop(self.loop.value, now)))

    def _on_slider(self) -> None:
        moment = self.slider.value
        self._shown = moment
        self.session.change_playback(lambda clock, now: clock.seek(moment, now))

    def _toggle(self) -> None:
        self.session.change_playback(lambda clock, now: clock.pause(now) if clock.is_playing else clock.play(now))
        self.tick(time.monotonic())

    def _step(self, which: str) -> None:
        if which == START:
            self.session.change_playback(lambda clock, now: clock.seek(clock.first, now))
        else:
            frames = 1 if which == FORWARD else -1
            self.session.change_playback(lambda clock, now: clock.step(frames, now))
        self.tick(time.monotonic())

    def _set_speed(self, name: str) -> None:
        self.session.change_playback(lambda clock, now: clock.set_speed(SPEEDS[name], now))

    def tick(self, now: float) -> None:
        """Let the slider and the button follow the clip."""
        clock = self.session.playback
        assert clock is not None
        moment = clock.at(now)
        if abs(moment - self._shown) > 5e-4:
            self._shown = moment
            show_value(self.slider, round(moment, 3))
        label = "Pause" if clock.is_playing else "Play"
        if self.play.label != label:
            self.play.label = label
            self.play.icon = Icon.PLAYER_PAUSE if clock.is_playing else Icon.PLAYER_PLAY

    def restore(self, query: dict[str, str]) -> None:
        """The moment of a shared link, and how the clip is played."""
        for name, speed in SPEEDS.items():
            if query.get("speed") == to_words(speed):
                show_value(self.speed, name)
        if query.get("loop") == "0":
            show_value(self.loop, False)
        clock = self.session.playback
        assert clock is not None
        moment = number(query, "time", clock.first, clock.last)
        if moment is not None:
            self.session.change_playback(lambda clock, now: clock.seek(moment, now))

    def link(self) -> dict[str, str]:
        """The moment; speed and loop where they are not as the page starts."""
        clock = self.session.playback
        assert clock is not None
        said = {"time": f"{clock.at(time.monotonic()):.3f}"}
        if clock.speed != 1.0:
            said["speed"] = to_words(clock.speed)
        if not clock.loop:
            said["loop"] = "0"
        return said
