"""Unpacking archives that may be hostile.

Only plain files below one folder of the archive are written, into a new folder that gets its name when everything is
there. Members with absolute names, with `..`, links, devices, names that occur twice, more files or bytes than
reasonable: the archive is refused and nothing of it stays.
"""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from kinosplat.errors import InputError

MAX_BYTES = 200 * 10**9
"""Largest scene that is unpacked."""
MAX_FILES = 1_000_000
"""Most files of a scene."""
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class _Member:
    """A file in an archive."""

    path: PurePosixPath
    """Its name."""
    n_bytes: int
    """Its size, according to the archive's table."""
    open: Callable[[], IO[bytes] | None]
    """Starts reading it."""
    fault: str | None
    """Why it must not be written, if so."""


def unpack_folder(
    archive: Path, folder: str, target: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
) -> None:
    """Unpack the contents of the uppermost folder of that name in a zip or tar archive as `target`, which must not
    exist.
    """
    unfinished = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with closing(_open(archive)) as content:
            chosen = _below(list(_members(content)), folder, archive)
            if len(chosen) > max_files or sum(member.n_bytes for member in chosen.values()) > max_bytes:
                raise InputError(
                    f"{archive} unpacks to more than {max_bytes / 1e9:g} GB or {max_files} files; unpack it by hand."
                )
            for path, member in chosen.items():
                _write(member, unfinished / path, archive)
        unfinished.rename(target)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive} is damaged or of an unknown kind ({error}); delete it and try again.") from error
    except OSError as error:
        raise InputError(f"{archive} cannot be unpacked into {target} ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _open(archive: Path) -> zipfile.ZipFile | tarfile.TarFile:
    if zipfile.is_zipfile(archive):
        return zipfile.ZipFile(archive)
    return tarfile.open(archive)


def _members(content: zipfile.ZipFile | tarfile.TarFile) -> Iterator[_Member]:
    """Everything but folders."""
    if isinstance(content, zipfile.ZipFile):
        for info in content.infolist():
            is_plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
            if not info.is_dir():
                yield _member(info.filename, info.file_size, is_plain, partial(content.open, info))
    else:
        for entry in content:
            if not entry.isdir():
                yield _member(entry.name, entry.size, entry.isfile(), partial(content.extractfile, entry))


def _member(name: str, n_bytes: int, is_plain: bool, open_it: Callable[[], IO[bytes] | None]) -> _Member:
    path = PurePosixPath(name.replace("\\", "/"))
    fault = None if is_plain else "is a link or a device"
    if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name:
        fault = "leads out of the folder"
    return _Member(path, n_bytes, open_it, fault)


def _below(members: list[_Member], folder: str, archive: Path) -> dict[PurePosixPath, _Member]:
    """Members below the uppermost folder of that name, by their path below it; refuses faulty ones among them."""
    prefixes = {parent for member in members for parent in member.path.parents if parent.name == folder}
    if not prefixes:
        raise InputError(f"{archive} has no folder {folder}; the archive has changed, report it.")
    prefix = min(prefixes, key=lambda path: (len(path.parts), str(path)))
    chosen: dict[PurePosixPath, _Member] = {}
    for member in members:
        if member.path.is_relative_to(prefix):
            path = member.path.relative_to(prefix)
            fault = "occurs twice" if path in chosen else member.fault
            if fault is not None:
                raise _hostile(archive, str(member.path), fault)
            chosen[path] = member
    return chosen


def _write(member: _Member, path: Path, archive: Path) -> None:
    """Write one file; never more than the archive's table announces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n_left = member.n_bytes
    source = member.open()
    assert source is not None, "Plain files can be opened."
    with source, path.open("xb") as file:
        while chunk := source.read(CHUNK_BYTES):
            n_left -= len(chunk)
            if n_left < 0:
                raise _hostile(archive, str(member.path), "is longer than announced")
            file.write(chunk)


def _hostile(archive: Path, name: str, what: str) -> InputError:
    return InputError(f"{archive} is refused because its member {name} {what}; delete it and do not trust its source.")
