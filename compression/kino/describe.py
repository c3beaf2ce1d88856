"""Explains a .kino file in plain lines, for `kinosplat info FILE`. Chunks are read and checked, so it also verifies
the file.
"""

from __future__ import annotations

from pathlib import Path

from kinosplat.compression.kino.layout import RECORD, Attribute
from kinosplat.compression.kino.planes import PayloadCursor
from kinosplat.compression.kino.read import KinoReader


def describe(path: str | Path) -> str:
    """What the file holds and where its bytes go; InputError when it is damaged."""
    reader = KinoReader(path)
    header, meta = reader.header, reader.metadata
    n_moving = sum(chunk.n_gaussians for chunk in reader.chunks if not chunk.is_still)
    lines = [
        f"{path}: .kino version {reader.prelude.version}, {reader.prelude.file_bytes:,} bytes, {header.kind}",
        f"  {header.n_gaussians:,} Gaussians ({n_moving:,} moving) in {len(reader.chunks)} chunks",
    ]
    if meta.duration is not None:
        lines.append(f"  {meta.duration:g} s" + (f" at {meta.fps:g} frames a second" if meta.fps else ""))
    if meta.bounds is not None:
        low, high = (" ".join(f"{value:.3g}" for value in corner) for corner in meta.bounds)
        lines.append(
            f"  from ({low}) to ({high})" + (f", up ({' '.join(f'{v:.3g}' for v in meta.up)})" if meta.up else "")
        )
    lines += [f"  {key}: {value}" for key, value in meta.provenance.items()]
    lines.append("  attribute        numbers  coding            bytes  bytes a Gaussian")
    for attribute, n_bytes in _bytes_by_attribute(reader).items():
        note = f"{attribute.coding} {attribute.bits}"
        lines.append(
            f"  {attribute.name:<16} {attribute.components:>7}  {note:<14} {n_bytes:>8,}"
            f"  {n_bytes / max(header.n_gaussians, 1):>16.2f}"
        )
    for tensor in header.tensors:
        shape = "x".join(str(length) for length in tensor.shape)
        lines.append(f"  tensor {tensor.name} {shape} {tensor.dtype}: {tensor.n_bytes:,} bytes")
    rest = reader.prelude.data_offset + RECORD.size * 2 * len(reader.chunks)
    lines.append(f"  header and index: {rest:,} bytes")
    for chunk in reader.chunks:
        seen = "always" if chunk.is_still else f"{chunk.first_time:.3f} s to {chunk.last_time:.3f} s"
        lines.append(
            f"  chunk at {chunk.offset}: {chunk.n_gaussians:,} Gaussians, {chunk.n_bytes:,} bytes, seen {seen}"
        )
    reader.gaussians()
    return "\n".join(lines)


def _bytes_by_attribute(reader: KinoReader) -> dict[Attribute, int]:
    totals = dict.fromkeys(reader.header.attributes, 0)
    for record in reader.chunks:
        cursor = PayloadCursor(reader.payload(record))
        for attribute in reader.header.attributes:
            if attribute.moving and record.is_still:
                continue
            before = cursor.n_left
            cursor.skip(attribute.n_planes, 8 * attribute.components if attribute.has_range else 0)
            totals[attribute] += before - cursor.n_left
    return totals
