"""Reads .kino files, whole or by byte ranges.

Opening a file takes three reads: the prelude, the header, the index. After that any chunk, and with it any moment, is
one read away. Damage of any kind ends in InputError before more memory is taken than the header declares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kinosplat.compression.kino.codings import decode
from kinosplat.compression.kino.layout import PRELUDE, RECORD, ChunkRecord, Header, Limits, Prelude
from kinosplat.compression.kino.metadata import Metadata
from kinosplat.compression.kino.networks import LATENTS, appearance
from kinosplat.compression.kino.parse import parse_header, parse_index, parse_prelude, refuse
from kinosplat.compression.kino.planes import PayloadCursor
from kinosplat.compression.kino.source import ByteSource, BytesSource, FileSource
from kinosplat.compression.kino.tensors import decode_tensor
from kinosplat.render.gaussians import TIME_PARAMETER_NAMES, Gaussians


@dataclass(frozen=True)
class KinoFile:
    """A whole file in memory."""

    gaussians: Gaussians
    """Float32 on the CPU, in the order of the file; empty when the file holds another kind of model."""
    metadata: Metadata
    """Facts about the scene."""
    tensors: dict[str, NDArray[Any]]
    """Named tensors, codebooks among them."""
    kind: str
    """`gaussians`, or the name of another model."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """What such a model needs besides its tensors."""


def read_kino(source: str | Path | bytes | ByteSource, limits: Limits | None = None) -> KinoFile:
    """The whole file at a path, in memory, or behind a source."""
    reader = KinoReader(source, limits)
    return KinoFile(reader.gaussians(), reader.metadata, reader.tensors(), reader.header.kind, reader.header.model)


class ChunkDecoder:
    """Turns payloads into Gaussians once the header and the tensors it needs are known."""

    def __init__(self, header: Header, name: str) -> None:
        self.header = header
        self.name = name
        self.tables: dict[str, NDArray[np.float32]] = {}

    def decode(self, n: int, chunks: Iterable[tuple[ChunkRecord, bytes]]) -> Gaussians:
        """The `n` Gaussians of chunks whose checksums were verified, in their order."""
        # Put together by numpy: torch would wake a thread a core for each of these short copies.
        whole: dict[str, NDArray[np.float32]] = {}
        start = 0
        for record, payload in chunks:
            for name, part in self._arrays(record, payload).items():
                if name not in whole:
                    whole[name] = np.empty((n, part.shape[1]), np.float32)
                whole[name][start : start + len(part)] = part
            start += record.n_gaussians
        if not whole:
            return self.empty()
        try:
            return self._gaussians(whole, n)
        except ValueError as error:
            refuse(self.name, f"has chunks that cannot be used ({error})")

    def _arrays(self, record: ChunkRecord, payload: bytes) -> dict[str, NDArray[np.float32]]:
        """Values (n, components) of every attribute of a chunk; of one that is still those of time too."""
        n = record.n_gaussians
        arrays: dict[str, NDArray[np.float32]] = {}
        try:
            cursor = PayloadCursor(payload)
            for attribute in self.header.attributes:
                if attribute.moving and record.is_still:
                    fill = np.inf if attribute.name == "log_durations" else 0.0
                    arrays[attribute.name] = np.full((n, attribute.components), fill, np.float32)
                else:
                    arrays[attribute.name] = decode(attribute, cursor, n, self.tables)
            cursor.finish()
            return self._dressed(arrays)
        except ValueError as error:
            refuse(self.name, f"has a chunk that cannot be used ({error})")

    def _dressed(self, arrays: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """The attributes with what networks make of them, where there are networks."""
        spec = self.header.appearance
        if spec is None:
            return arrays
        if "means" not in arrays:
            raise ValueError("`means` is not in the attribute table")
        latents = arrays.pop(LATENTS)
        with np.errstate(all="ignore"):  # made-up weights may overflow; what comes out is checked like what is stored
            made = appearance(spec, self.tables, arrays["means"], arrays.get("time_centres"), latents)
        return arrays | made

    def empty(self) -> Gaussians:
        """No Gaussians, of the kind the file holds."""
        is_moving = any(attribute.moving for attribute in self.header.attributes)
        arrays = {a.name: np.zeros((0, a.components), np.float32) for a in self.header.attributes}
        defaults = {"means": 3, "quats": 4, "log_scales": 3, "opacity_logits": 1, "sh_dc": 3}
        defaults |= {"displacements": 3, "time_centres": 1, "log_durations": 1} if is_moving else {}
        arrays.pop(LATENTS, None)
        if self.header.appearance is not None:
            arrays["sh_rest"] = np.zeros((0, 3 * self.header.n_coefficients), np.float32)
        try:
            return self._gaussians({name: np.zeros((0, c), np.float32) for name, c in defaults.items()} | arrays, 0)
        except ValueError as error:
            refuse(self.name, f"has attributes that make no Gaussians ({error})")

    def _gaussians(self, arrays: dict[str, NDArray[np.float32]], n: int) -> Gaussians:
        arrays.setdefault("sh_rest", np.zeros((n, 0), np.float32))
        allowed = ("means", "quats", "log_scales", "opacity_logits", "sh_dc", "sh_rest", *TIME_PARAMETER_NAMES)
        missing = [name for name in allowed[:5] if name not in arrays]
        if missing:
            raise ValueError(f"`{missing[0]}` is not in the attribute table")
        tensors = {}
        for name in allowed:
            if name in arrays:
                tensor = torch.from_numpy(np.ascontiguousarray(arrays[name]))
                if name in ("opacity_logits", "time_centres", "log_durations") and tensor.shape[1] == 1:
                    tensor = tensor[:, 0]
                elif name == "sh_rest":
                    if tensor.shape[1] % 3:
                        raise ValueError("`sh_rest` needs three numbers a coefficient")
                    tensor = tensor.reshape(n, tensor.shape[1] // 3, 3)
                tensors[name] = tensor
        return Gaussians(**tensors)


class KinoReader:
    """Random access to a file: tensors, chunks, moments; reads only what it is asked for."""

    def __init__(self, source: str | Path | bytes | ByteSource, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        if isinstance(source, bytes):
            source = BytesSource(source)
        elif isinstance(source, str | Path):
            source = FileSource(source)
        self._source = source
        name = source.name
        self.prelude: Prelude = parse_prelude(source.read(0, PRELUDE.size), name, limits)
        self.header: Header = parse_header(
            self._read(PRELUDE.size, self.prelude.header_bytes), self.prelude, name, limits
        )
        index_bytes = self.prelude.file_bytes - self.prelude.index_offset
        self.chunks: tuple[ChunkRecord, ...] = parse_index(
            self._read(self.prelude.index_offset, index_bytes), self.prelude, self.header, name
        )
        self.metadata: Metadata = parse_metadata(self.header, name)
        self._decoder = ChunkDecoder(self.header, name)
        self._tensors: dict[str, NDArray[Any]] | None = None

    @property
    def name(self) -> str:
        """What error messages call the file."""
        return self._source.name

    def tensors(self) -> dict[str, NDArray[Any]]:
        """All named tensors; read once and kept."""
        if self._tensors is None:
            self._tensors = {}
            for entry in self.header.tensors:
                data = self._read(self.prelude.data_offset + entry.offset, entry.n_bytes)
                self._tensors[entry.name] = decode_tensor(entry, data, self.name)
        return self._tensors

    def chunk(self, record: ChunkRecord) -> Gaussians:
        """Gaussians of one chunk of `self.chunks`."""
        return self.gaussians([record])

    def payload(self, record: ChunkRecord) -> bytes:
        """Stored bytes of one chunk of `self.chunks`, checked."""
        data = self._read(record.offset, RECORD.size + record.n_bytes)
        payload = data[RECORD.size :]
        check_payload(record, data[: RECORD.size], payload, self.name)
        return payload

    def gaussians(self, chunks: Iterable[ChunkRecord] | None = None) -> Gaussians:
        """Gaussians of some chunks, of all by default, in the order of the file."""
        if self.header.kind != "gaussians" and not self.header.attributes:
            return no_gaussians()
        self._decoder.tables = self.tensors()
        chosen = self.chunks if chunks is None else tuple(chunks)
        n = sum(record.n_gaussians for record in chosen)
        return self._decoder.decode(n, ((record, self.payload(record)) for record in chosen))

    def at(self, time: float) -> Gaussians:
        """All Gaussians that may be seen at `time` seconds, not sliced; chunks that cannot be seen then are not
        read.
        """
        return self.gaussians(record for record in self.chunks if record.is_needed_at(time))

    def _read(self, offset: int, n_bytes: int) -> bytes:
        data = self._source.read(offset, n_bytes)
        if len(data) != n_bytes:
            refuse(self.name, f"is cut off; it should have {self.prelude.file_bytes} bytes")
        return data


def check_payload(record: ChunkRecord, record_bytes: bytes, payload: bytes, name: str) -> None:
    """Refuse a chunk whose own record is not the one in the index, or whose checksum is wrong."""
    if record.pack() != record_bytes or record.with_checksum(payload).crc32 != record.crc32:
        refuse(name, "is damaged in a chunk")


def parse_metadata(header: Header, name: str) -> Metadata:
    """Metadata of a header; InputError when an entry is of the wrong type."""
    try:
        return Metadata.from_json(header.metadata)
    except (ValueError, OverflowError) as error:
        refuse(name, f"has a header that cannot be used ({error})")


def no_gaussians() -> Gaussians:
    """The empty still set of degree 0."""
    shapes = {"means": (0, 3), "quats": (0, 4), "log_scales": (0, 3), "opacity_logits": (0,), "sh_dc": (0, 3)}
    return Gaussians(**{name: torch.zeros(shape) for name, shape in shapes.items()}, sh_rest=torch.zeros(0, 0, 3))
