"""`kinosplat data list|info|download`: the scenes that are known by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn
from rich.table import Table
from typing_extensions import assert_never

from kinosplat.scenes.load import known_scenes
from kinosplat.scenes.registry import download_folder, download_scene, registered_scene, registered_scenes


@dataclass(frozen=True)
class ListCommand:
    """List the scenes that are known by name, and which of them are here."""

    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class InfoCommand:
    """Say what a known scene shows, under what licence, and where it comes from."""

    name: Annotated[str, tyro.conf.Positional]
    """Name of the scene."""
    json: bool = False
    """Print JSON instead of lines."""


@dataclass(frozen=True)
class DownloadCommand:
    """Download a known scene, check it, and unpack it; an interrupted download goes on where it stopped."""

    name: Annotated[str, tyro.conf.Positional]
    """Name of the scene."""
    folder: Path | None = None
    """Where scenes are kept; by default $KINOSPLAT_DATA, where --scene finds them by name."""
    allow_unverified: bool = False
    """Download also when the publisher gives no checksum."""
    keep_archive: bool = False
    """Keep the archive after unpacking."""


def run(arguments: Sequence[str], program: str) -> int:
    """List, explain or download."""
    command = tyro.extras.subcommand_cli_from_dict(
        {"list": ListCommand, "info": InfoCommand, "download": DownloadCommand}, args=arguments, prog=program
    )
    match command:
        case ListCommand():
            _list(command)
        case InfoCommand():
            _info(command)
        case DownloadCommand():
            _download(command)
        case _:
            assert_never(command)
    return 0


def _list(command: ListCommand) -> None:
    entries = registered_scenes()
    others = sorted(set(known_scenes()) - {entry.name for entry in entries})
    if command.json:
        rows = [{**dataclasses.asdict(entry), "installed": entry.installed_at is not None} for entry in entries]
        print(json.dumps([*rows, *({"name": name, "installed": True} for name in others)]))
        return
    table = Table("name", "here", "what it is")
    for entry in entries:
        table.add_row(entry.name, "yes" if entry.installed_at else "", entry.title)
    for name in others:
        table.add_row(name, "yes", "a folder of your own")
    Console(highlight=False).print(table)


def _info(command: InfoCommand) -> None:
    entry = registered_scene(command.name)
    facts = {**dataclasses.asdict(entry), "installed_at": str(entry.installed_at or "not here")}
    if command.json:
        print(json.dumps(facts))
        return
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        table.add_row(key.replace("_", " "), "unknown" if value is None else str(value))
    Console(highlight=False).print(table)


def _download(command: DownloadCommand) -> None:
    entry = registered_scene(command.name)
    folder = command.folder or download_folder()
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(entry.name, total=entry.size)
        path, checksum = download_scene(
            entry,
            folder,
            allow_unverified=command.allow_unverified,
            keep_archive=command.keep_archive,
            report=lambda done, total: progress.update(task, completed=done, total=total),
        )
    print(f"{entry.name} is in {path}" + ("." if checksum is None else f"; the archive had SHA-256 {checksum}."))
