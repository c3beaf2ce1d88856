"""What a .kino file holds and where its bytes go, for `kinosplat info FILE`. Everything in the file is read and checked
on the way, so it also verifies the file.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from kinosplat.compression.kino.layout import RECORD, Attribute
from kinosplat.compression.kino.planes import PayloadCursor
from kinosplat.compression.kino.read import KinoReader

LINE_WIDTH = 120
"""Columns, beyond which what a model is made of is wrapped."""


def facts_of(path: str | Path) -> dict[str, Any]:
    """The contents as plain values that JSON can hold; InputError when the file is damaged."""
    reader = KinoReader(path)
    header = reader.header
    reader.tensors()
    reader.gaussians()
    return {
        "file": str(path),
        "version": reader.prelude.version,
        "bytes": reader.prelude.file_bytes,
        "kind": header.kind,
        "gaussians": header.n_gaussians,
        "moving": sum(chunk.n_gaussians for chunk in reader.chunks if not chunk.is_still),
        "metadata": reader.metadata.to_json(),
        "model": dict(header.model),
        "header_bytes": reader.prelude.data_offset + RECORD.size * 2 * len(reader.chunks),
        "attributes": [
            {"name": a.name, "components": a.components, "coding": a.coding, "bits": a.bits, "bytes": n_bytes}
            for a, n_bytes in _bytes_by_attribute(reader).items()
        ],
        "tensors": [
            {"name": t.name, "shape": list(t.shape), "dtype": t.dtype, "bytes": t.n_bytes} for t in header.tensors
        ],
        "chunks": [
            {"offset": chunk.offset, "gaussians": chunk.n_gaussians, "bytes": chunk.n_bytes}
            | ({} if chunk.is_still else {"first_time": chunk.first_time, "last_time": chunk.last_time})
            for chunk in reader.chunks
        ],
    }


def describe(path: str | Path) -> str:
    """The contents in plain lines; InputError when the file is damaged."""
    facts = facts_of(path)
    lines = [f"{path}: .kino version {facts['version']}, {facts['bytes']:,} bytes, {facts['kind']}"]
    if facts["attributes"]:
        lines.append(
            f"  {facts['gaussians']:,} Gaussians ({facts['moving']:,} moving) in {len(facts['chunks'])} chunks"
        )
    lines += _scene_lines(facts["metadata"])
    if facts["model"]:
        model = ", ".join(f"{key.replace('_', ' ')} {value_words(value)}" for key, value in facts["model"].items())
        lines += textwrap.wrap(model, LINE_WIDTH, initial_indent="  ", subsequent_indent="  ")
    if facts["attributes"]:
        lines.append("  attribute        numbers  coding            bytes  bytes a Gaussian")
    for a in facts["attributes"]:
        each = a["bytes"] / max(facts["gaussians"], 1)
        coding = f"{a['coding']} {a['bits']}"
        lines.append(f"  {a['name']:<16} {a['components']:>7}  {coding:<14} {a['bytes']:>8,}  {each:>16.2f}")
    for t in facts["tensors"]:
        lines.append(f"  tensor {t['name']} {'x'.join(map(str, t['shape']))} {t['dtype']}: {t['bytes']:,} bytes")
    lines.append(f"  header and index: {facts['header_bytes']:,} bytes")
    for chunk in facts["chunks"]:
        seen = f"{chunk['first_time']:.3f} s to {chunk['last_time']:.3f} s" if "first_time" in chunk else "always"
        lines.append(
            f"  chunk at {chunk['offset']}: {chunk['gaussians']:,} Gaussians, {chunk['bytes']:,} bytes, seen {seen}"
        )
    return "\n".join(lines)


def value_words(value: Any) -> str:
    """A value of JSON for people to read."""
    if isinstance(value, list | tuple):
        return " ".join(map(value_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _scene_lines(metadata: dict[str, Any]) -> list[str]:
    lines = []
    if "duration" in metadata:
        rate = f" at {metadata['fps']:g} frames a second" if "fps" in metadata else ""
        lines.append(f"  {metadata['duration']:g} s{rate}")
    if "bounds" in metadata:
        low, high = (" ".join(f"{value:.3g}" for value in corner) for corner in metadata["bounds"])
        up = f", up ({' '.join(f'{value:.3g}' for value in metadata['up'])})" if "up" in metadata else ""
        lines.append(f"  from ({low}) to ({high}){up}")
    return lines + [f"  {key}: {value}" for key, value in metadata.get("provenance", {}).items()]


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
