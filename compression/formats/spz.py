"""SPZ of Niantic, versions 2 to 4.

Versions 2 and 3 are one gzip stream of a 16-byte header and the attributes one after another; version 4 is a 32-byte
header, a table of two 64-bit sizes a stream (stored, plain), and one zstd frame an attribute.

Positions are 24-bit fixed point, opacity and colour bytes, log-scales bytes (16 a unit, from -10), rotations three
bytes (version 2: x y z of the quaternion with w >= 0) or four (later: smallest three of x y z w, sign and 9 bits
each, place of the largest in the top two bits), SH bytes in 1/128 from 128, coefficient by coefficient. The axes in
the file are right, up, back; ours, like those of a PLY, are right, down, forward, so y and z change sign on the way,
and SH with them.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import zstandard
from numpy.typing import NDArray

from kinosplat.compression.formats.frame import checked
from kinosplat.compression.formats.imported import Imported
from kinosplat.compression.formats.packing import (
    SQRT_HALF,
    from_smallest_three,
    logit,
    normalised,
    sigmoid,
    smallest_three,
    to_uint8,
)
from kinosplat.compression.kino.metadata import Metadata
from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians

HEADER = struct.Struct("<IIIBBBB")
"""Magic, version, Gaussians, SH degree, fractional bits, flags; then a reserved byte, or the number of streams."""
TABLE_PLACE = struct.Struct("<I12x")
"""Of version 4: where the table of streams begins, and reserved bytes."""
STREAM = struct.Struct("<QQ")
ANTIALIASED = 1
"""The flag of sets that were trained with the compensation of Mip-Splatting."""
LONG_HEADER_BYTES = HEADER.size + TABLE_PLACE.size
ZSTD_LEVEL = 19
MAGIC = 0x5053474E
COLOR_SCALE = 0.15
DEFAULT_FRACTIONAL_BITS = 12
LARGEST_FIXED = 2**23 - 1
MAX_POINTS = 1 << 26
FLIPPED_AXES = np.array([1.0, -1.0, -1.0])
# Sign of each basis function of degree 1 to 3 when y and z are negated.
FLIPPED_SH = np.array([-1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1], np.float64)


def write_spz(
    path: Path,
    gaussians: Gaussians,
    metadata: Metadata,
    version: Literal[2, 3, 4] = 3,
    sh_bits: tuple[int, int] = (5, 4),
) -> None:
    """Write a still set, and whether it was trained with anti-aliasing.

    sh_bits: bits kept of SH of degree 1, and of degree 2 and up; 8 keeps all that the format can hold.
    Positions have 12 fractional bits, more in small scenes (so that the largest extent has 2^16 steps), fewer where
    the range needs it.
    """
    g = checked(gaussians)
    n, flags = len(g), ANTIALIASED if metadata.antialiased else 0
    means = g.means.numpy().astype(np.float64) * FLIPPED_AXES
    fractional_bits = _fractional_bits(means)
    fixed = np.clip(np.rint(means * 2.0**fractional_bits), -LARGEST_FIXED, LARGEST_FIXED).astype("<i4")
    quats = g.quats.numpy().astype(np.float64)
    rotations = np.concatenate([quats[:, 1:] * FLIPPED_AXES, quats[:, :1]], axis=1)  # x y z w; a half turn about x
    parts = [
        np.ascontiguousarray(fixed).view(np.uint8).reshape(n, 3, 4)[:, :, :3].tobytes(),
        to_uint8(255 * sigmoid(g.opacity_logits.numpy())).tobytes(),
        to_uint8(255 * (g.sh_dc.numpy().astype(np.float64) * COLOR_SCALE + 0.5)).tobytes(),
        to_uint8(16 * (g.log_scales.numpy().astype(np.float64) + 10)).tobytes(),
        _pack_rotations(rotations, version),
        _pack_sh(g.sh_rest.numpy(), sh_bits).tobytes(),
    ]
    if version < 4:
        header = HEADER.pack(MAGIC, version, n, g.sh_degree, fractional_bits, flags, 0)
        path.write_bytes(gzip.compress(header + b"".join(parts), compresslevel=9, mtime=0))
        return
    parts = [part for part in parts if part]
    header = HEADER.pack(MAGIC, version, n, g.sh_degree, fractional_bits, flags, len(parts))
    frames = [zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(part) for part in parts]
    table = b"".join(STREAM.pack(len(frame), len(part)) for frame, part in zip(frames, parts, strict=True))
    path.write_bytes(header + TABLE_PLACE.pack(LONG_HEADER_BYTES) + table + b"".join(frames))


def read_spz(path: Path) -> Imported:
    """Read a file of version 2, 3 or 4; InputError when it is of another version or cut off."""
    data = _decompress(path)
    if len(data) < HEADER.size:
        raise InputError(f"{path} ends inside its header; copy it again.")
    magic, version, n, degree, fractional_bits, flags, _ = HEADER.unpack_from(data)
    if magic != MAGIC or version not in (2, 3, 4):
        raise InputError(f"{path} is not an SPZ file of version 2, 3 or 4; convert it to one of them.")
    if degree > 3 or n > MAX_POINTS or fractional_bits > 23:
        raise InputError(f"{path} has {n} Gaussians of SH degree {degree}, which is out of range.")
    rotation_bytes, n_rest = 3 if version == 2 else 4, 3 * ((degree + 1) ** 2 - 1)
    if len(data) - HEADER.size < n * (9 + 1 + 3 + 3 + rotation_bytes + n_rest):
        raise InputError(f"{path} is cut off; copy it again.")
    offset = HEADER.size

    def take(width: int) -> NDArray[np.uint8]:
        nonlocal offset
        block = np.frombuffer(data, np.uint8, n * width, offset).reshape(n, width)
        offset += n * width
        return block

    octets = np.zeros((n, 3, 4), np.uint8)
    octets[:, :, 1:] = take(9).reshape(n, 3, 3)
    means = (octets.view("<i4")[:, :, 0] >> 8) / 2.0**fractional_bits * FLIPPED_AXES
    opacities, colors, scales = take(1)[:, 0], take(3), take(3)
    rotations = _unpack_rotations(take(rotation_bytes), version)
    rest = (take(n_rest).astype(np.float64) - 128) / 128
    rest = rest.reshape(n, n_rest // 3, 3) * FLIPPED_SH[: n_rest // 3, None]
    quats = np.concatenate([rotations[:, 3:], rotations[:, :3] * FLIPPED_AXES], axis=1)
    gaussians = Gaussians(
        means=torch.from_numpy(means.astype(np.float32)),
        quats=torch.from_numpy(quats.astype(np.float32)),
        log_scales=torch.from_numpy((scales / 16.0 - 10).astype(np.float32)),
        opacity_logits=torch.from_numpy(logit(opacities / 255.0)),
        sh_dc=torch.from_numpy(((colors / 255.0 - 0.5) / COLOR_SCALE).astype(np.float32)),
        sh_rest=torch.from_numpy(rest.astype(np.float32)),
    )
    return Imported(gaussians, Metadata(antialiased=bool(flags & ANTIALIASED)))


def _fractional_bits(means: NDArray[np.float64]) -> int:
    largest = max(float(np.abs(means).max()), 1e-9)
    extent = max(float(np.ptp(means, axis=0).max()), 1e-9)
    most = math.floor(math.log2(LARGEST_FIXED / largest))
    wanted = max(DEFAULT_FRACTIONAL_BITS, math.ceil(16 - math.log2(extent)))
    return max(0, min(wanted, most, 23))


def _pack_rotations(quats_xyzw: NDArray[np.float64], version: int) -> bytes:
    if version == 2:
        q = normalised(quats_xyzw)
        q = q * np.where(q[:, 3:] < 0, -1.0, 1.0)
        return to_uint8(127.5 * q[:, :3] + 127.5).tobytes()
    largest, others = smallest_three(quats_xyzw)
    words = largest.astype(np.uint32)
    for column in range(3):
        magnitude = np.floor(511 * np.abs(others[:, column]) / SQRT_HALF + 0.5).astype(np.uint32)
        words = (words << np.uint32(10)) | ((others[:, column] < 0).astype(np.uint32) << np.uint32(9)) | magnitude
    return words.astype("<u4").tobytes()


def _unpack_rotations(octets: NDArray[np.uint8], version: int) -> NDArray[np.float64]:
    """Quaternions x y z w (n, 4)."""
    if version == 2:
        xyz = octets / 127.5 - 1
        w = np.sqrt(np.maximum(0.0, 1 - (xyz * xyz).sum(axis=1, keepdims=True)))
        return np.concatenate([xyz, w], axis=1)
    words = np.ascontiguousarray(octets).view("<u4")[:, 0]
    others = np.empty((len(words), 3))
    for column, shift in enumerate((20, 10, 0)):
        part = (words >> np.uint32(shift)) & np.uint32(0x3FF)
        others[:, column] = (part & np.uint32(0x1FF)) / 511 * SQRT_HALF * np.where(part >> np.uint32(9), -1.0, 1.0)
    return from_smallest_three((words >> np.uint32(30)).astype(np.int64), others).astype(np.float64)


def _pack_sh(rest: NDArray[np.float32], sh_bits: tuple[int, int]) -> NDArray[np.uint8]:
    """Bytes (n, 3 K), each rounded to a multiple of 2^(8 - bits) as the reference code rounds."""
    flipped = rest.astype(np.float64) * FLIPPED_SH[: rest.shape[1], None]
    steps = np.where(np.arange(rest.shape[1]) < 3, 2 ** (8 - sh_bits[0]), 2 ** (8 - sh_bits[1]))[:, None].astype(
        np.int64
    )
    octets = np.rint(flipped * 128).astype(np.int64) + 128
    octets = (octets + steps // 2) // steps * steps
    return np.clip(octets, 0, 255).astype(np.uint8).reshape(len(rest), -1)


def _decompress(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    if raw[:4] == struct.pack("<I", MAGIC):
        return _joined_streams(path, raw)
    if raw[:2] != b"\x1f\x8b":
        raise InputError(f"{path} is not an SPZ file; check the path.")
    decompressor = zlib.decompressobj(wbits=31)
    try:
        data = decompressor.decompress(raw, HEADER.size)
        n = HEADER.unpack_from(data)[2] if len(data) == HEADER.size else 0
        # The header says how much can follow, so that a small file cannot unpack into a huge one.
        return data + decompressor.decompress(decompressor.unconsumed_tail, 1 + min(n, MAX_POINTS) * 100)
    except zlib.error as error:
        raise InputError(f"{path} is damaged; copy it again.") from error


def _joined_streams(path: Path, raw: bytes) -> bytes:
    """A file of version 4 as the 16 bytes and the attributes that a gzip stream would hold; nothing is decoded that is
    larger than the number of Gaussians allows.
    """
    if len(raw) < LONG_HEADER_BYTES:
        raise InputError(f"{path} ends inside its header; copy it again.")
    _, _, n, _, _, _, n_streams = HEADER.unpack_from(raw)
    (place,) = TABLE_PLACE.unpack_from(raw, HEADER.size)
    start = place + STREAM.size * n_streams
    if place < LONG_HEADER_BYTES or start > len(raw):
        raise InputError(f"{path} is cut off; copy it again.")
    parts = [raw[: HEADER.size]]
    for i in range(n_streams):
        stored, plain = STREAM.unpack_from(raw, place + STREAM.size * i)
        if start + stored > len(raw) or plain > 45 * min(n, MAX_POINTS):
            raise InputError(f"{path} is cut off; copy it again.")
        try:
            part = zstandard.ZstdDecompressor().decompress(raw[start : start + stored], max_output_size=max(plain, 1))
        except zstandard.ZstdError as error:
            raise InputError(f"{path} is damaged; copy it again.") from error
        if len(part) != plain:
            raise InputError(f"{path} is damaged; copy it again.")
        parts.append(part)
        start += stored
    return b"".join(parts)
