"""Known scenes: what data/registry.json says about them, and whether they are here.

Each entry has `name` (how `--scene` finds it), `title`, `format` (reader), `moving`, `licence`, `home` (where it is
described), `url` (a zip or tar archive, null when there is none to fetch), `sha256` and `size` in bytes of the archive
(null when its publisher gives none), `folder` (name of the scene's folder inside the archive) and `shipped` (part of
kinosplat). A registry that is not of this form raises InputError.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from hashlib import sha256
from importlib import resources
from pathlib import Path

from kinosplat.errors import InputError
from kinosplat.scenes.download import download_file
from kinosplat.scenes.formats.checks import field, read_json
from kinosplat.scenes.load import data_folders
from kinosplat.scenes.unpack import unpack_folder

VERSION = 1


@dataclass(frozen=True)
class RegisteredScene:
    """One entry of the registry."""

    name: str
    """How `--scene` finds it."""
    title: str
    """What it shows, how many pictures, how large."""
    format: str
    """Which reader reads it."""
    moving: bool
    """Whether it is a clip."""
    licence: str
    """Under what terms its publisher gives it away."""
    home: str
    """Where it is described."""
    url: str | None
    """Archive to download, if there is one."""
    sha256: str | None
    """Checksum of the archive, if its publisher gives one."""
    size: int | None
    """Bytes of the archive, if known."""
    folder: str | None
    """Name of the scene's folder inside the archive."""
    shipped: bool
    """Whether it is part of kinosplat."""

    @property
    def installed_at(self) -> Path | None:
        """Where it is, when it is in one of the data folders."""
        return next((folder / self.name for folder in data_folders() if (folder / self.name).is_dir()), None)


def registered_scenes(path: Path | None = None) -> list[RegisteredScene]:
    """All entries of the registry, in its order."""
    path = path or Path(str(resources.files("kinosplat.data") / "registry.json"))
    content = read_json(path)
    if content.get("version") != VERSION:
        raise InputError(
            f"{path} has version {content.get('version')!r}, but only {VERSION} can be read; update kinosplat."
        )
    names = [entry.name for entry in fields(RegisteredScene)]
    return [
        RegisteredScene(**{name: field(entry, name, f"{path} scenes[{i}]") for name in names})
        for i, entry in enumerate(field(content, "scenes", path))
    ]


def registered_scene(name: str, path: Path | None = None) -> RegisteredScene:
    """The entry of that name; InputError listing the names when there is none."""
    entries = registered_scenes(path)
    found = next((entry for entry in entries if entry.name == name), None)
    if found is None:
        raise InputError(
            f"There is no scene {name!r} in the registry; choose one of {', '.join(e.name for e in entries)}."
        )
    return found


def download_folder() -> Path:
    """Where downloads go unless told otherwise: $KINOSPLAT_DATA, where they are found by name."""
    folder = os.environ.get("KINOSPLAT_DATA")
    if not folder:
        raise InputError("KINOSPLAT_DATA is not set; set it to the folder where scenes are kept, or name a folder.")
    return Path(folder).expanduser()


def download_scene(
    entry: RegisteredScene,
    folder: Path,
    *,
    allow_unverified: bool = False,
    keep_archive: bool = False,
    report: Callable[[int, int | None], None] = lambda done, total: None,
) -> tuple[Path, str | None]:
    """Fetch and unpack a scene into `folder / entry.name`; gives that path and the SHA-256 of the archive.

    A broken download goes on where it stopped. An archive without a known checksum is fetched only when
    `allow_unverified` says so. A scene that is there already is left as it is, and the checksum is None. `report` is
    called with bytes done and in all.
    """
    target = folder / entry.name
    if target.is_dir():
        return target, None
    if entry.shipped:
        raise InputError(f"{entry.name} ships with kinosplat but is missing; install kinosplat again.")
    if entry.url is None:
        raise InputError(f"{entry.name} has no archive to download; get it from {entry.home} and put it into {target}.")
    if entry.sha256 is None and not allow_unverified:
        raise InputError(
            f"{entry.name} cannot be verified, since its publisher gives no checksum; "
            "repeat with --allow-unverified if you trust the source."
        )
    # Named after the address, so that scenes of one archive share it and archives of one name do not.
    archive = folder / ".downloads" / f"{sha256(entry.url.encode()).hexdigest()[:8]}-{entry.url.rsplit('/', 1)[-1]}"
    checksum = download_file(entry.url, archive, sha256=entry.sha256, size=entry.size, report=report)
    unpack_folder(archive, entry.folder or entry.name, target)
    if not keep_archive:
        archive.unlink()
    return target, checksum
