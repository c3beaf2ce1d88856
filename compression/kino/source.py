"""Where bytes come from: a file, memory, or a web server that honours ranges.

A source promises exactly the bytes asked for, or raises InputError; readers never ask for more than they checked.
"""

from __future__ import annotations

import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Protocol

from kinosplat.errors import InputError


class ByteSource(Protocol):
    """Random access to the bytes of one file."""

    @property
    def name(self) -> str:
        """What error messages call it."""

    def read(self, offset: int, n_bytes: int) -> bytes:
        """`n_bytes` from `offset`; fewer only where the file ends."""


class BytesSource:
    """A file that is in memory."""

    def __init__(self, data: bytes, name: str = "the .kino data") -> None:
        self.name = name
        self._data = data

    def read(self, offset: int, n_bytes: int) -> bytes:
        """`n_bytes` from `offset`; fewer only where the data ends."""
        return self._data[offset : offset + n_bytes]


class FileSource:
    """A file on disk, opened for each read so that none is left open."""

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self._path = Path(path)

    def read(self, offset: int, n_bytes: int) -> bytes:
        """`n_bytes` from `offset`; fewer only where the file ends."""
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                # A truncated file must not make us allocate what its header promised.
                return file.read(min(n_bytes, max(self._path.stat().st_size - offset, 0)))
        except OSError as error:
            raise InputError(f"{self.name} cannot be read ({error.strerror}); check the path.") from error


class HttpSource:
    """A file behind a URL; every read is one range request."""

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(f"{url} is no web address; give one that begins with http:// or https://.")
        self.name = url
        self._timeout = timeout

    def read(self, offset: int, n_bytes: int) -> bytes:
        """`n_bytes` from `offset`; fewer only where the file ends."""
        if n_bytes == 0:
            return b""
        request = urllib.request.Request(self.name, headers={"Range": f"bytes={offset}-{offset + n_bytes - 1}"})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                if response.status != 206:
                    raise InputError(f"{self.name} is served without byte ranges; download the file first.")
                return response.read(n_bytes)
        except (OSError, HTTPException) as error:
            # URLError is an OSError whose reason is worded better than the error itself.
            reason = getattr(error, "reason", None) or error or type(error).__name__
            raise InputError(f"{self.name} cannot be read ({reason}); check the address.") from error
