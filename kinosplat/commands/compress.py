"""`kinosplat compress`: a trained run as one small .kino file, with a report of every stage.

What compresses is imported when the arguments have been read: `--help` and wrong options are answered at once, and the
report says how long loading the program took.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from kinosplat.compression.config import CompressConfig


@dataclass(frozen=True)
class CompressCommand:
    """Make a trained run small: sample, prune, round by measured loss, fine-tune, and write one .kino file."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    config: CompressConfig = field(default_factory=CompressConfig)
    """How."""
    out: Path | None = None
    """Where to write the file; by default scene.kino in the run's folder."""
    device: str | None = None
    """cpu, cuda, cuda:1, or auto; by default that of the run."""
    json: bool = False
    """Print JSON instead of a table."""


def run(arguments: Sequence[str], program: str) -> int:
    """Compress, write file and report, print the table."""
    began = time.monotonic()
    command = tyro.cli(tyro.conf.OmitArgPrefixes[CompressCommand], args=arguments, prog=program)
    from kinosplat.trainers.compress import FILE, compress_run

    path = command.out or command.run / FILE

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    report = compress_run(command.run, command.config, path=path, device=command.device, say=say, began=began)
    if command.json:
        print(json.dumps({**dataclasses.asdict(report), "loss": report.loss, "ratio": report.ratio, "file": str(path)}))
    else:
        print(report.table())
        print(f"written to {path}")
    return 0
