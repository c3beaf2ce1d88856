"""The Benchmark button: the same orbit, warm-up and figures as `kinosplat bench`, with everybody else waiting."""

from __future__ import annotations

import dataclasses
import html
import json
import threading
from typing import TYPE_CHECKING

from viser import Icon

from kinosplat.render.timing import Timing
from kinosplat.viewer.controls.build import QUIET, PlainPanel, show_value
from kinosplat.viewer.controls.table import milliseconds, note, row, table
from kinosplat.viewer.measure import benchmark
from kinosplat.viewer.stages import STAGE_NAMES

if TYPE_CHECKING:
    from kinosplat.viewer.session import Session

SIZES = {"640 × 480": (640, 480), "1280 × 720": (1280, 720), "1352 × 1014": (1352, 1014), "1920 × 1080": (1920, 1080)}
SMALL = "480 × 360"
N_FRAMES = 200
WARM_UP = 20


class BenchmarkPanel(PlainPanel):
    """Measures the bare renderer."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.running = threading.Lock()
        self.timing: Timing | None = None
        sizes = {SMALL: (480, 360), **SIZES}
        gui = session.client.gui
        with gui.add_folder("Benchmark", expand_by_default=False):
            size = gui.add_dropdown(
                "Size", list(sizes), initial_value=SMALL if session.subject.device.type == "cpu" else "1280 × 720"
            )
            self.start = gui.add_button("Benchmark", icon=Icon.CLOCK_PLAY)
            self.progress = gui.add_progress_bar(0.0, visible=False)
            self.table = gui.add_html("", visible=False)
            self.save = gui.add_button("Save as JSON", icon=Icon.DOWNLOAD, color=QUIET, visible=False)
        self.start.on_click(lambda _: self._run(sizes[size.value]))
        self.save.on_click(lambda _: self._save())

    def _run(self, size: tuple[int, int]) -> None:
        if not self.running.acquire(blocking=False):
            return
        try:
            self.start.disabled = self.progress.visible = True

            def tell(done: int) -> None:
                if done % 10 == 0:
                    show_value(self.progress, 100.0 * done / N_FRAMES)

            with self.session.telling(), self.session.renderer.alone() as subject:
                self.timing = benchmark(subject, *size, n_frames=N_FRAMES, warm_up=WARM_UP, progress=tell)
            if self.timing is not None:
                self.table.content = words(self.timing)
                self.table.visible = self.save.visible = True
        finally:
            self.start.disabled = self.progress.visible = False
            self.running.release()

    def _save(self) -> None:
        if self.timing is not None:
            content = json.dumps(dataclasses.asdict(self.timing), indent=1) + "\n"
            self.session.client.send_file_download("benchmark.json", content.encode(), save_immediately=True)


def words(timing: Timing) -> str:
    """The figures as a table."""
    rows = [
        row("Median", milliseconds(timing.median_ms), css="big"),
        row("Median FPS", f"{timing.fps:.1f}", css="big"),
        row("95 of 100 below", milliseconds(timing.p95_ms)),
        row("99 of 100 below", milliseconds(timing.p99_ms)),
        *(row(STAGE_NAMES[name], milliseconds(value), "part") for name, value in timing.passes_ms.items()),
        row("Picture", f"{timing.width}×{timing.height}"),
        row("Frames", f"{timing.n_frames}"),
        row("Visible, mean", f"{timing.visible:,.0f}"),
        row("In all", f"{timing.n_primitives:,}"),
        row("Device", html.escape(timing.device), css="words"),
        note("colour only, one frame after another; nothing read back, encoded or sent; on a GPU by its own events"),
    ]
    return table(rows)
