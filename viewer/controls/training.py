"""Training while one looks: how far it is, pause and resume, and its curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from viser import Icon

from kinosplat.viewer.controls.build import PlainPanel, show_value
from kinosplat.viewer.controls.plot import Line, add_plot
from kinosplat.viewer.controls.table import row, table
from kinosplat.viewer.training import TrainingWatch

if TYPE_CHECKING:
    from kinosplat.viewer.session import Session

EVERY = 0.5
"""Seconds between two updates."""


class TrainingPanel(PlainPanel):
    """Shows a `TrainingWatch`, which all visitors share."""

    def __init__(self, session: Session, watch: TrainingWatch) -> None:
        self.session, self.watch = session, watch
        self._updated = 0.0
        self._n_shown = 0
        gui = session.client.gui
        with gui.add_folder("Training"):
            self.table = gui.add_html(self._html())
            self.progress = gui.add_progress_bar(0.0)
            self.pause = gui.add_button("Pause training", icon=Icon.PLAYER_PAUSE)
            self.plot = add_plot(gui, "step", [Line("PSNR, dB", "#408cff")], visible=False)
        self.pause.on_click(lambda _: self._toggle())

    def _toggle(self) -> None:
        turn = self.watch.turn
        turn.set_paused(not turn.is_paused)
        self._label()

    def _label(self) -> None:
        paused, finished = self.watch.turn.is_paused, self.watch.state == "finished"
        label = "Training is done" if finished else "Resume training" if paused else "Pause training"
        if self.pause.label != label:
            self.pause.label = label
            self.pause.icon = Icon.CHECK if finished else Icon.PLAYER_PLAY if paused else Icon.PLAYER_PAUSE
            self.pause.disabled = finished

    def tick(self, now: float) -> None:
        """Write the numbers down again."""
        self._label()
        if now - self._updated < EVERY:
            return
        self._updated = now
        content = self._html()
        if content != self.table.content:
            self.table.content = content
            show_value(self.progress, 100.0 * self.watch.step / max(self.watch.steps, 1))
        history = list(self.watch.history)
        if len(history) != self._n_shown and len(history) > 1:
            self._n_shown = len(history)
            every = -(-len(history) // 300)
            steps, decibels = np.array(history[::every], dtype=np.float64).T
            self.plot.data = (np.ascontiguousarray(steps), np.ascontiguousarray(decibels))
            self.plot.visible = True

    def _html(self) -> str:
        watch = self.watch
        minutes, seconds = divmod(round(watch.remaining), 60)
        rows = [
            row("Step", f"{watch.step:,} of {watch.steps:,}", css="big"),
            row("PSNR of the last pictures", f"{watch.psnr:.2f} dB"),
            row("Loss", f"{watch.loss:.4f}"),
            row("Steps a second", f"{watch.steps_per_second:.1f}"),
        ]
        if watch.held_out_psnr is not None:
            rows.append(row("PSNR, held out", f"{watch.held_out_psnr:.2f} dB"))
        if watch.state == "running":
            rows.append(row("Time left", f"{minutes}:{seconds:02}"))
        return table(rows)
