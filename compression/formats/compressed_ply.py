"""PlayCanvas compressed PLY: chunks of 256 Gaussians in Morton order, 16 bytes a Gaussian, SH of degree 1 and up in
bytes.

Element `chunk` holds the range of positions, log-scales and colours; `vertex` holds four packed words: position and
scale 11-10-11 bits, rotation 2-10-10-10 (place of the largest of w x y z, then the other three), colour and opacity
8-8-8-8; `sh` holds f_rest_* as bytes over [-4, 4]. Files without colour ranges, written before 2024, are read too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kinosplat.compression.formats.frame import checked
from kinosplat.compression.formats.packing import (
    SQRT_HALF,
    color_of,
    dc_of,
    from_smallest_three,
    logit,
    sigmoid,
    smallest_three,
)
from kinosplat.compression.formats.ply_container import read_elements, write_elements
from kinosplat.compression.morton import morton_order
from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians

CHUNK = 256
RANGES = (
    [f"{end}_{axis}" for end in ("min", "max") for axis in "xyz"],
    [f"{end}_scale_{axis}" for end in ("min", "max") for axis in "xyz"],
    [f"{end}_{channel}" for end in ("min", "max") for channel in "rgb"],
)
WORDS = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
LARGEST_LOG_SCALE = 20.0  # of either sign; the format's own writer clips there
SH_RANGE = 8.0


def write_compressed_ply(path: Path, gaussians: Gaussians) -> None:
    """Write a still set; positions are within 1/2047 of a chunk's box (1/1023 for y)."""
    g = checked(gaussians)
    g = g.select(torch.from_numpy(morton_order(g.means.numpy())))
    n = len(g)
    chunk_of = np.arange(n) // CHUNK
    starts = np.arange(0, n, CHUNK)
    values = (
        g.means.numpy(),
        g.log_scales.numpy().clip(-LARGEST_LOG_SCALE, LARGEST_LOG_SCALE),
        color_of(g.sh_dc.numpy()).astype(np.float32),
    )
    chunks = np.empty(len(starts), np.dtype([(name, "<f4") for names in RANGES for name in names]))
    shares = []
    for names, array in zip(RANGES, values, strict=True):
        low, high = np.minimum.reduceat(array, starts), np.maximum.reduceat(array, starts)
        for i in range(3):
            chunks[names[i]], chunks[names[i + 3]] = low[:, i], high[:, i]
        extent = (high - low).astype(np.float64)
        shares.append((array - low[chunk_of]) / np.where(extent > 0, extent, 1.0)[chunk_of])

    largest, others = smallest_three(g.quats.numpy())
    table = np.empty(n, np.dtype([(name, "<u4") for name in WORDS]))
    table["packed_position"] = _pack(shares[0], (11, 10, 11))
    table["packed_rotation"] = (largest.astype(np.uint32) << np.uint32(30)) | _pack(others * SQRT_HALF + 0.5, (10,) * 3)
    table["packed_scale"] = _pack(shares[1], (11, 10, 11))
    opacity = sigmoid(g.opacity_logits.numpy())[:, None]
    table["packed_color"] = _pack(np.concatenate([shares[2], opacity], axis=1), (8,) * 4)
    elements: dict[str, NDArray[Any]] = {"chunk": chunks, "vertex": table}
    if g.sh_degree:
        rest = g.sh_rest.transpose(1, 2).reshape(n, -1).numpy()
        sh = np.empty(n, np.dtype([(f"f_rest_{i}", "u1") for i in range(rest.shape[1])]))
        for i in range(rest.shape[1]):
            sh[f"f_rest_{i}"] = np.clip(np.trunc((rest[:, i] / SH_RANGE + 0.5) * 256), 0, 255)
        elements["sh"] = sh
    write_elements(path, elements)


def read_compressed_ply(path: Path) -> Gaussians:
    """Read a compressed PLY; InputError when an element or column is missing."""
    elements = read_elements(path)
    if not {"chunk", "vertex"} <= elements.keys() or not set(WORDS) <= set(elements["vertex"].dtype.names or ()):
        raise InputError(f"{path} is not a compressed PLY; give one that PlayCanvas tools wrote.")
    chunks, table = elements["chunk"], elements["vertex"]
    n = len(table)
    have = set(chunks.dtype.names or ())
    if len(chunks) < -(-n // CHUNK) or not set(RANGES[0] + RANGES[1]) <= have:
        raise InputError(f"{path} has too few chunks for its {n} Gaussians; export it again.")
    chunk_of = np.arange(n) // CHUNK

    def spread(shares: NDArray[np.float64], names: list[str]) -> NDArray[np.float64]:
        low = np.stack([chunks[name] for name in names[:3]], axis=1).astype(np.float64)[chunk_of]
        high = np.stack([chunks[name] for name in names[3:]], axis=1).astype(np.float64)[chunk_of]
        return low * (1 - shares) + high * shares

    colors = _unpack(table["packed_color"], (8,) * 4)
    rgb = spread(colors[:, :3], RANGES[2]) if set(RANGES[2]) <= have else colors[:, :3]
    rotation = table["packed_rotation"]
    others = (_unpack(rotation & np.uint32(0x3FFFFFFF), (10,) * 3) - 0.5) / SQRT_HALF
    return Gaussians(
        means=torch.from_numpy(spread(_unpack(table["packed_position"], (11, 10, 11)), RANGES[0]).astype(np.float32)),
        quats=torch.from_numpy(from_smallest_three((rotation >> np.uint32(30)).astype(np.int64), others)),
        log_scales=torch.from_numpy(spread(_unpack(table["packed_scale"], (11, 10, 11)), RANGES[1]).astype(np.float32)),
        opacity_logits=torch.from_numpy(logit(colors[:, 3])),
        sh_dc=torch.from_numpy(dc_of(rgb)),
        sh_rest=_read_rest(elements.get("sh"), n, path),
    )


def _read_rest(sh: NDArray[Any] | None, n: int, path: Path) -> torch.Tensor:
    if sh is None:
        return torch.zeros(n, 0, 3)
    names = sh.dtype.names or ()
    if len(sh) != n or len(names) not in (9, 24, 45) or set(names) != {f"f_rest_{i}" for i in range(len(names))}:
        raise InputError(f"{path} has an element `sh` of the wrong size; export it again.")
    octets = np.stack([sh[f"f_rest_{i}"] for i in range(len(names))], axis=1).astype(np.float64)
    shares = np.where(octets == 0, 0.0, np.where(octets == 255, 1.0, (octets + 0.5) / 256))
    rest = torch.from_numpy(((shares - 0.5) * SH_RANGE).astype(np.float32))
    return rest.reshape(n, 3, -1).transpose(1, 2).contiguous()


def _pack(shares: NDArray[np.float64], bits: tuple[int, ...]) -> NDArray[np.uint32]:
    """Shares (n, C) in [0, 1] side by side in a word, the first one highest."""
    word = np.zeros(len(shares), np.uint32)
    for column, width in enumerate(bits):
        top = (1 << width) - 1
        part = np.clip(np.floor(shares[:, column] * top + 0.5), 0, top).astype(np.uint32)
        word = (word << np.uint32(width)) | part
    return word


def _unpack(words: NDArray[np.uint32], bits: tuple[int, ...]) -> NDArray[np.float64]:
    shares = np.empty((len(words), len(bits)))
    shift = sum(bits)
    for column, width in enumerate(bits):
        shift -= width
        top = (1 << width) - 1
        shares[:, column] = ((words >> np.uint32(shift)) & np.uint32(top)) / top
    return shares
