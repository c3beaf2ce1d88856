"""The .kino file: one trained scene, readable by byte ranges. The format is described in docs/format.md."""

from kinosplat.compression.kino.codings import (
    CodebookCoding,
    Coding,
    FloatCoding,
    MortonCoding,
    QuantisedCoding,
    RotationCoding,
)
from kinosplat.compression.kino.describe import describe, facts_of
from kinosplat.compression.kino.layout import Limits
from kinosplat.compression.kino.metadata import Metadata, StartCamera
from kinosplat.compression.kino.read import KinoFile, KinoReader, read_kino
from kinosplat.compression.kino.source import ByteSource, BytesSource, FileSource, HttpSource
from kinosplat.compression.kino.stream import StreamDecoder
from kinosplat.compression.kino.write import StoredAppearance, encode_kino, write_kino

__all__ = [
    "ByteSource",
    "BytesSource",
    "CodebookCoding",
    "Coding",
    "FileSource",
    "FloatCoding",
    "HttpSource",
    "KinoFile",
    "KinoReader",
    "Limits",
    "Metadata",
    "MortonCoding",
    "QuantisedCoding",
    "RotationCoding",
    "StartCamera",
    "StoredAppearance",
    "StreamDecoder",
    "describe",
    "encode_kino",
    "facts_of",
    "read_kino",
    "write_kino",
]
