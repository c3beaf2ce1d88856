"""Numbers while one looks: frames a second of two kinds, milliseconds of each stage, Gaussians, a plot of frames."""

from __future__ import annotations

import html
import time
from typing import TYPE_CHECKING, get_args

from kinosplat.render.pass_times import PASSES
from kinosplat.render.timing import device_words
from kinosplat.viewer.census import Census
from kinosplat.viewer.controls.build import PlainPanel
from kinosplat.viewer.controls.plot import Line, add_plot
from kinosplat.viewer.controls.table import milliseconds, note, rate, row, table
from kinosplat.viewer.stages import STAGE_NAMES, STAGE_WORDS, Stage

if TYPE_CHECKING:
    from kinosplat.viewer.session import Session

EVERY = 0.5
"""Seconds between two updates."""
N_PLOTTED = 100


class StatisticsPanel(PlainPanel):
    """Shows the session's `FrameMeter`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.census = Census(session.renderer)
        self._updated = 0.0
        self._n_shown = -1
        self._device = device_words(session.subject.device)
        with session.subject.turn():
            self._has_passes = session.subject.gaussians() is not None
        gui = session.client.gui
        with gui.add_folder("Frames"):
            self.rates = gui.add_html(self._rates())
            lines = [Line("render ms", "#408cff"), Line("input to page ms", "#ffb347", width=1)]
            self.plot = add_plot(gui, "frame", lines)
            self.table = gui.add_html(self._stages())

    def tick(self, now: float) -> None:
        """Write the numbers down again if there are new ones."""
        if now - self._updated < EVERY:
            return
        self._updated = now
        self.census.ask(self.session.shown_version, self.session.moment(now))
        for element, content in ((self.rates, self._rates()), (self.table, self._stages())):
            if content != element.content:
                element.content = content
        meter = self.session.stream.meter
        if meter.n_confirmed != self._n_shown and meter.n_confirmed > 1:
            self._n_shown = meter.n_confirmed
            numbers, render, latency = meter.history(N_PLOTTED)
            self.plot.data = (numbers, render, latency)

    def close(self) -> None:
        """Count no more."""
        self.census.close()

    def _rates(self) -> str:
        meter = self.session.stream.meter
        rows = [
            row("Render FPS", rate(meter.render_fps()), css="big"),
            note("as fast as pictures of this size could be rendered, one after another"),
            row("Delivered FPS", rate(meter.delivered_fps(time.monotonic())), css="big"),
            note("pictures this page confirmed in the last 2 s; 0 while nothing changes"),
        ]
        return table(rows)

    def _stages(self) -> str:
        meter = self.session.stream.meter
        last = meter.last()
        rows = []
        for stage in get_args(Stage):
            css = "part" if stage in PASSES else ""
            if css and not self._has_passes:
                continue
            rows += [row(STAGE_NAMES[stage], milliseconds(meter.median_ms(stage)), css), note(STAGE_WORDS[stage], css)]
        rows += [
            row("Input to page", milliseconds(meter.median_ms("latency"))),
            note("from the input's arrival here to the page's confirmation; not the way of the input, nor the screen"),
        ]
        if last is not None:
            rows.append(row("Picture", f"{last.width}×{last.height}, {last.n_bytes / 1024:.0f} KiB"))
            # A method's own picture, such as of occupied cells, takes none.
            if last.n_visible:
                rows.append(row("Gaussians visible" if self._has_passes else "Samples taken", f"{last.n_visible:,}"))
        census = self.census
        if census.alive is not None:
            rows.append(row("Gaussians alive now", f"{census.alive:,}"))
        if census.total is not None:
            rows.append(row("Gaussians in all" if self._has_passes else "Entries in all", f"{census.total:,}"))
        rows += [row("Device", html.escape(self._device), css="words")]
        return table(rows)
