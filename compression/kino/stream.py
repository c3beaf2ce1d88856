"""Decodes a .kino file while it arrives from front to back, without its index.

Feed it whatever bytes have come; it returns the Gaussians that became complete. Chunks come in the order of their
first time, so everything seen at a moment is there as soon as a chunk of a later first time appears.
"""

from __future__ import annotations

from kinosplat.compression.kino.layout import PRELUDE, RECORD, ChunkRecord, Header, Limits, Prelude
from kinosplat.compression.kino.metadata import Metadata
from kinosplat.compression.kino.parse import check_record, parse_header, parse_prelude, parse_record, refuse
from kinosplat.compression.kino.read import ChunkDecoder, check_payload, parse_metadata
from kinosplat.compression.kino.tensors import decode_tensor
from kinosplat.render.gaussians import Gaussians


class StreamDecoder:
    """State of one download; never holds more than one unfinished chunk."""

    def __init__(self, name: str = "the stream", limits: Limits | None = None) -> None:
        self.name = name
        self.header: Header | None = None
        self.metadata: Metadata | None = None
        self.complete_before: float = float("-inf")
        """Seconds; every moment before it has arrived whole."""
        self._limits = limits or Limits()
        self._prelude: Prelude | None = None
        self._decoder: ChunkDecoder | None = None
        self._tensors_left: list[int] = []
        self._pending = bytearray()
        self._offset = 0
        self._n_left = 0

    def feed(self, data: bytes) -> list[Gaussians]:
        """Take the next bytes; return the sets of the chunks they completed. InputError when the file is damaged."""
        self._pending += data
        if self._prelude is None and not self._take_prelude():
            return []
        if self._decoder is None and not self._take_header():
            return []
        assert self._decoder is not None
        assert self._prelude is not None
        if not self._take_tensors(self._decoder, self._prelude):
            return []
        return self._take_chunks(self._decoder, self._prelude)

    def _take(self, n_bytes: int) -> bytes | None:
        if len(self._pending) < n_bytes:
            return None
        piece = bytes(self._pending[:n_bytes])
        del self._pending[:n_bytes]
        self._offset += n_bytes
        return piece

    def _take_prelude(self) -> bool:
        if (piece := self._take(PRELUDE.size)) is None:
            return False
        self._prelude = parse_prelude(piece, self.name, self._limits)
        return True

    def _take_header(self) -> bool:
        assert self._prelude is not None
        if (piece := self._take(self._prelude.header_bytes)) is None:
            return False
        self.header = parse_header(piece, self._prelude, self.name, self._limits)
        self.metadata = parse_metadata(self.header, self.name)
        self._decoder = ChunkDecoder(self.header, self.name)
        self._n_left = self.header.n_gaussians
        self._tensors_left = list(range(len(self.header.tensors)))
        return True

    def _take_tensors(self, decoder: ChunkDecoder, prelude: Prelude) -> bool:
        while self._tensors_left:
            entry = decoder.header.tensors[self._tensors_left[0]]
            if prelude.data_offset + entry.offset != self._offset:
                refuse(self.name, f"places tensor `{entry.name}` where it cannot be streamed")
            if (piece := self._take(entry.n_bytes)) is None:
                return False
            decoder.tables[entry.name] = decode_tensor(entry, piece, self.name)
            del self._tensors_left[0]
        return True

    def _take_chunks(self, decoder: ChunkDecoder, prelude: Prelude) -> list[Gaussians]:
        sets: list[Gaussians] = []
        while self._offset < prelude.index_offset and len(self._pending) >= RECORD.size:
            head = bytes(self._pending[: RECORD.size])
            record = parse_record(head)
            self._check(record, decoder, prelude)
            self.complete_before = max(self.complete_before, record.first_time)
            if (piece := self._take(RECORD.size + record.n_bytes)) is None:
                return sets
            check_payload(record, head, piece[RECORD.size :], self.name)
            sets.append(decoder.decode(record.n_gaussians, [(record, piece[RECORD.size :])]))
            self._n_left -= record.n_gaussians
        if self._offset >= prelude.index_offset:
            self.complete_before = float("inf")
        return sets

    def _check(self, record: ChunkRecord, decoder: ChunkDecoder, prelude: Prelude) -> None:
        check_record(record, prelude, decoder.header, self.name)
        if record.offset != self._offset or record.n_gaussians > self._n_left:
            refuse(self.name, "has a chunk that does not stand where it says")
