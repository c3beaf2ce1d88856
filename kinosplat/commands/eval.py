"""`kinosplat eval`: measure a run again on its held-out views, and write a table with a line for each.

With `--mesh` a mesh is measured instead, against points on the true surface (compression/mesh/chamfer.py).
"""

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

from kinosplat.commands.marching import march
from kinosplat.compression.mesh.chamfer import CAP, SPACING, Chamfer, chamfer, read_observed
from kinosplat.compression.mesh.mesh import Points, read_mesh, read_points
from kinosplat.data.ground_truth import POINTS_CAP, POINTS_SPACING, load_ground_truth
from kinosplat.errors import InputError
from kinosplat.render.field.march import MarchBy
from kinosplat.scenes import Scene
from kinosplat.trainers.evaluate import Evaluation, evaluate, spread
from kinosplat.trainers.methods.option_checks import at_least
from kinosplat.trainers.run import load_run
from kinosplat.trainers.training import settle

OF_MESHES = ("truth", "observed", "spacing", "cap", "time")
"""Options that do nothing to pictures."""


@dataclass(frozen=True)
class EvalCommand:
    """Measure a run on its held-out views: 8-bit rounding, PSNR averaged over pictures, SSIM with an 11x11 window; or a
    mesh by the Chamfer protocol of DTU.
    """

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
    mesh: Path | None = None
    """Measure this mesh (PLY, in the frame of the input, as `export --format mesh` writes it) instead of pictures."""
    truth: Path | None = None
    """True points for --mesh (PLY), such as DTU's stl024_total.ply; by default those that come with the scene."""
    observed: tuple[Path, Path] | None = None
    """DTU's ObsMask24_10.mat and Plane24.mat: where the scan saw anything, and the table."""
    spacing: float | None = None
    """Points that stand for the mesh are at least so far apart, units of the input; by default DTU's 0.2 (mm), of the
    points that come with a scene 0.01 (m)."""
    cap: float | None = None
    """Distances of this and more do not count, units of the input; by default DTU's 20 (mm), of the points that come
    with a scene 0.2 (m)."""
    time: float | None = None
    """Moment of the clip that the mesh shows, seconds; by default the first."""
    march: MarchBy = "rays"
    """How pictures of a field find their samples: along each ray, or by the occupied blocks of cells (of objects),
    pass by pass and not in one go."""
    device: str = "auto"
    """cpu, cuda, cuda:1, or auto."""
    json: bool = False
    """Print JSON instead of a table."""


def run(arguments: Sequence[str], program: str) -> int:
    """Measure, write the table, print it."""
    command = tyro.cli(EvalCommand, args=arguments, prog=program)
    if command.max_views is not None:
        at_least("--max-views", command.max_views, 1)
    if command.mesh is not None:
        return _measure_mesh(command, command.mesh)
    for name in OF_MESHES:
        if getattr(command, name) is not None:
            raise InputError(f"--{name} says something of a --mesh only; leave it out.")
    loaded = load_run(command.run, command.checkpoint, command.device)
    march(loaded.method, command.march)
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


def _measure_mesh(command: EvalCommand, path: Path) -> int:
    is_own = command.truth is None
    spacing = (POINTS_SPACING if is_own else SPACING) if command.spacing is None else command.spacing
    cap = (POINTS_CAP if is_own else CAP) if command.cap is None else command.cap
    if not 0 < spacing < cap:
        raise InputError(f"--spacing must be above 0 and below --cap, got {spacing:g} and {cap:g}.")
    mesh, truth = read_mesh(path), _true_points(command) if command.truth is None else read_points(command.truth)
    observed = None if command.observed is None else read_observed(*command.observed)
    measured = chamfer(mesh, truth, spacing=spacing, cap=cap, observed=observed)
    if command.json:
        print(json.dumps(dataclasses.asdict(measured)))
    else:
        _print_mesh(measured, path)
    return 0


def _true_points(command: EvalCommand) -> Points:
    """Points on the true surfaces that come with the scene, those that training cameras see."""
    scene: Scene = load_run(command.run, command.checkpoint, "cpu").scene()
    folder = scene.root / "evaluation"
    if not (folder / "points.npz").exists():
        raise InputError(f"{scene.root} has no true points beside it; give them with --truth.")
    truth = load_ground_truth(folder)
    moment = command.time if command.time is not None else scene.times[0] if scene.times else 0.0
    frame = min(max(round(moment * (scene.fps or 1.0)), 0), truth.n_frames - 1)
    points: Points = truth.points(frame)[truth.is_visible(frame) & truth.is_present(frame)]
    return points


def _print_mesh(measured: Chamfer, path: Path) -> None:
    table = Table("accuracy", "completeness", "mean")
    table.add_row(*(f"{value:.4g}" for value in (measured.accuracy, measured.completeness, measured.mean)))
    Console(highlight=False).print(table)
    print(
        f"{path}: {measured.n_mesh:,} points at least {measured.spacing:g} apart, {measured.n_truth:,} true ones; "
        f"distances below {measured.cap:g} count"
    )


def _print(evaluation: Evaluation, title: str) -> None:
    masked = evaluation.psnr_masked is not None
    table = Table("view", "PSNR dB", "SSIM", *(["PSNR in mask"] if masked else []))
    rows = [(view.name, view.psnr, view.ssim, view.psnr_masked) for view in evaluation.views]
    for name, psnr, ssim, inside in [*rows, ("mean", evaluation.psnr, evaluation.ssim, evaluation.psnr_masked)]:
        extra = [] if not masked else ["" if inside is None else f"{inside:.2f}"]
        table.add_row(name, f"{psnr:.2f}", f"{ssim:.4f}", *extra)
    Console(highlight=False).print(table)
    print(title)
