"""`kinosplat info`: what a run folder, a file or a scene holds, in a few lines or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from kinosplat.compression.canonical import clip_seconds
from kinosplat.compression.formats import CHECKPOINTS, READERS, import_scene
from kinosplat.compression.hollow import KIND as FIELD
from kinosplat.compression.hollow import load_field
from kinosplat.compression.kino import describe as describe_kino
from kinosplat.compression.kino import facts_of, read_kino
from kinosplat.compression.kino.describe import value_words
from kinosplat.scenes import Scene, load_scene
from kinosplat.trainers.checkpoint import BEST, LAST, checkpoint_path
from kinosplat.trainers.run import load_run


@dataclass(frozen=True)
class InfoCommand:
    """Explain a run folder, a file of Gaussians or of a field, or a scene."""

    what: Annotated[str, tyro.conf.Positional]
    """Folder of a run, a file that `kinosplat import` or `kinosplat view` takes, or path or name of a scene."""
    json: bool = False
    """Print JSON instead of lines."""


def run(arguments: Sequence[str], program: str) -> int:
    """Find out what it is and describe it."""
    command = tyro.cli(InfoCommand, args=arguments, prog=program)
    path = Path(command.what).expanduser()
    if path.suffix.lower() == ".kino":
        file = read_kino(path)
        if file.kind == FIELD:
            load_field(file, str(path), torch.device("cpu"))  # refuses what does not fit together
        print(json.dumps(facts_of(path)) if command.json else describe_kino(path))
        return 0
    if (path / "config.json").exists():
        facts = describe_run(path)
    elif path.suffix.lower() in {*READERS, *CHECKPOINTS}:
        facts = describe_file(path)
    else:
        facts = describe_scene(load_scene(command.what))
    if command.json:
        print(json.dumps(facts))
        return 0
    table = Table(show_header=False, box=None)
    for key, value in _rows(facts):
        table.add_row(key, value)
    Console(highlight=False).print(table)
    return 0


def _rows(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Lines for people: objects within are unfolded, and what is not known is left out."""
    for key, value in facts.items():
        words = f"{before}{key.removeprefix('n_').replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _rows(value, "" if key == "facts" else f"{words} ")
        elif value is not None:
            yield words, value_words(value)


def describe_file(path: Path) -> dict[str, Any]:
    """Facts about a file that another tool may have written."""
    imported = import_scene(path)
    gaussians, metadata = imported.gaussians, imported.metadata
    facts: dict[str, Any] = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "gaussians": len(gaussians),
        "moving": 0 if gaussians.log_durations is None else int(torch.isfinite(gaussians.log_durations).sum()),
        "sh_degree": gaussians.sh_degree,
    }
    if len(gaussians):
        facts |= {"from": gaussians.means.amin(dim=0).tolist(), "to": gaussians.means.amax(dim=0).tolist()}
    if gaussians.is_moving:
        facts["seconds"] = round(clip_seconds(gaussians, metadata.duration), 4)
    return facts | {key: value for key, value in metadata.to_json().items() if key != "duration"}


def describe_scene(scene: Scene) -> dict[str, Any]:
    """Facts about a scene, without loading its pictures."""
    sizes = sorted({(view.camera.width, view.camera.height) for view in scene.views})
    facts: dict[str, Any] = {
        "scene": scene.name,
        "folder": str(scene.root),
        "format": scene.format,
        "cameras": len({view.camera_index for view in scene.views}),
        "training_views": len(scene.train),
        "held_out_views": len(scene.test),
        "split": scene.split,
        "pictures": ", ".join(f"{width}x{height}" for width, height in sizes) + f" ({scene.resolution_note})",
        "masks": sum(view.mask is not None for view in scene.views),
        "first_points": 0 if scene.points is None else len(scene.points),
        "scale_to_input": scene.to_input.scale,
    }
    if scene.is_moving:
        facts |= {"frames": len(scene.times), "seconds": round(scene.duration, 4), "fps": scene.fps}
    return facts


def describe_run(run_dir: Path) -> dict[str, Any]:
    """Facts about a run: its checkpoints, and its report once there is one."""
    loaded = load_run(run_dir, LAST, "cpu")
    report = run_dir / "report.json"
    return {
        "run": str(run_dir),
        "method": loaded.method.name,
        "scene": loaded.config.scene,
        "steps": loaded.step,
        "n_primitives": loaded.method.n_primitives,
        "bytes": loaded.method.n_bytes,
        "checkpoints": ", ".join(which for which in (LAST, BEST) if checkpoint_path(run_dir, which).exists()),
        "finished": report.exists(),
        **(json.loads(report.read_text()) if report.exists() else {}),
    }
