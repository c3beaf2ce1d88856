"""`kinosplat compress`: a trained run as one small .kino file, with a report of every stage."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from kinosplat.cli import began
from kinosplat.compression.config import CompressConfig
from kinosplat.trainers.compress import FILE, compress_run


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
    command = tyro.cli(tyro.conf.OmitArgPrefixes[CompressCommand], args=arguments, prog=program)
    path = command.out or command.run / FILE

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    report = compress_run(command.run, command.config, path=path, device=command.device, say=say, began=began())
    if command.json:
        print(json.dumps({**dataclasses.asdict(report), "loss": report.loss, "ratio": report.ratio, "file": str(path)}))
    else:
        print(report.table())
        print(f"written to {path}")
    return 0
