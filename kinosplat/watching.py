"""`train --viewer`: the page beside a run, told of everything by the trainer's callbacks.

The page opens at the first step, when there is something to see. It changes nothing about the run: rendering happens
between steps and draws no random numbers, and the time it takes does not count.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from kinosplat.scenes import Scene
from kinosplat.subjects import MethodSubject
from kinosplat.trainers.callbacks import Callbacks, RunStart, StepProgress
from kinosplat.viewer.training import TrainingWatch

if TYPE_CHECKING:
    from kinosplat.trainers.evaluate import Evaluation
    from kinosplat.trainers.method import Method
    from kinosplat.trainers.report import Report
    from kinosplat.viewer.server import ServerOptions, ViewerServer


class Watching(Callbacks):
    """Passes everything on to the display, and shows it on a page."""

    def __init__(
        self, display: Callbacks, scene: Callable[[], Scene], options: ServerOptions, say: Callable[[str], None]
    ) -> None:
        """`scene` gives the scene as the method sees it; `say` prints where the page is."""
        self._display, self._scene, self._options, self._say = display, scene, options, say
        self._watch = TrainingWatch()
        self._start: RunStart | None = None
        self.server: ViewerServer | None = None

    def started(self, start: RunStart) -> None:
        """Remember what it is."""
        self._start = start
        self._watch.step, self._watch.steps = start.first_step, start.steps
        self._display.started(start)

    def pause(self, method: Method, step: int) -> None:
        """Open the page if it is not open yet; let in who waits; stay while paused."""
        if self.server is None:
            self._open(method)
        self._watch.step = step
        self._watch.turn.pass_by()
        self._display.pause(method, step)

    def _open(self, method: Method) -> None:
        from kinosplat.viewer.server import ViewerServer

        assert self._start is not None
        start, watch = self._start, self._watch
        subject = MethodSubject(
            f"{start.scene} · {start.method}",
            method,
            self._scene(),
            start.background,
            start.mask_use,
            start.run_dir,
            watch.turn,
            lambda: watch.step,
        )
        self.server = ViewerServer(subject, self._options, watch)
        for line in self.server.announcement():
            self._say(line)
        self._resume_at_interrupt()

    def _resume_at_interrupt(self) -> None:
        """Let Ctrl-C end a pause too: the loop notes it and saves only after the step that waits."""
        noted = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(noted):
            return

        def interrupt(number: int, frame: FrameType | None) -> None:
            self._watch.turn.set_paused(False)
            noted(number, frame)

        signal.signal(signal.SIGINT, interrupt)

    def stepped(self, progress: StepProgress) -> None:
        """Numbers for the panel."""
        watch = self._watch
        watch.loss, watch.psnr = progress.loss, progress.psnr
        watch.steps_per_second, watch.remaining = progress.steps_per_second, progress.remaining
        watch.history.append((progress.step, progress.psnr))
        self._display.stepped(progress)

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """One more number."""
        self._watch.held_out_psnr = evaluation.psnr
        self._display.evaluated(step, evaluation)

    def saved(self, step: int, path: Path) -> None:
        """Nothing to show."""
        self._display.saved(step, path)

    def warned(self, text: str) -> None:
        """For everybody who is there."""
        if self.server is not None:
            for session in self.server.sessions:
                session.tell("Training", text, color="yellow")
        self._display.warned(text)

    def finished(self, report: Report) -> None:
        """The model stays as it is."""
        self._watch.step, self._watch.state = report.steps, "finished"
        self._watch.turn.end()
        self._display.finished(report)

    def stay(self) -> None:
        """Until Ctrl-C, so that the result can be looked at."""
        if self.server is not None:
            self._say("The page stays open; Ctrl-C ends it.")
            try:
                self.server.wait()
            except KeyboardInterrupt:
                self._say("The page is closed.")

    def close(self) -> None:
        """End the page, also after an error."""
        self._watch.turn.end()
        if self.server is not None:
            self.server.stop()
