"""metrics.jsonl: one JSON object a line, in order of steps; and TensorBoard events, if asked for.

Lines with `"kind": "train"` are written every `log_every` steps, `"kind": "test"` at evaluations. When a run resumes,
lines of steps that the checkpoint does not contain are taken away, so that the file is one curve whatever happened in
between.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from kinosplat.errors import InputError
from kinosplat.trainers.checkpoint import write_atomically


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line cut off by a crash is left out, a missing file has none."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


class Recorder:
    """Context manager that appends to the metrics of a run."""

    def __init__(self, run_dir: Path, step: int, tensorboard: bool) -> None:
        """`step` is the number of steps done; what was recorded beyond it is dropped."""
        path = run_dir / "metrics.jsonl"
        kept = [line for line in read_metrics(path) if line.get("step", 0) <= step]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = path.open("a")
        self._board: Any = None
        if tensorboard:
            self._board = _tensorboard_writer(run_dir, step)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, kind: str, step: int, values: dict[str, float | int]) -> None:
        """Append one line; `step` is the number of steps done. A full disk is an InputError."""
        try:
            self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"{self._file.name} could not be written ({error.strerror}); make room there and resume the run."
            ) from error
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)


def _tensorboard_writer(run_dir: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "--tensorboard needs the package tensorboard; install it with `pip install kinosplat[tensorboard]`."
        ) from error
    return SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)
