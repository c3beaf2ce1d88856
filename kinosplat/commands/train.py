"""`kinosplat train`: learn a scene, or go on with a run.

`--method`, or the run that `--resume` names, decides which options exist, so it is looked up before the rest is
parsed: `train --method 4dgs --help` shows what 4dgs has. Nothing is written before the scene and the options have
proved usable.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import tyro

from kinosplat.commands.view import PageOptions, need_viser, with_token
from kinosplat.compression.config import CompressConfig, CompressPreset
from kinosplat.display import DisplayKind, RichDisplay, make_display
from kinosplat.errors import InputError, refusing_out_of_memory
from kinosplat.scenes import Scene, load_scene
from kinosplat.trainers.callbacks import Callbacks
from kinosplat.trainers.checkpoint import checkpoint_path
from kinosplat.trainers.compress import FILE, compress_run, summary
from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.interrupt import RunInterrupted
from kinosplat.trainers.methods.registry import METHODS
from kinosplat.trainers.run import Overrides, new_run_dir, read_config, resume, train
from kinosplat.trainers.training import scene_for
from kinosplat.watching import Watching

MethodName = Literal["3dgs", "4dgs", "hashgrid", "hollownerf"]
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class TrainCommand:
    """Learn a scene from calibrated photos or multi-view video; Ctrl-C saves, and --resume goes on."""

    method: MethodName = "4dgs"
    """What to learn: 3dgs (still Gaussians), 4dgs (moving ones), hashgrid (a radiance field) or hollownerf (a sparse
    one). Decides which other options exist."""
    resume: Path | None = None
    """Go on with the run in this folder; of the other options only --steps, --time-limit, --device, --cache-memory,
    --compress and those of the display may be given."""
    out_dir: Path = Path("outputs")
    """Folder of all runs; this one goes to <scene>/<method>/<time> in it."""
    run_dir: Path | None = None
    """Folder of this run, whatever --out-dir is."""
    overwrite: bool = False
    """Delete the run that is in --run-dir, once the new one is ready to begin."""
    display: DisplayKind = "auto"
    """Progress as a live line (rich), plain lines, JSON lines, or none (quiet); auto picks."""
    quiet: bool = False
    """The same as --display quiet."""
    json: bool = False
    """The same as --display json."""
    compress: CompressPreset | None = None
    """Also compress the finished run with this preset: scene.kino in its folder, as `kinosplat compress` makes it."""
    viewer: bool = False
    """Serve a page that shows the model while it learns, with pause and resume; it stays open at the end."""
    page: PageOptions = field(default_factory=PageOptions)
    """Where that page is."""
    config: TrainConfig = field(default_factory=TrainConfig)
    """The run."""


def run(arguments: Sequence[str], program: str) -> int:
    """Parse, train, and say how it went; 130 after Ctrl-C."""
    name = method_of(arguments)
    default = TrainCommand(method=name, config=TrainConfig(method=METHODS[name]()))
    command = _parse(with_token(arguments), program, default)
    display = make_display("json" if command.json else "quiet" if command.quiet else command.display)
    watching: Watching | None = None
    if command.viewer:
        need_viser()
        watching = _watching(command, display)
    callbacks = watching or display
    run_dir: Path | None = None
    try:
        if command.resume is not None:
            run_dir = _resume(command, default, arguments, callbacks)
        else:
            run_dir = _train(command, callbacks)
        if command.compress is not None:
            compression = CompressConfig(preset=command.compress)
            with refusing_out_of_memory(
                f"There is no memory left to compress the run, which is complete in {run_dir}; `kinosplat compress "
                f"{run_dir} --device cpu` makes its file."
            ):
                report = compress_run(run_dir, compression, device=command.config.device, say=display.compressing)
            display.compressed(summary(report, run_dir / FILE, run_dir), report.table())
        if watching is not None:
            watching.stay()
    except KeyboardInterrupt as interrupt:
        _close(display)
        print(_interrupted(interrupt, run_dir), file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        if watching is not None:
            watching.close()
        _close(display)
    return 0


def _parse(arguments: list[str], program: str, default: TrainCommand) -> TrainCommand:
    """The command; a word that belongs to no option is taken for the scene, and how to give that is said."""
    kind = tyro.conf.OmitArgPrefixes[tyro.conf.AvoidSubcommands[TrainCommand]]
    command, strays = tyro.cli(kind, args=arguments, prog=program, default=default, return_unknown_args=True)
    if strays and not strays[0].startswith("-"):
        raise InputError(f"{strays[0]} belongs to no option; name a scene with --scene {strays[0]}.")
    # Of an unknown option tyro itself says which ones have similar names.
    return tyro.cli(kind, args=arguments, prog=program, default=default) if strays else command


def _interrupted(interrupt: KeyboardInterrupt, finished: Path | None) -> str:
    """What Ctrl-C left behind; `finished` is the folder of a run that was complete by then."""
    if finished is not None:
        return f"Interrupted; the run is complete, its file is not: `kinosplat compress {finished}` makes it."
    if not isinstance(interrupt, RunInterrupted):
        return "Interrupted before training began; nothing was written."
    if not checkpoint_path(interrupt.run_dir).exists():
        return f"Interrupted before the first checkpoint; begin again with `--resume {interrupt.run_dir}`."
    return f"Interrupted; the run is saved. Go on with `--resume {interrupt.run_dir}`."


def method_of(arguments: Sequence[str]) -> MethodName:
    """The method that `--method` names; else that of the run to go on with, or the default."""
    given = _value_of("--method", arguments)
    if given is None:
        run_dir = Path(_value_of("--resume", arguments) or "")
        given = read_config(run_dir).method.name if (run_dir / "config.json").exists() else TrainCommand().method
    for name in get_args(MethodName):
        if given == name:
            return name
    raise InputError(f"--method {given} is not known; choose one of {', '.join(get_args(MethodName))}.")


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    """What `arguments` give as `--option VALUE` or `--option=VALUE`; None where they do not."""
    for i, argument in enumerate(arguments):
        if argument == option:
            return next(iter(arguments[i + 1 :]), "")
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
    return None


def _train(command: TrainCommand, display: Callbacks) -> Path:
    config = command.config
    if not config.scene:
        raise InputError("--scene is missing; give the path or the name of a scene (`kinosplat data list` has names).")
    scene = load_scene(config.scene, config.data)
    run_dir = command.run_dir or new_run_dir(command.out_dir, scene.name, config.method.name)
    train(config, scene, run_dir, display, overwrite=command.overwrite)
    return run_dir


def _resume(command: TrainCommand, default: TrainCommand, arguments: Sequence[str], display: Callbacks) -> Path:
    """Resume; options that would have no effect are refused instead of ignored."""
    assert command.resume is not None
    config, schedule = command.config, command.config.schedule
    without_effect = dataclasses.replace(
        config,
        device=default.config.device,
        cache_memory=None,
        schedule=dataclasses.replace(schedule, steps=None, time_limit=None),
    )
    names_method = _value_of("--method", arguments) is not None
    if without_effect != default.config or names_method or command.run_dir is not None or command.overwrite:
        raise InputError(
            "--resume takes its options from the run; only --steps, --time-limit, --device, --cache-memory and those "
            "of the display may be given beside it."
        )
    overrides = Overrides(
        steps=schedule.steps,
        time_limit=schedule.time_limit,
        device=None if config.device == default.config.device else config.device,
        cache_memory=config.cache_memory,
    )
    resume(command.resume, overrides, display)
    return command.resume


def _watching(command: TrainCommand, display: Callbacks) -> Watching:
    """The page beside the run; the scene is read again for it, without pictures, when the first step is due."""
    from kinosplat.viewer.server import ServerOptions

    def scene() -> Scene:
        config = command.config if command.resume is None else read_config(command.resume)
        return scene_for(config, load_scene(config.scene, config.data))

    page = command.page
    options = ServerOptions(page.host, page.port, page.share_token)
    return Watching(display, scene, options, say=lambda line: print(line, file=sys.stderr, flush=True))


def _close(display: Callbacks) -> None:
    if isinstance(display, RichDisplay):
        display.close()
