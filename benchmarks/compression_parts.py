"""Where `kinosplat compress` spends its seconds: tuning, scores, palettes, probes, writing, measuring.

    python benchmarks/compression_parts.py RUN --target-sizes 1.5MB 0.8MB --max-losses 0.15dB --tune-steps 500 250

Restores the run once and compresses it for every bound and every number of tuning steps; each part is timed between
two waits for the device, so the sum is a little more than what an undisturbed command takes. The first compression in
a process also pays for starting the device's libraries.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from kinosplat.compression import bits, pipeline, quantised, rounding
from kinosplat.compression.config import CompressConfig
from kinosplat.compression.kino import read_kino
from kinosplat.scenes import FrameLoader, load_scene
from kinosplat.trainers.compress import compress_training
from kinosplat.trainers.compress_pictures import StagePictures
from kinosplat.trainers.run import read_config
from kinosplat.trainers.training import Training, restore, scene_for

DECODES = 3
"""Times that each file is read."""


@dataclass(frozen=True)
class Arguments:
    """What to compress, and how."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run of 3dgs or 4dgs."""
    target_sizes: tuple[str, ...] = ("1.5MB",)
    """Bounds on the size."""
    max_losses: tuple[str, ...] = ()
    """Bounds on the loss."""
    tune_steps: tuple[int, ...] = ()
    """Numbers of tuning steps to try with each bound; by default what compression takes."""
    out: Path = Path("outputs/compression")
    """Where files are written."""


class Parts:
    """Seconds and calls (of tuning: steps) by part; what is inside another part counts in both."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        for module in (pipeline, rounding):
            self._time(module, "score")
        self._time(rounding, "measure_options")
        self._time(bits, "appearance_options")
        self._time(bits.Probe, "mse")
        self._time(quantised, "write_kino")
        self._time(FrameLoader, "fill_device")
        self._time(StagePictures, "evaluate")
        kinds = {"TunableSet": "tune", "QuantisedGaussians": "tune through rounding"}
        self._time(StagePictures, "fine_tune", lambda tunable, steps: (kinds[type(tunable).__name__], steps))

    def _time(self, owner: Any, name: str, label: Callable[[Any, int], tuple[str, int]] | None = None) -> None:
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*arguments: Any, **keywords: Any) -> Any:
            part, count = (name, 1) if label is None else label(*arguments[-2:])
            began = clock()
            try:
                return function(*arguments, **keywords)
            finally:
                self.seconds[part] += clock() - began
                self.calls[part] += count

        setattr(owner, name, timed)

    def __str__(self) -> str:
        most = self.seconds.most_common()
        return ", ".join(f"{part} {seconds:.2f} s ({self.calls[part]})" for part, seconds in most)


def clock() -> float:
    """Seconds, once the device has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def main(arguments: Arguments) -> None:
    """Compress for every bound and number of steps."""
    run_config = read_config(arguments.run)
    scene = scene_for(run_config, load_scene(run_config.scene, run_config.data))
    training = restore(run_config, scene, arguments.run)
    parts = Parts()
    bounds = [CompressConfig(target_size=size) for size in arguments.target_sizes]
    bounds += [CompressConfig(max_loss=loss) for loss in arguments.max_losses]
    for bound in bounds:
        for steps in arguments.tune_steps or (None,):
            config = replace(bound, tune_steps=steps)
            measure(training, config, arguments.out / "parts.kino", parts)


def measure(training: Training, config: CompressConfig, path: Path, parts: Parts) -> None:
    """One compression, and what it took."""
    parts.seconds.clear()
    parts.calls.clear()
    began = clock()
    report = compress_training(training, config, path=path)
    seconds = clock() - began
    words = " ".join(str(word) for word in (config.target_size or config.max_loss, config.tune_steps) if word)
    in_stages = sum(stage.seconds for stage in report.stages)
    print(f"== {words}: {seconds:.1f} s, {in_stages:.1f} s of them in stages\n{report.table()}\n{parts}", flush=True)
    for _ in range(DECODES):
        wall, cpu = time.perf_counter(), time.process_time()
        read_kino(path)
        print(
            f"decoded in {time.perf_counter() - wall:.3f} s, {time.process_time() - cpu:.3f} s of CPU time", flush=True
        )


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
