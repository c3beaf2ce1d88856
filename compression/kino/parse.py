"""Parses the parts of a .kino file that describe it, and distrusts them.

Every field is checked against `Limits` and against the file's own size before anything is allocated; what does not fit
raises InputError with one sentence. A number is not trusted because its checksum is right.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from typing import Any, NoReturn, cast, get_args

from kinosplat.compression.kino.layout import (
    MAGIC,
    NETWORKS_VERSION,
    PACKED_BITS,
    PRELUDE,
    RECORD,
    VERSION,
    Attribute,
    ChunkRecord,
    CodingName,
    Header,
    Limits,
    Prelude,
    TensorEntry,
    TensorType,
    decoded_bytes,
)
from kinosplat.compression.kino.networks import (
    LATENTS,
    MADE_HERE,
    MOST_FREQUENCIES,
    N_LATENTS,
    AppearanceSpec,
    check_layers,
)
from kinosplat.errors import InputError

MEMORY_A_STORED_BYTE = 40_000  # zstd turns a 4-byte block into at most 128 KiB; a larger claim is a lie


def refuse(name: str, what: str) -> NoReturn:
    """Raise the error every damaged file ends in; `what` completes the sentence `NAME ...`."""
    raise InputError(f"{name} {what}; copy or download it again.")


def parse_prelude(data: bytes, name: str, limits: Limits) -> Prelude:
    """Prelude from the first 48 bytes of file `name`."""
    if not data.startswith(MAGIC[: max(len(data), 1)]):
        raise InputError(f"{name} is not a .kino file; give one that `kinosplat compress` wrote.")
    if len(data) < PRELUDE.size:
        refuse(name, "ends inside its first 48 bytes")
    _, version, header_bytes, index_offset, file_bytes, header_crc, index_crc, _, own_crc = PRELUDE.unpack(data[:48])
    if own_crc != zlib.crc32(data[:44]):
        refuse(name, "is damaged in its first 48 bytes")
    if version not in (VERSION, NETWORKS_VERSION):
        raise InputError(
            f"{name} has .kino version {version} and this kinosplat reads versions {VERSION} and {NETWORKS_VERSION}; "
            "install a newer one."
        )
    prelude = Prelude(version, header_bytes, index_offset, file_bytes, header_crc, index_crc)
    if header_bytes > limits.header_bytes:
        raise InputError(f"{name} has a header of {header_bytes} bytes, above the limit of {limits.header_bytes}.")
    index_bytes = file_bytes - index_offset
    if index_offset < prelude.data_offset or index_bytes < 0 or index_bytes % RECORD.size:
        refuse(name, "places its index outside of itself")
    if prelude.n_chunks > limits.chunks:
        raise InputError(f"{name} has {prelude.n_chunks} chunks, above the limit of {limits.chunks}.")
    return prelude


def parse_header(data: bytes, prelude: Prelude, name: str, limits: Limits) -> Header:
    """Header from its JSON bytes; the sizes it declares are checked against `limits` and the size of the file."""
    if len(data) != prelude.header_bytes or zlib.crc32(data) != prelude.header_crc32:
        refuse(name, "is damaged in its header")
    try:
        document = json.loads(data, parse_constant=lambda word: refuse(name, f"has {word} in its header"))
        header = Header(
            kind=_field(document, "kind", str),
            n_gaussians=_field(document, "n_gaussians", int, minimum=0),
            attributes=tuple(_attribute(entry) for entry in _field(document, "attributes", list)),
            tensors=tuple(_tensor(entry) for entry in _field(document, "tensors", list)),
            metadata=_field(document, "metadata", dict),
            model=_field(document, "model", dict, default={}),
        )
        _check_names(header)
        if prelude.version >= NETWORKS_VERSION and "appearance" in document:
            header = _with_appearance(header, document["appearance"])
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        refuse(name, f"has a header that cannot be used ({error})")
    _check_sizes(header, prelude, name, limits)
    return header


def parse_record(data: bytes) -> ChunkRecord:
    """Record from its 32 bytes; to be checked by `check_record`."""
    offset, n_bytes, n_gaussians, first_time, last_time, flags, crc32 = RECORD.unpack(data)
    return ChunkRecord(offset, n_bytes, n_gaussians, first_time, last_time, bool(flags & 1), crc32)


def parse_index(data: bytes, prelude: Prelude, header: Header, name: str) -> tuple[ChunkRecord, ...]:
    """All records, in the order of the file."""
    if len(data) != prelude.n_chunks * RECORD.size or zlib.crc32(data) != prelude.index_crc32:
        refuse(name, "is damaged in its index")
    records = tuple(parse_record(data[i : i + RECORD.size]) for i in range(0, len(data), RECORD.size))
    end = prelude.data_offset
    for record in records:
        check_record(record, prelude, header, name)
        if record.offset < end:
            refuse(name, "has chunks that overlap")
        end = record.end
    if sum(record.n_gaussians for record in records) != header.n_gaussians:
        refuse(name, "has an index that does not add up to the Gaussians of its header")
    return records


def check_record(record: ChunkRecord, prelude: Prelude, header: Header, name: str) -> None:
    """Refuse a record that points outside the data or claims more than its bytes could hold."""
    if record.offset < prelude.data_offset or record.end > prelude.index_offset:
        refuse(name, "has a chunk outside of its data")
    plane_bytes = sum(attribute.n_planes for attribute in header.attributes)
    claimed = record.n_gaussians * max(plane_bytes, 1)
    if record.n_gaussians > header.n_gaussians or claimed > MEMORY_A_STORED_BYTE * record.n_bytes:
        refuse(name, "has a chunk that claims more Gaussians than its bytes can hold")
    if not record.first_time <= record.last_time:
        refuse(name, "has a chunk that ends before it begins")


def _field(
    document: Any, key: str, kind: type, *, minimum: int | None = None, maximum: int = 2**63 - 1, default: Any = None
) -> Any:
    if not isinstance(document, dict):
        raise ValueError("an entry is no object")
    value = document.get(key, default)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"`{key}` is missing or of the wrong type")
    if minimum is not None and not minimum <= cast(int, value) <= maximum:
        raise ValueError(f"`{key}` is out of range")
    return value


def _names(document: Any, key: str, default: list[str] | None = None) -> tuple[str, ...]:
    values = _field(document, key, list, default=default)
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"`{key}` must hold strings")
    return tuple(values)


def _numbers(document: Any, key: str, kind: tuple[type, ...], default: list[float] | None = None) -> tuple[Any, ...]:
    values = _field(document, key, list, default=default)
    if not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
        raise ValueError(f"`{key}` must hold numbers")
    return tuple(values)


def _attribute(entry: Any) -> Attribute:
    coding = _field(entry, "coding", str)
    if coding not in get_args(CodingName):
        raise ValueError(f"coding `{coding}` is unknown")
    most_bits = {"float32": 32, "float16": 16, "quantised": 24, "morton": 21, "rotation": 16, "codebook": 24}[coding]
    attribute = Attribute(
        name=_field(entry, "name", str),
        components=_field(entry, "components", int, minimum=0),
        coding=cast(CodingName, coding),
        bits=_field(entry, "bits", int, minimum=1, maximum=most_bits),
        delta=_field(entry, "delta", bool, default=False),
        packed=_field(entry, "packed", bool, default=False),
        moving=_field(entry, "moving", bool, default=False),
        codebooks=_names(entry, "codebooks", default=[]),
    )
    expected = {"morton": 3, "rotation": 4}.get(coding)
    if expected is not None and attribute.components != expected:
        raise ValueError(f"{coding} coding needs {expected} components")
    if coding in ("float32", "float16") and attribute.bits != most_bits:
        raise ValueError(f"{coding} coding has {most_bits} bits")
    if attribute.packed and (attribute.bits > PACKED_BITS or attribute.delta or coding == "morton"):
        raise ValueError(f"integers are packed that do not fit into {PACKED_BITS} bits")
    if coding == "rotation" and attribute.bits < 2:
        raise ValueError("rotation coding needs 2 bits")
    return attribute


def _tensor(entry: Any) -> TensorEntry:
    dtype = _field(entry, "dtype", str)
    if dtype not in get_args(TensorType):
        raise ValueError(f"dtype `{dtype}` is unknown")
    shape = _numbers(entry, "shape", (int,))
    if len(shape) > 8 or not all(0 <= length < 2**32 for length in shape):
        raise ValueError("`shape` is out of range")
    minimum = _numbers(entry, "minimum", (int, float), default=[])
    step = _numbers(entry, "step", (int, float), default=[])
    if len(minimum) != len(step) or (minimum and (not shape or len(minimum) not in (1, shape[-1]))):
        raise ValueError("`minimum` and `step` must have one number for each entry of the last axis, or one for all")
    return TensorEntry(
        name=_field(entry, "name", str),
        dtype=cast(TensorType, dtype),
        shape=shape,
        offset=_field(entry, "offset", int, minimum=0),
        n_bytes=_field(entry, "bytes", int, minimum=0),
        crc32=_field(entry, "crc32", int, minimum=0),
        minimum=minimum,
        step=step,
    )


def _check_names(header: Header) -> None:
    attributes = [attribute.name for attribute in header.attributes]
    tensors = {tensor.name: tensor for tensor in header.tensors}
    if len(set(attributes)) != len(attributes) or len(tensors) != len(header.tensors):
        raise ValueError("two attributes or two tensors have one name")
    for attribute in header.attributes:
        books = [tensors.get(name) for name in attribute.codebooks]
        if any(book is None or len(book.shape) != 2 or book.shape[0] == 0 for book in books):
            raise ValueError(f"`{attribute.name}` names a codebook that is missing or empty")
        width = sum(book.shape[1] for book in books if book is not None)
        if attribute.coding == "codebook" and width != attribute.components:
            raise ValueError(f"the codebooks of `{attribute.name}` do not add up to its components")


def _with_appearance(header: Header, entry: Any) -> Header:
    octaves = [_field(entry, "frequencies", int, minimum=0, maximum=MOST_FREQUENCIES)]
    if "time_frequencies" in entry:
        octaves.append(_field(entry, "time_frequencies", int, minimum=0, maximum=MOST_FREQUENCIES))
    spec = AppearanceSpec(*octaves)
    named = {attribute.name: attribute for attribute in header.attributes}
    if LATENTS not in named or named[LATENTS].components != N_LATENTS:
        raise ValueError(f"the networks need an attribute `{LATENTS}` of {N_LATENTS} components")
    if both := sorted(set(named) & set(MADE_HERE)):
        raise ValueError(f"`{both[0]}` is stored and made by networks")
    floats = {t.name: t for t in header.tensors if t.dtype.startswith("float") or t.minimum}
    n_coefficients = check_layers(spec, {name: tensor.shape for name, tensor in floats.items()})
    return replace(header, appearance=spec, n_coefficients=n_coefficients)


def _check_sizes(header: Header, prelude: Prelude, name: str, limits: Limits) -> None:
    for what, count, limit in (
        ("Gaussians", header.n_gaussians, limits.gaussians),
        ("attributes", len(header.attributes), limits.attributes),
        ("tensors", len(header.tensors), limits.tensors),
        ("numbers an attribute", max((a.components for a in header.attributes), default=0), limits.components),
        ("bytes once decoded", decoded_bytes(header), limits.decoded_bytes),
    ):
        if count > limit:
            raise InputError(f"{name} has {count} {what}, above the limit of {limit}.")
    for tensor in header.tensors:
        if prelude.data_offset + tensor.offset + tensor.n_bytes > prelude.index_offset:
            refuse(name, f"places tensor `{tensor.name}` outside of its data")
        if tensor.decoded_bytes > MEMORY_A_STORED_BYTE * tensor.n_bytes:
            refuse(name, f"has a tensor `{tensor.name}` that claims more than its bytes can hold")
