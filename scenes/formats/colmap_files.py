"""Walking through COLMAP's files; ends of files and foreign bytes become one sentence."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kinosplat.errors import InputError


class BinaryFile:
    """A file read from front to back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); copy it again.") from error
        self._position = 0

    def unpack(self, layout: str) -> tuple[Any, ...]:
        """The next values."""
        try:
            values = struct.unpack_from(layout, self._content, self._position)
        except struct.error:
            raise self._too_short() from None
        self._position += struct.calcsize(layout)
        return values

    def skip(self, n_bytes: int) -> None:
        """Go on behind bytes that are not needed."""
        self._position += n_bytes
        if self._position > len(self._content):
            raise self._too_short()

    def string(self) -> str:
        """Text up to the next zero byte."""
        end = self._content.find(b"\0", self._position)
        if end < 0:
            raise self._too_short()
        text = self._content[self._position : end].decode("utf-8", errors="replace")
        self._position = end + 1
        return text

    def _too_short(self) -> InputError:
        return InputError(f"{self._path} is truncated or no COLMAP file; copy it again.")


def read_text(path: Path) -> str:
    """The whole of a text file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({type(error).__name__}); copy it again.") from error


def text_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and words of each line that is neither empty nor a comment."""
    for line_number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield line_number, line.split()
