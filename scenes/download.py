"""Downloads that resume and are checked.

A file arrives beside its final name (`.part`) and is renamed when it is whole and its checksum is right; a `.part`
without its renaming never counts as downloaded. An interrupted download goes on with an HTTP range request; when the
server has another file by now (its validator changed) or does not know ranges, it starts anew. Whatever fails raises
InputError in one sentence.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from kinosplat.errors import InputError

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60
SPARE_BYTES = 1 << 28
"""Left free on the disk."""

Report = Callable[[int, "int | None"], None]


def download_file(
    url: str, path: Path, *, sha256: str | None, size: int | None, report: Report = lambda done, total: None
) -> str:
    """Fetch `url` into `path` unless it is there; gives its SHA-256, which is checked against `sha256` where that is
    known.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"{url} is not an http or https address; correct the registry.")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        _fetch(url, part, size, report)
        found = _checksum(part)
        if sha256 is not None and found != sha256:
            part.unlink()
            raise InputError(
                f"{url} has the checksum {found[:16]}... instead of {sha256[:16]}...; it was deleted, "
                "try again or report a changed file."
            )
        _validator_file(part).unlink(missing_ok=True)
        part.rename(path)
        return found
    found = _checksum(path)
    if sha256 is not None and found != sha256:
        raise InputError(f"{path} is not the archive it should be (its checksum differs); delete it and try again.")
    return found


def _fetch(url: str, part: Path, size: int | None, report: Report) -> None:
    """Complete the partial file."""
    n_done = part.stat().st_size if part.is_file() else 0
    if size is not None and n_done == size:
        return
    request = urllib.request.Request(url, headers={"User-Agent": "kinosplat", "Accept-Encoding": "identity"})
    validator = _validator_file(part)
    if n_done and validator.is_file():
        request.add_header("Range", f"bytes={n_done}-")
        request.add_header("If-Range", json.loads(validator.read_text())["validator"])
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            resumes = response.status == 206 and _range_start(response) == n_done
            n_done = n_done if resumes else 0
            n_coming = int(response.headers["Content-Length"]) if response.headers.get("Content-Length") else None
            total = n_done + n_coming if n_coming is not None else size
            if size is not None and total != size:
                raise InputError(f"{url} is {total} bytes long instead of {size}; report a changed file.")
            _require_space(part, (n_coming or 0), url)
            _remember_validator(validator, response)
            with part.open("ab" if resumes else "wb") as file:
                _copy(response, file, n_done, total, report)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and n_done:
            # Everything is here already, or what is here belongs to another file.
            if error.headers.get("Content-Range", "") != f"bytes */{n_done}":
                part.unlink()
                _fetch(url, part, size, report)
            return
        raise InputError(
            f"{url} answered {error.code} {error.reason}; check the address, or try again later."
        ) from error
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{url} cannot be reached ({reason}); try again later to go on where it stopped.") from error
    n_done = part.stat().st_size
    if total is not None and n_done < total:
        raise InputError(f"{url} broke off after {n_done} of {total} bytes; try again to go on where it stopped.")


def _copy(response: IO[bytes], file: IO[bytes], n_done: int, total: int | None, report: Report) -> None:
    report(n_done, total)
    while chunk := _read(response):
        file.write(chunk)
        n_done += len(chunk)
        if total is not None and n_done > total:
            raise OSError("more bytes than announced")
        report(n_done, total)


def _read(response: IO[bytes]) -> bytes:
    try:
        return response.read(CHUNK_BYTES)
    except http.client.IncompleteRead as error:
        # What did arrive is kept for the next attempt.
        return error.partial


def _range_start(response: http.client.HTTPResponse) -> int:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _require_space(part: Path, n_coming: int, url: str) -> None:
    free = shutil.disk_usage(part.parent).free
    if n_coming + SPARE_BYTES > free:
        raise InputError(
            f"{url} needs {n_coming / 1e9:.1f} GB but {part.parent} has {free / 1e9:.1f} GB left; "
            "free some or choose another folder."
        )


def _validator_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _remember_validator(path: Path, response: http.client.HTTPResponse) -> None:
    """Keep what identifies this version of the file; a weak ETag must not be used for ranges (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
    if validator:
        path.write_text(json.dumps({"validator": validator}))
    else:
        path.unlink(missing_ok=True)


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
