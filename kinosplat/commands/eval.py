"""`kinosplat eval`: measure a run again on its held-out views, and write a table with a line for each."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from kinosplat.errors import InputError
from kinosplat.trainers.evaluate import Evaluation, evaluate, spread
from kinosplat.trainers.run import load_run
from kinosplat.trainers.training import settle


@dataclass(frozen=True)
class EvalCommand:
    """Measure a run on its held-out views: 8-bit rounding, PSNR averaged over pictures, SSIM with an 11x11 window."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    checkpoint: Literal["last", "best"] = "last"
    """Which checkpoint of the run."""
    views: Literal["test", "train"] = "test"
    """Held-out views, or those it was trained on."""
    max_views: int | None = None
    """At most this many views, spread evenly."""
    renders: Path | None = None
    """Save renderings, alone and beside the truth, in this folder."""
    table: Path | None = None
    """Where to write the table as CSV; by default eval_<views>.csv in the run's folder."""
    device: str = "auto"
    """cpu, cuda, cuda:1, or auto."""
    json: bool = False
    """Print JSON instead of a table."""


def run(arguments: Sequence[str], program: str) -> int:
    """Measure, write the table, print it."""
    command = tyro.cli(EvalCommand, args=arguments, prog=program)
    loaded = load_run(command.run, command.checkpoint, command.device)
    scene = loaded.scene()
    views = spread(scene.test if command.views == "test" else scene.train, command.max_views)
    if not views:
        raise InputError(f"{command.run} has no {command.views} views; choose --views train.")
    evaluation = evaluate(
        loaded.method,
        views,
        loaded.background,
        mask_use=settle(loaded.config, scene).image.settled_mask_use,
        renders_dir=command.renders,
    )
    path = command.table or command.run / f"eval_{command.views}.csv"
    evaluation.write_table(path)
    if command.json:
        print(json.dumps(dataclasses.asdict(evaluation)))
    else:
        _print(evaluation, f"{scene.name}, {command.views} views, step {loaded.step}; table in {path}")
    return 0


def _print(evaluation: Evaluation, title: str) -> None:
    masked = evaluation.psnr_masked is not None
    table = Table("view", "PSNR dB", "SSIM", *(["PSNR in mask"] if masked else []), caption=title)
    rows = [(view.name, view.psnr, view.ssim, view.psnr_masked) for view in evaluation.views]
    for name, psnr, ssim, inside in [*rows, ("mean", evaluation.psnr, evaluation.ssim, evaluation.psnr_masked)]:
        extra = [] if not masked else ["" if inside is None else f"{inside:.2f}"]
        table.add_row(name, f"{psnr:.2f}", f"{ssim:.4f}", *extra)
    Console(highlight=False).print(table)
