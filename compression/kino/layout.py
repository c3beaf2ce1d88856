"""The parts of a .kino file: prelude, header with attribute table and tensors, chunk records. docs/format.md describes
them for strangers; everything is little-endian. Parts know how to turn themselves into bytes; `parse` is the way back.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kinosplat.compression.kino.networks import AppearanceSpec

MAGIC = b"\x89KINO\r\n\x1a"
VERSION = 1
"""Of files without networks, which every reader can read."""
NETWORKS_VERSION = 2
"""Of files whose appearance is made by networks."""
PACKED_BITS = 4
PRELUDE = struct.Struct("<8sIIQQIIII")
RECORD = struct.Struct("<QIIffII")

CodingName = Literal["float32", "float16", "quantised", "morton", "rotation", "codebook"]
TensorType = Literal["float32", "float16", "uint8", "uint16", "int32"]
TENSOR_ITEM_BYTES: dict[TensorType, int] = {"float32": 4, "float16": 2, "uint8": 1, "uint16": 2, "int32": 4}


@dataclass(frozen=True)
class Limits:
    """What a reader accepts before it allocates; raise a limit to read a larger file of your own."""

    header_bytes: int = 1 << 20
    """Bytes of the JSON header."""
    decoded_bytes: int = 4 << 30
    """Bytes of all Gaussians and tensors once decoded."""
    gaussians: int = 1 << 26
    """Gaussians in a file."""
    chunks: int = 1 << 16
    """Chunks in a file."""
    attributes: int = 64
    """Attributes of a Gaussian."""
    components: int = 1024
    """Numbers an attribute has."""
    tensors: int = 4096
    """Codebooks, networks and tables in a file."""


@dataclass(frozen=True)
class Attribute:
    """One line of the attribute table: what a Gaussian has, and how chunks hold it."""

    name: str
    """Such as `means`."""
    components: int
    """Numbers a Gaussian, once decoded."""
    coding: CodingName
    """How the integers in the chunks become numbers."""
    bits: int
    """Bits of one stored integer; 32 and 16 for the two float codings."""
    delta: bool = False
    """Integers are differences to the Gaussian before, modulo 2^(8 * bytes of the integer)."""
    moving: bool = False
    """Left out of chunks of still Gaussians."""
    codebooks: tuple[str, ...] = ()
    """Names of the tensors the indices look into, in the order of the components; codebook coding only."""
    packed: bool = False
    """Two consecutive integers of at most 4 bits share a byte, the first in the lower half; not together with
    `delta`."""

    @property
    def n_integers(self) -> int:
        """Integers stored for one Gaussian."""
        if self.coding == "codebook":
            return len(self.codebooks)
        return {"rotation": 3, "morton": 1}.get(self.coding, self.components)

    @property
    def n_bytes(self) -> int:
        """Bytes of one stored integer, one plane each."""
        return ((3 * self.bits if self.coding == "morton" else self.bits) + 7) // 8

    @property
    def n_planes(self) -> int:
        """Byte planes in a chunk."""
        return (self.n_integers + 1) // 2 if self.packed else self.n_integers * self.n_bytes

    @property
    def has_range(self) -> bool:
        """Whether chunks carry a minimum and a step for each component."""
        return self.coding in ("quantised", "morton")


@dataclass(frozen=True)
class TensorEntry:
    """One codebook, network layer or table that all chunks share."""

    name: str
    """Unique in the file."""
    dtype: TensorType
    """Type of the stored numbers."""
    shape: tuple[int, ...]
    """Lengths of the axes, C order."""
    offset: int
    """Bytes from the end of the header."""
    n_bytes: int
    """Stored bytes."""
    crc32: int
    """Of the stored bytes."""
    minimum: tuple[float, ...] = ()
    """With `step`: value = minimum + step * stored, one for each entry of the last axis or one for all; empty when
    values are stored as they are."""
    step: tuple[float, ...] = ()
    """See `minimum`."""

    @property
    def n_items(self) -> int:
        """Numbers in the tensor."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the tensor as float32 or as its own integers."""
        return self.n_items * 4


@dataclass(frozen=True)
class ChunkRecord:
    """Where a chunk is and when it is needed; stands before the chunk and again in the index."""

    offset: int
    """Of this record, bytes from the start of the file; the payload follows it."""
    n_bytes: int
    """Bytes of the payload."""
    n_gaussians: int
    """Gaussians in the chunk."""
    first_time: float
    """Seconds; before it nothing in the chunk can be seen (-inf: since ever)."""
    last_time: float
    """Seconds; after it nothing in the chunk can be seen (+inf: for ever)."""
    is_still: bool
    """Attributes marked as moving are left out."""
    crc32: int
    """Of the record's first 28 bytes followed by the payload."""

    @property
    def end(self) -> int:
        """First byte after the payload."""
        return self.offset + RECORD.size + self.n_bytes

    def is_needed_at(self, time: float) -> bool:
        """Whether anything in the chunk may be seen at `time` seconds."""
        return self.first_time <= time <= self.last_time

    def pack(self) -> bytes:
        """The 32 bytes of the record."""
        return RECORD.pack(
            self.offset,
            self.n_bytes,
            self.n_gaussians,
            self.first_time,
            self.last_time,
            int(self.is_still),
            self.crc32,
        )

    def with_checksum(self, payload: bytes) -> ChunkRecord:
        """The record with the checksum of itself and of `payload`."""
        crc32 = zlib.crc32(payload, zlib.crc32(self.pack()[:28]))
        return ChunkRecord(
            self.offset, self.n_bytes, self.n_gaussians, self.first_time, self.last_time, self.is_still, crc32
        )


@dataclass(frozen=True)
class Header:
    """What the JSON header says."""

    kind: str
    """`gaussians`, or the name of another model whose data are the tensors."""
    n_gaussians: int
    """Sum over the chunks."""
    attributes: tuple[Attribute, ...]
    """Attribute table, in the order of the streams in a chunk."""
    tensors: tuple[TensorEntry, ...] = ()
    """Codebooks, networks, tables."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """See `kinosplat.compression.kino.metadata`."""
    appearance: AppearanceSpec | None = None
    """Networks that make opacity and colour of the attribute `latents`; None when those are attributes themselves."""
    n_coefficients: int = 0
    """Coefficients a colour that the networks give."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Numbers that a model which is all tensors needs besides them."""

    def to_json(self) -> bytes:
        """The header as compact JSON; fields at their default are left out."""
        attributes = []
        for a in self.attributes:
            entry: dict[str, Any] = {"name": a.name, "components": a.components, "coding": a.coding, "bits": a.bits}
            entry |= {"delta": True} if a.delta else {}
            entry |= {"packed": True} if a.packed else {}
            entry |= {"moving": True} if a.moving else {}
            entry |= {"codebooks": list(a.codebooks)} if a.codebooks else {}
            attributes.append(entry)
        tensors = []
        for t in self.tensors:
            entry = {"name": t.name, "dtype": t.dtype, "shape": list(t.shape)}
            entry |= {"offset": t.offset, "bytes": t.n_bytes, "crc32": t.crc32}
            entry |= {"minimum": _short(t.minimum), "step": _short(t.step)} if t.minimum else {}
            tensors.append(entry)
        document = {
            "kind": self.kind,
            "n_gaussians": self.n_gaussians,
            "metadata": dict(self.metadata),
            "attributes": attributes,
            "tensors": tensors,
        }
        if self.model:
            document["model"] = dict(self.model)
        if self.appearance is not None:
            document["appearance"] = self.appearance.to_json()
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True)
class Prelude:
    """The first 48 bytes: version, and where header and index are."""

    version: int
    header_bytes: int
    index_offset: int
    file_bytes: int
    header_crc32: int
    index_crc32: int

    @property
    def data_offset(self) -> int:
        """First byte after the header; offsets of tensors count from here."""
        return PRELUDE.size + self.header_bytes

    @property
    def n_chunks(self) -> int:
        """Records in the index."""
        return (self.file_bytes - self.index_offset) // RECORD.size

    def pack(self) -> bytes:
        """The 48 bytes, with their own checksum."""
        body = PRELUDE.pack(
            MAGIC,
            self.version,
            self.header_bytes,
            self.index_offset,
            self.file_bytes,
            self.header_crc32,
            self.index_crc32,
            0,
            0,
        )[:44]
        return body + struct.pack("<I", zlib.crc32(body))


def decoded_row_bytes(header: Header) -> int:
    """Bytes of one decoded Gaussian."""
    made = 0 if header.appearance is None else 4 + 3 * header.n_coefficients
    return 4 * (made + sum(attribute.components for attribute in header.attributes))


def decoded_bytes(header: Header) -> int:
    """Bytes that the file declares it will need once decoded."""
    return decoded_row_bytes(header) * header.n_gaussians + sum(t.decoded_bytes for t in header.tensors)


def _short(values: tuple[float, ...]) -> list[float]:
    """The shortest decimals that round to the same float32 numbers."""
    return [float(f"{value:.9g}") for value in values]
