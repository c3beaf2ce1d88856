"""What an open page that nobody moves costs training, in one run: pages come and go, and steps are counted meanwhile.

    python benchmarks/viewer_training.py --scene tabletop --windows 8 --seconds 5

Windows without and with a page follow one another, so that a scene that grows, or a machine that is busy, weighs on
both alike. The moments in which a page loads do not count; the pictures it gets of the changing model do.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from headless_page import SETTLING, HeadlessPage

from kinosplat.commands.train import METHODS
from kinosplat.scenes import load_scene
from kinosplat.trainers.callbacks import Callbacks
from kinosplat.trainers.config import ScheduleConfig, TrainConfig
from kinosplat.trainers.method import Method
from kinosplat.trainers.run import train
from kinosplat.trainers.training import scene_for
from kinosplat.viewer.server import ServerOptions
from kinosplat.watching import Watching


@dataclass(frozen=True)
class Arguments:
    """What is trained, and for how long."""

    scene: str = "tabletop"
    """Path or name."""
    method: Literal["3dgs", "4dgs"] = "4dgs"
    """What is learned."""
    windows: int = 8
    """Pairs of one window without and one with a page."""
    seconds: float = 5.0
    """A window, after two seconds that do not count."""
    page: tuple[int, int] = (1280, 720)
    """Size of the page's canvas."""
    device: str = "auto"
    """cpu, cuda, or auto."""


class Enough(Exception):
    """All windows are over."""


class StepCounter(Watching):
    """Notes when each step begins, and for how long pictures held it up."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(
            Callbacks(), lambda: scene_for(config, load_scene(config.scene)), ServerOptions(port=0), lambda line: None
        )
        self.began: list[float] = []
        self.held: list[float] = []
        self.is_enough = threading.Event()

    def pause(self, method: Method, step: int) -> None:
        """Between two steps."""
        if self.is_enough.is_set():
            raise Enough
        came = time.monotonic()
        super().pause(method, step)
        self.began.append(time.monotonic())
        self.held.append(self.began[-1] - came)

    def rate(self, window: tuple[float, float]) -> float:
        """Steps a second in a window, of those that began in it."""
        first, last = (bisect.bisect_left(self.began, moment) for moment in window)
        if last - first < 2:
            return math.nan
        return (last - first - 1) / (self.began[last - 1] - self.began[first])

    def share_held(self, windows: list[tuple[float, float]]) -> float:
        """Part of the windows that steps waited for pictures."""
        held = total = 0.0
        for window in windows:
            first, last = (bisect.bisect_left(self.began, moment) for moment in window)
            held += sum(self.held[first:last])
            total += window[1] - window[0]
        return held / total


def main(arguments: Arguments) -> None:
    """Train, let pages come and go, say what it cost."""
    schedule = ScheduleConfig(steps=1_000_000)
    method = METHODS[arguments.method]()
    config = TrainConfig(scene=arguments.scene, method=method, schedule=schedule, device=arguments.device)
    counter = StepCounter(config)
    windows: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    control = threading.Thread(target=_open_and_close, args=(counter, arguments, windows), daemon=True)
    with tempfile.TemporaryDirectory() as folder:
        control.start()
        try:
            train(config, load_scene(config.scene), Path(folder) / "run", counter)
        except Enough:
            pass
        finally:
            counter.close()
    pairs = [(counter.rate(a), counter.rate(b)) for a, b in zip(windows[False], windows[True], strict=True)]
    slower = [100 * (1 - beside / without) for without, beside in pairs]
    spread = statistics.stdev(slower) / math.sqrt(len(slower)) if len(slower) > 1 else math.nan
    share = [100 * counter.share_held(windows[beside]) for beside in (False, True)]
    print(f"steps waited for pictures {share[0]:.2f}% of the time without, {share[1]:.2f}% with a page")
    print(
        f"mean {statistics.fmean(slower):+.2f}% (standard error {spread:.2f}), median {statistics.median(slower):+.2f}%"
    )


def _open_and_close(counter: StepCounter, arguments: Arguments, windows: dict[bool, list[tuple[float, float]]]) -> None:
    while counter.server is None or len(counter.began) < 20:
        time.sleep(0.05)
    camera = dataclasses.replace(counter.server.subject.cameras[0].resized(*arguments.page), time=None)
    for i in range(arguments.windows):
        # Each second pair the other way round, so that what grows with time weighs on both alike.
        for beside in (False, True) if i % 2 == 0 else (True, False):
            page = HeadlessPage(counter.server.port, [camera], arguments.seconds + SETTLING, 1.0) if beside else None
            while beside and not counter.server.sessions:
                time.sleep(0.02)
            time.sleep(SETTLING)
            began = time.monotonic()
            time.sleep(arguments.seconds)
            windows[beside].append((began, time.monotonic()))
            if page is not None:
                page.seen()
        without, with_page = (counter.rate(windows[beside][-1]) for beside in (False, True))
        print(f"{without:8.2f} steps/s without, {with_page:8.2f} with a page", flush=True)
    counter.is_enough.set()


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
