"""Checkpoints: one safetensors file each, with JSON metadata in its header; no pickle.

A checkpoint is written beside its place, flushed to the disk and renamed, so that at any moment there is a whole old
file or a whole new one. When writing fails (a full disk), the partial file is removed, the old checkpoint stays, and an
InputError says so.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from kinosplat.errors import InputError

FORMAT = "kinosplat-checkpoint"
VERSION = 1
LAST, BEST = "last", "best"
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""What safetensors calls them."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds."""

    tensors: dict[str, Tensor]
    """Parameters, moments and counts by name, on the CPU."""
    metadata: dict[str, Any]
    """At least `method` (str), `step` (int: steps done), `elapsed` (seconds) and `progress`."""


def checkpoint_path(run_dir: Path, which: str = LAST) -> Path:
    """Where the checkpoint `which` (last or best) of a run lies."""
    return run_dir / "checkpoints" / f"{which}.safetensors"


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Put `parts` one after the other at `path`, all or nothing, also when the process or the machine dies meanwhile.

    An OSError (no space, no permission) becomes an InputError; what was at `path` is then still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        kept = "the file that was there is kept" if path.exists() else "nothing was kept"
        raise InputError(
            f"{path} could not be written ({error.strerror or error}), {kept}; "
            "make room there or choose another --out-dir."
        ) from error
    # The rename itself must reach the disk too.
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint`, atomically."""
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in checkpoint.tensors.items()}
    metadata = json.dumps({"format": FORMAT, "version": VERSION, **checkpoint.metadata})
    write_atomically(path, *_safetensors(tensors, {"kinosplat": metadata}))


def _safetensors(tensors: dict[str, Tensor], metadata: dict[str, str]) -> list[bytes | memoryview]:
    """The parts of a safetensors file of contiguous tensors on the CPU, without a copy of them.

    The library's own writer copies them twice and keeps Python's other threads waiting until the file is written.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    parts: list[bytes | memoryview] = []
    end = 0
    # Wide numbers first, so that all are aligned.
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        parts.append(tensor.reshape(-1).view(torch.uint8).numpy().data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *parts]


def load_checkpoint(path: Path, method: str | None = None) -> Checkpoint:
    """Read a checkpoint; of `method` if that is given. A missing, truncated or foreign file is an InputError."""
    if not path.exists():
        raise InputError(f"{path} does not exist; give the folder of a run that has saved a checkpoint.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("kinosplat", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a whole safetensors file; use the other checkpoint of the run.") from error
    if header.get("format") != FORMAT:
        raise InputError(f"{path} is not a checkpoint of kinosplat; give the folder of a run.")
    if header.get("version") != VERSION:
        raise InputError(
            f"{path} has version {header.get('version')}, this program reads {VERSION}; use the program that wrote it."
        )
    if method is not None and header.get("method") != method:
        raise InputError(
            f"{path} is a checkpoint of method {header.get('method')}, not of {method}; "
            f"resume with --method {header.get('method')} or start a new run."
        )
    return Checkpoint({name: torch.as_tensor(tensor) for name, tensor in tensors.items()}, header)
