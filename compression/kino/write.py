"""Writes .kino files.

Gaussians are put into chunks by time and into Morton order within a chunk, so a file holds them in another order than
they came in. The file appears whole or not at all: it is written beside its place and renamed.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinosplat.compression.kino.codings import (
    CodebookCoding,
    Coding,
    FloatCoding,
    MortonCoding,
    attribute_of,
    encode,
)
from kinosplat.compression.kino.layout import (
    NETWORKS_VERSION,
    PACKED_BITS,
    PRELUDE,
    RECORD,
    VERSION,
    Attribute,
    ChunkRecord,
    Header,
    Prelude,
    TensorEntry,
)
from kinosplat.compression.kino.metadata import Metadata
from kinosplat.compression.kino.networks import LATENTS, MADE_HERE, AppearanceSpec
from kinosplat.compression.kino.planes import BEST_LEVEL, QUICK_LEVEL, pack_pairs, write_planes
from kinosplat.compression.kino.tensors import StoredTensor, encode_tensor, store_tensor
from kinosplat.compression.kino.time_chunks import CHUNK_GAUSSIANS, TimeChunk, time_chunks, visible_interval
from kinosplat.compression.whole import appearing
from kinosplat.render.gaussians import TIME_PARAMETER_NAMES, Gaussians


@dataclass(frozen=True)
class StoredAppearance:
    """Networks in the form in which they go to the file, and what they are fed."""

    spec: AppearanceSpec
    """For the header."""
    latents: NDArray[np.float32]
    """(N, 6), stored with the coding of the name `latents`."""
    tensors: Mapping[str, StoredTensor]
    """`appearance.frame` and the layers."""


def write_kino(
    path: str | Path,
    gaussians: Gaussians | None,
    codings: Mapping[str, Coding] | None = None,
    *,
    tensors: Mapping[str, StoredTensor] | None = None,
    metadata: Metadata | None = None,
    kind: str = "gaussians",
    model: Mapping[str, Any] | None = None,
    appearance: StoredAppearance | None = None,
    chunk_gaussians: tuple[int, int] = CHUNK_GAUSSIANS,
) -> int:
    """Write a file and return its size in bytes; arguments as in `encode_kino`."""
    data = encode_kino(
        gaussians,
        codings,
        tensors=tensors,
        metadata=metadata,
        kind=kind,
        model=model,
        appearance=appearance,
        chunk_gaussians=chunk_gaussians,
    )
    with appearing(Path(path)) as beside:
        beside.write_bytes(data)
    return len(data)


def encode_kino(
    gaussians: Gaussians | None,
    codings: Mapping[str, Coding] | None = None,
    *,
    tensors: Mapping[str, StoredTensor] | None = None,
    metadata: Metadata | None = None,
    kind: str = "gaussians",
    model: Mapping[str, Any] | None = None,
    appearance: StoredAppearance | None = None,
    chunk_gaussians: tuple[int, int] = CHUNK_GAUSSIANS,
) -> bytes:
    """The bytes of a file.

    gaussians: the set to store, or None for a model that is all tensors (`kind` names it, `model` has its numbers).
    codings: how to store each of its parameters, by the names of `Gaussians`; what is not named is stored as float32,
    exactly. tensors: further named tensors. metadata: facts about the scene; its bounds are filled in. appearance:
    latents and networks that stand for opacity and colour; those of the Gaussians then only say when they are seen.
    chunk_gaussians: a time segment with fewer than the first is merged with its neighbours, one with more than the
    second is cut.
    """
    metadata = metadata or Metadata()
    codings = dict(codings or {})
    values = {} if gaussians is None else attribute_values(gaussians)
    shown = dict(values)
    if appearance is not None:
        values = {name: array for name, array in values.items() if name not in MADE_HERE}
        values[LATENTS] = np.asarray(appearance.latents, np.float32)
    if unknown := sorted(set(codings) - set(values)):
        raise ValueError(f"codings names {', '.join(unknown)}, which the Gaussians do not have.")
    n = 0 if gaussians is None else len(gaussians)
    if n:
        means = values["means"]
        metadata = replace(metadata, bounds=(_corner(means.min(axis=0)), _corner(means.max(axis=0))))
    chunks = [] if gaussians is None else _chunks(shown, metadata.duration or 0.0, chunk_gaussians)
    if isinstance(codings.get("means"), MortonCoding):
        chunks = [_along_the_curve(chunk, values["means"], codings["means"]) for chunk in chunks]
    encoded = {
        name: _encode_attribute(name, array, codings.get(name, FloatCoding(32)), chunks)
        for name, array in values.items()
    }
    stored = {**(tensors or {}), **({} if appearance is None else appearance.tensors), **_codebooks(codings)}
    entries, tensor_bytes = _encode_tensors(stored)
    header = Header(
        kind,
        n,
        tuple(attribute for attribute, _ in encoded.values()),
        entries,
        metadata.to_json(),
        appearance=None if appearance is None else appearance.spec,
        model=model or {},
    ).to_json()
    body, records = _lay_out(
        chunks, [streams for _, streams in encoded.values()], PRELUDE.size + len(header) + len(tensor_bytes)
    )
    index = b"".join(record.pack() for record in records)
    index_offset = PRELUDE.size + len(header) + len(tensor_bytes) + len(body)
    version = VERSION if appearance is None else NETWORKS_VERSION
    prelude = Prelude(
        version, len(header), index_offset, index_offset + len(index), zlib.crc32(header), zlib.crc32(index)
    )
    return prelude.pack() + header + tensor_bytes + body + index


def _codebooks(codings: Mapping[str, Coding]) -> dict[str, StoredTensor]:
    """The tables that indices of attributes look into, by the names that attributes give them."""
    stored: dict[str, StoredTensor] = {}
    for name, coding in codings.items():
        if isinstance(coding, CodebookCoding):
            books = zip(attribute_of(name, 0, coding).codebooks, coding.codebooks, strict=True)
            stored |= {book_name: store_tensor(book, coding.table_bits) for book_name, book in books}
    return stored


def _encode_tensors(stored: Mapping[str, StoredTensor]) -> tuple[tuple[TensorEntry, ...], bytes]:
    """Their entries, and their bytes back to back."""
    entries, blocks, offset = [], [], 0
    for name, tensor in stored.items():
        entry, data = encode_tensor(name, tensor, offset)
        entries.append(entry)
        blocks.append(data)
        offset += len(data)
    return tuple(entries), b"".join(blocks)


def attribute_values(gaussians: Gaussians) -> dict[str, NDArray[np.float32]]:
    """The parameters as (N, C) float32 arrays, in the order in which a chunk holds them; SH rest is laid out
    coefficient by colour.
    """
    n = len(gaussians)
    arrays = {}
    for name, tensor in gaussians.parameters().items():
        components = tensor.numel() // n if n else int(np.prod(tensor.shape[1:], initial=1))
        arrays[name] = tensor.detach().cpu().float().numpy().reshape(n, components)
    return {name: array for name, array in arrays.items() if array.shape[1] > 0}


def _chunks(
    values: Mapping[str, NDArray[np.float32]], duration: float, chunk_gaussians: tuple[int, int]
) -> list[TimeChunk]:
    means = values["means"]
    least, most = chunk_gaussians
    if not np.isfinite(means).all():
        raise ValueError("means holds values that are not finite; remove those Gaussians before writing.")
    if "log_durations" not in values:
        is_still = np.ones(len(means), bool)
        return time_chunks(means, None, is_still, duration=0.0, least=least, most=most)
    log_durations = values["log_durations"][:, 0]
    is_still = np.isposinf(log_durations)
    if np.any(values["displacements"][is_still] != 0) or np.any(values["time_centres"][is_still] != 0):
        raise ValueError(
            "still Gaussians must have displacement 0 and time centre 0; call canonical_still before writing."
        )
    interval = visible_interval(
        values["opacity_logits"][:, 0], values["time_centres"][:, 0], np.where(is_still, 0, log_durations)
    )
    return time_chunks(means, interval, is_still, duration=duration, least=least, most=most)


def _along_the_curve(chunk: TimeChunk, means: NDArray[np.float32], coding: Coding) -> TimeChunk:
    """The chunk sorted by the codes that will be stored, so that their differences are small and positive."""
    codes, _ = encode(means, coding, chunk.rows, "means")
    return replace(chunk, rows=chunk.rows[np.argsort(codes[:, 0], kind="stable")])


def _encode_attribute(
    name: str, array: NDArray[np.float32], coding: Coding, chunks: list[TimeChunk]
) -> tuple[Attribute, list[bytes]]:
    """Table entry and one stream a chunk (empty where a still chunk leaves it out), with or without delta, whichever
    is smaller.
    """
    moving = name in TIME_PARAMETER_NAMES
    attribute = attribute_of(name, array.shape[1], coding, moving=moving)
    encoded = [None if chunk.is_still and moving else encode(array, coding, chunk.rows, name) for chunk in chunks]
    variants = [attribute] if attribute.delta else [attribute, replace(attribute, delta=True)]
    if attribute.bits <= PACKED_BITS and attribute.n_integers > 1 and attribute.coding != "morton":
        variants.append(replace(attribute, packed=True))

    def streams(variant: Attribute, level: int) -> list[bytes]:
        return [b"" if part is None else part[1] + _planes(part[0], variant, level) for part in encoded]

    best = variants[0]
    if len(variants) > 1:
        best = min(variants, key=lambda variant: sum(map(len, streams(variant, QUICK_LEVEL))))
    return best, streams(best, BEST_LEVEL)


def _planes(integers: NDArray[np.uint64], attribute: Attribute, level: int) -> bytes:
    if attribute.packed:
        return write_planes(pack_pairs(integers), 1, delta=False, level=level)
    return write_planes(integers, attribute.n_bytes, delta=attribute.delta, level=level)


def _lay_out(chunks: list[TimeChunk], streams: list[list[bytes]], offset: int) -> tuple[bytes, list[ChunkRecord]]:
    """Chunks with their records from `offset` on; `streams` has one a chunk for each attribute."""
    parts, records = [], []
    for i, chunk in enumerate(chunks):
        payload = b"".join(per_chunk[i] for per_chunk in streams)
        record = ChunkRecord(
            offset, len(payload), len(chunk.rows), chunk.first_time, chunk.last_time, chunk.is_still, 0
        ).with_checksum(payload)
        parts += [record.pack(), payload]
        records.append(record)
        offset += RECORD.size + len(payload)
    return b"".join(parts), records


def _corner(values: NDArray[np.float32]) -> tuple[float, float, float]:
    x, y, z = (round(float(value), 6) for value in values)
    return x, y, z
