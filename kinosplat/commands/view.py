"""`kinosplat view`: a run or a file in the browser, rendered on this machine.

What renders is imported when the arguments have been read, so that `--help` and wrong options are answered at once.
"""

from __future__ import annotations

import importlib.util
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kinosplat.errors import InputError

TOKEN_OPTION = "--share-token"
MISSING_VISER = "The viewer needs the package viser; run: pip install 'kinosplat[viewer]'"


@dataclass(frozen=True)
class PageOptions:
    """Where the page is served."""

    host: str = "localhost"
    """Address to listen on; localhost keeps the page to this machine, 0.0.0.0 opens it to the network."""
    port: int = 8080
    """Port of the page; if it is taken, the next free one above it."""
    share_token: str | None = None
    """Ask visitors for a token, which is part of the printed address; without a value one is drawn."""


@dataclass(frozen=True)
class ViewCommand:
    """Look at a run or a file (.kino, .ply, .spz, .sog, .splat, .glb, .4dgs) in the browser; Ctrl-C ends it."""

    what: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, or a file of Gaussians or of a field."""
    page: tyro.conf.OmitArgPrefixes[PageOptions] = PageOptions()
    """The page."""
    checkpoint: Literal["last", "best"] = "last"
    """Which checkpoint of a run."""
    up: tuple[float, float, float] | None = None
    """World axis that points up in a file, such as 0 0 1; by default what it says, or what most likely does."""
    background: tuple[float, float, float] | None = None
    """Colour behind what a file holds, three numbers in [0, 1]."""
    device: str = "auto"
    """cpu, cuda, cuda:1, or auto."""


def run(arguments: Sequence[str], program: str) -> int:
    """Open, serve until Ctrl-C."""
    command = tyro.cli(ViewCommand, args=with_token(arguments), prog=program)
    need_viser()
    # Loading torch takes seconds, more where much else runs.
    print(f"Opening {command.what} …", file=sys.stderr, flush=True)
    from kinosplat.opening import open_subject
    from kinosplat.viewer.server import ServerOptions, ViewerServer

    subject = open_subject(
        command.what,
        checkpoint=command.checkpoint,
        device=command.device,
        up=command.up,
        background=command.background,
    )
    page = command.page
    with ViewerServer(subject, ServerOptions(page.host, page.port, page.share_token)) as server:
        for line in server.announcement():
            print(line, flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            print("Closed.")
    return 0


def with_token(arguments: Sequence[str]) -> list[str]:
    """The arguments with a token drawn where `--share-token` has no value; one of nothing but spaces is refused."""
    given = list(arguments)
    for i, argument in enumerate(given):
        if argument == TOKEN_OPTION and (i + 1 == len(given) or given[i + 1].startswith("--")):
            given[i] = f"{TOKEN_OPTION}={secrets.token_urlsafe(12)}"
        token = given[i].partition("=")[2] if given[i].startswith(f"{TOKEN_OPTION}=") else None
        if given[i] == TOKEN_OPTION:
            token = given[i + 1]
        if token is not None and not all(c.isalnum() or c in "-_" for c in token or " "):
            raise InputError(f"{TOKEN_OPTION} must be letters, digits, - and _; leave the value out to have one drawn.")
    return given


def need_viser() -> None:
    """InputError with the remedy where the extra is not installed."""
    if importlib.util.find_spec("viser") is None:
        raise InputError(f"{MISSING_VISER}.")
