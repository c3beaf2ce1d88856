"""How a run shows itself: a live line on a terminal, plain lines elsewhere, JSON lines for machines, or nothing.

All of these are `Callbacks` of the trainer; nothing here influences the run. `rendering` shows how far pictures are.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, track
from typing_extensions import assert_never

from kinosplat.trainers.callbacks import Callbacks, RunStart, StepProgress

if TYPE_CHECKING:
    from kinosplat.trainers.evaluate import Evaluation
    from kinosplat.trainers.report import Compressed, Report

DisplayKind = Literal["auto", "rich", "plain", "json", "quiet"]
PLAIN_INTERVAL = 5.0
"""Seconds between plain progress lines, so that a log file stays readable."""


def make_display(kind: DisplayKind) -> Callbacks:
    """The display for stdout; `auto` is `rich` on a terminal and `plain` elsewhere."""
    match kind:
        case "auto":
            return RichDisplay() if sys.stdout.isatty() else PlainDisplay(sys.stdout)
        case "rich":
            return RichDisplay()
        case "plain":
            return PlainDisplay(sys.stdout)
        case "json":
            return JsonDisplay(sys.stdout)
        case "quiet":
            return Callbacks()
        case _:
            assert_never(kind)


Drawn = TypeVar("Drawn")


def rendering(cameras: Sequence[Drawn]) -> Iterable[Drawn]:
    """What is drawn one after the other, with a bar on stderr where that is a terminal."""
    bar = Console(stderr=True)
    return track(cameras, "rendering", console=bar, transient=True, disable=not bar.is_terminal)


def clock(seconds: float) -> str:
    """Seconds as `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _opening(start: RunStart) -> list[str]:
    length = f"{start.steps} steps" if start.time_limit is None else f"{start.steps} steps or {clock(start.time_limit)}"
    begin = "" if start.first_step == 0 else f", going on from step {start.first_step}"
    return [
        f"{start.method} on {start.scene}: {start.n_train} pictures, {start.n_test} held out; {length}{begin}",
        f"first points: {start.points_source}; {start.n_primitives:,} primitives; run folder {start.run_dir}",
    ]


def _status(progress: StepProgress) -> str:
    return (
        f"loss {progress.loss:.4f}  psnr {progress.psnr:5.2f}  {progress.n_primitives:,} primitives  "
        f"{progress.steps_per_second:.1f} it/s  ETA {clock(progress.remaining)}"
    )


def _closing(report: Report) -> list[str]:
    lines = []
    if report.psnr is not None:
        lines.append(f"held out: PSNR {report.psnr:.2f} dB, SSIM {report.ssim:.4f}")
    busy = "" if report.device_utilisation is None else f", busy {report.device_utilisation:.0%} of the training"
    lines.append(
        f"{report.steps} steps in {clock(report.seconds)}, {report.n_primitives:,} primitives, "
        f"{report.bytes / 2**20:.1f} MiB, {report.fps:.0f} FPS on {report.device}{busy}"
    )
    return lines


def _file_line(compressed: Compressed) -> str:
    return f"compressed to {compressed.file}: {compressed.bytes:,} bytes, {compressed.psnr:.2f} dB"


class RichDisplay(Callbacks):
    """One live line at the bottom of the terminal; everything else scrolls above it."""

    def __init__(self, console: Console | None = None) -> None:
        """`console` is where to draw; stdout by default."""
        self._console = console or Console(highlight=False)
        self._bar = Progress(
            TextColumn("{task.completed}/{task.total}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=self._console,
        )
        self._task = self._bar.add_task("waiting for the first steps", total=None)

    def started(self, start: RunStart) -> None:
        """Print what is about to happen and show the bar."""
        for line in _opening(start):
            self._console.print(escape(line))
        self._bar.update(self._task, total=start.steps, completed=start.first_step)
        self._bar.start()

    def stepped(self, progress: StepProgress) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=progress.step, description=_status(progress))

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Print a held-out measurement."""
        self._console.print(f"step {step}: held-out PSNR {evaluation.psnr:.2f} dB, SSIM {evaluation.ssim:.4f}")

    def warned(self, text: str) -> None:
        """Print a warning."""
        self._console.print(f"[yellow]{escape(text)}[/yellow]")

    def finished(self, report: Report) -> None:
        """Print the result."""
        self.close()
        for line in _closing(report):
            self._console.print(f"[bold]{escape(line)}[/bold]")

    def compressing(self, line: str) -> None:
        """Print a stage."""
        self._console.print(escape(line))

    def compressed(self, compressed: Compressed, table: str) -> None:
        """Print the table and where the file is."""
        self._console.print(escape(table))
        self._console.print(f"[bold]{escape(_file_line(compressed))}[/bold]")

    def close(self) -> None:
        """Take the bar down, also after an interruption."""
        self._bar.stop()


class PlainDisplay(Callbacks):
    """A line every few seconds, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        """`stream` is where the lines go."""
        self._stream = stream
        self._last = -PLAIN_INTERVAL
        self._steps = 0

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def started(self, start: RunStart) -> None:
        """Print what is about to happen."""
        self._steps = start.steps
        for line in _opening(start):
            self._print(line)

    def stepped(self, progress: StepProgress) -> None:
        """Print a progress line, but not more often than every PLAIN_INTERVAL seconds."""
        now = time.monotonic()
        if now - self._last >= PLAIN_INTERVAL:
            self._last = now
            self._print(f"{progress.step}/{self._steps}  {_status(progress)}")

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Print a held-out measurement."""
        self._print(f"step {step}: held-out PSNR {evaluation.psnr:.2f} dB, SSIM {evaluation.ssim:.4f}")

    def warned(self, text: str) -> None:
        """Print a warning."""
        self._print(f"warning: {text}")

    def finished(self, report: Report) -> None:
        """Print the result."""
        for line in _closing(report):
            self._print(line)

    def compressing(self, line: str) -> None:
        """Print a stage."""
        self._print(line)

    def compressed(self, compressed: Compressed, table: str) -> None:
        """Print the table and where the file is."""
        self._print(f"{table}\n{_file_line(compressed)}")


class JsonDisplay(Callbacks):
    """One JSON object a line: `{"event": "stepped", …}`; paths become strings."""

    def __init__(self, stream: TextIO) -> None:
        """`stream` is where the lines go."""
        self._stream = stream

    def _emit(self, event: str, content: dict[str, Any]) -> None:
        print(json.dumps({"event": event, **content}, default=_plain), file=self._stream, flush=True)

    def started(self, start: RunStart) -> None:
        """Emit every field of the start."""
        self._emit("started", dataclasses.asdict(start))

    def stepped(self, progress: StepProgress) -> None:
        """Emit every field of the progress."""
        self._emit("stepped", dataclasses.asdict(progress))

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Emit the means of a held-out measurement."""
        self._emit("evaluated", {"step": step, "psnr": evaluation.psnr, "ssim": evaluation.ssim})

    def saved(self, step: int, path: Path) -> None:
        """Emit where a checkpoint went."""
        self._emit("saved", {"step": step, "path": path})

    def warned(self, text: str) -> None:
        """Emit a warning."""
        self._emit("warned", {"text": text})

    def finished(self, report: Report) -> None:
        """Emit the whole report."""
        self._emit("finished", dataclasses.asdict(report))

    def compressing(self, line: str) -> None:
        """Emit a stage."""
        self._emit("compressing", {"text": line})

    def compressed(self, compressed: Compressed, table: str) -> None:
        """Emit what the report says of the file."""
        self._emit("compressed", dataclasses.asdict(compressed))


def _plain(value: object) -> str:
    return str(value)
