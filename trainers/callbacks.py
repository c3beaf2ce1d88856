"""What a run tells whoever watches: a progress bar, plain lines, JSON, a viewer.

Every method may be overridden alone. All are called from the thread that trains, between steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from kinosplat.trainers.batch import MaskUse
    from kinosplat.trainers.evaluate import Evaluation
    from kinosplat.trainers.method import Method
    from kinosplat.trainers.report import Compressed, Report


@dataclass(frozen=True)
class RunStart:
    """A run, or its next session, begins."""

    scene: str
    """Name of the scene."""
    method: str
    """Name of the method."""
    run_dir: Path
    """Folder of the run."""
    first_step: int
    """0, or where a resumed run goes on."""
    steps: int
    """Steps the whole run is to have."""
    time_limit: float | None
    """Seconds the whole run may take, if it is bounded by time."""
    n_train: int
    """Pictures to learn from."""
    n_test: int
    """Held-out pictures."""
    n_primitives: int
    """Gaussians at the start."""
    points_source: str
    """Where the first points came from, in words."""
    background: Callable[[], Tensor]
    """The (3,) colour that held-out views are drawn over, as it is when it is called."""
    mask_use: MaskUse
    """What masks mean when held-out views are measured."""


@dataclass(frozen=True)
class StepProgress:
    """How training stands; every `log_every` steps."""

    step: int
    """Steps done."""
    progress: float
    """Fraction of the run that is over, by steps or by time."""
    loss: float
    """Of the last step, all terms together."""
    psnr: float
    """dB, of the pictures of the last step."""
    n_primitives: int
    """Gaussians now."""
    elapsed: float
    """Seconds since the run began, over all its sessions."""
    steps_per_second: float
    """Since the last report."""
    remaining: float
    """Seconds until the end, as far as one can tell."""
    n_dropped_rows: int
    """Rows (Gaussians) that lost a step to a gradient that was not finite, since the run began."""
    summary: dict[str, float]
    """A few numbers of the method's own."""


class Callbacks:
    """Listens and does nothing; override what is of interest."""

    def started(self, start: RunStart) -> None:
        """Training is about to begin."""

    def stepped(self, progress: StepProgress) -> None:
        """Another `log_every` steps are done."""

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Held-out views were measured."""

    def saved(self, step: int, path: Path) -> None:
        """The checkpoint of `step` was written, which may be some steps ago."""

    def warned(self, text: str) -> None:
        """Something the user should know, in one sentence."""

    def finished(self, report: Report) -> None:
        """The run is complete and its report is written."""

    def compressing(self, line: str) -> None:
        """A stage of the compression that follows training is done, in words."""

    def compressed(self, compressed: Compressed, table: str) -> None:
        """The file is written; `table` has a line for every stage."""

    def pause(self, method: Method, step: int) -> None:
        """Called before every step: may block while a viewer holds training; that time does not count."""
