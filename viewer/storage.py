"""The one folder the page may store files in. A page names files, never folders; other names are refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kinosplat.errors import InputError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,79}")


class Storage:
    """Files of one kind below `folder`, which is made when the first one is stored."""

    def __init__(self, folder: Path, suffix: str) -> None:
        """`suffix` such as .json is put behind every name."""
        self.folder = folder
        self.suffix = suffix

    def path(self, name: str) -> Path:
        """Where the file called `name` is; InputError for a name that could mean another place."""
        name = name.strip().removesuffix(self.suffix)
        if not NAME.fullmatch(name) or ".." in name:
            raise InputError(f"{name!r} is no name for a file; use letters, digits, spaces, dots, - and _.")
        path = self.folder / f"{name}{self.suffix}"
        # A link that somebody put there must not lead out either.
        if path.is_symlink() or Path(os.path.realpath(path)).parent != Path(os.path.realpath(self.folder)):
            raise InputError(f"{name!r} leads out of {self.folder}; remove the link.")
        return path

    def names(self) -> list[str]:
        """What is there, without the suffix, in order."""
        if not self.folder.is_dir():
            return []
        found = (p for p in self.folder.iterdir() if p.suffix == self.suffix and p.is_file() and not p.is_symlink())
        return sorted(p.stem for p in found if NAME.fullmatch(p.stem))
