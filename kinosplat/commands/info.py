"""`kinosplat info`: what a run folder, a .kino file or a scene holds, in a few lines or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from kinosplat.compression.kino import describe as describe_kino
from kinosplat.scenes import Scene, load_scene
from kinosplat.trainers.checkpoint import BEST, LAST, checkpoint_path
from kinosplat.trainers.run import load_run


@dataclass(frozen=True)
class InfoCommand:
    """Explain a run folder, a .kino file or a scene."""

    what: Annotated[str, tyro.conf.Positional]
    """Folder of a run, a .kino file, or path or name of a scene."""
    json: bool = False
    """Print JSON instead of lines."""


def run(arguments: Sequence[str], program: str) -> int:
    """Find out what it is and describe it."""
    command = tyro.cli(InfoCommand, args=arguments, prog=program)
    path = Path(command.what).expanduser()
    if path.suffix.lower() == ".kino":
        print(describe_kino(path))
        return 0
    facts = describe_run(path) if (path / "config.json").exists() else describe_scene(load_scene(command.what))
    if command.json:
        print(json.dumps(facts))
        return 0
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        table.add_row(key.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    Console(highlight=False).print(table)
    return 0


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
        "primitives": loaded.method.n_primitives,
        "bytes": loaded.method.n_bytes,
        "checkpoints": ", ".join(which for which in (LAST, BEST) if checkpoint_path(run_dir, which).exists()),
        "finished": report.exists(),
        **(json.loads(report.read_text()) if report.exists() else {}),
    }
