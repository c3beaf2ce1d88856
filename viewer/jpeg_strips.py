"""One JPEG out of several that were encoded side by side.

A picture is cut into strips of whole rows of blocks, every strip is encoded on a thread of its own, and the codes of
the strips are put behind one another with the restart markers of the format in between (ITU-T T.81, B.1.1.2 and
E.1.4): at a marker a decoder forgets what came before, as at the beginning of a file. So the result is an ordinary
baseline JPEG whose pixels are exactly those of the picture encoded at once; each marker costs a few bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

BLOCK = 16
"""Rows and columns of pixels that are coded together with halved colour; with full colour it is half of that."""
LARGEST_INTERVAL = 65535
"""Coded blocks between two restart markers at most: the format has 16 bits for it."""
_START_OF_FRAME, _START_OF_SCAN, _RESTART_INTERVAL, _RESTART, _END = 0xC0, 0xDA, 0xDD, 0xD0, b"\xff\xd9"


def strip_rows(height: int, n_strips: int) -> int:
    """Rows of every strip but the last, so that at most `n_strips` of whole blocks make up `height`."""
    n_block_rows = -(-height // BLOCK)
    return BLOCK * -(-n_block_rows // max(1, n_strips))


def join_strips(strips: Sequence[bytes], width: int, height: int) -> bytes:
    """The JPEG of `width` x `height` pixels that baseline JPEGs of its strips make, from top to bottom.

    All strips but the last have the rows that `strip_rows` says, and the same tables, as one encoder makes them with
    the same settings; ValueError where they do not agree.
    """
    if len(strips) == 1:
        return strips[0]
    parts = [_split(strip) for strip in strips]
    (before, frame, after, first_codes) = parts[0]
    if any((part[0], part[1][3:], part[2]) != (before, frame[3:], after) for part in parts[1:]):
        raise ValueError("The strips of a JPEG must have the same width and the same tables.")
    # A frame is: precision, height, width, number of colours, and of each its name, sampling and table.
    rows, sampling = int.from_bytes(frame[1:3], "big"), frame[7]
    n_coded = -(-width // (8 * (sampling >> 4))) * -(-rows // (8 * (sampling & 15)))
    if n_coded > LARGEST_INTERVAL:
        raise ValueError(f"A strip of {n_coded} blocks is larger than a JPEG can say; cut the picture into more.")
    pieces = [before, _segment(_START_OF_FRAME, frame[:1] + height.to_bytes(2, "big") + frame[3:])]
    pieces += [_segment(_RESTART_INTERVAL, n_coded.to_bytes(2, "big")), after, first_codes]
    for i, (*_, codes) in enumerate(parts[1:]):
        pieces += [bytes((0xFF, _RESTART + i % 8)), codes]
    return b"".join([*pieces, _END])


def _split(jpeg: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """What comes before the frame, the frame, what comes between it and the codes, and the codes of a baseline JPEG."""
    place = 2
    frame_at = frame_end = 0
    while True:
        if place + 4 > len(jpeg) or jpeg[place] != 0xFF:
            raise ValueError("A strip is no JPEG.")
        marker = jpeg[place + 1]
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        if marker == _START_OF_FRAME:
            frame_at, frame_end = place, end
        if marker == _START_OF_SCAN:
            break
        place = end
    if frame_at == 0 or not jpeg.endswith(_END):
        raise ValueError("A strip is no baseline JPEG.")
    return jpeg[:frame_at], jpeg[frame_at + 4 : frame_end], jpeg[frame_end:end], jpeg[end:-2]


def _segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content
