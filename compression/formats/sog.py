"""SOG version 2 of PlayCanvas: a ZIP of lossless WebP textures, one texel a Gaussian in Morton order, and meta.json.

means_l/u: 16 bits an axis over the range of sign(x) ln(1 + |x|); quats: smallest three of w x y z in bytes, alpha 252
+ place of the largest; scales, sh0: indices into one codebook of 256 numbers each, sh0's alpha is the opacity;
shN_labels: index into a palette of SH vectors, whose numbers in shN_centroids are again indices into a codebook of
256. Bundles are read, and folders with a meta.json.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from kinosplat.compression.formats.frame import checked
from kinosplat.compression.formats.packing import (
    SQRT_HALF,
    from_smallest_three,
    logit,
    sigmoid,
    smallest_three,
    to_uint8,
)
from kinosplat.compression.morton import morton_order
from kinosplat.compression.svq import kmeans
from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians

PALETTE_COLUMNS = 64
MAX_POINTS = 1 << 26
MAX_META_BYTES = 1 << 20


def write_sog(
    path: Path, gaussians: Gaussians, *, largest_palette: int = 16384, iterations: int = 8, seed: int = 0
) -> None:
    """Write a still set as a bundle.

    largest_palette: SH vectors kept of degree 1 and up, at most; the format allows 65536, more take longer to find.
    """
    g = checked(gaussians)
    g = g.select(torch.from_numpy(morton_order(g.means.numpy())))
    meta, files = _still_parts(g)
    if g.sh_degree:
        meta["shN"], rest = _rest_parts(g, largest_palette, iterations, seed)
        files |= rest
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {"meta.json": json.dumps(meta).encode(), **files}.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def _still_parts(g: Gaussians) -> tuple[dict[str, Any], dict[str, bytes]]:
    """meta.json and the textures of everything but view dependence."""
    logs = np.sign(g.means.numpy()) * np.log1p(np.abs(g.means.numpy().astype(np.float64)))
    low, high = logs.min(axis=0), logs.max(axis=0)
    fixed = np.rint((logs - low) / np.where(high > low, high - low, 1.0) * 65535).astype(np.uint16)
    largest, others = smallest_three(g.quats.numpy())
    quats = np.concatenate([to_uint8(255 * (others / SQRT_HALF * 0.5 + 0.5)), 252 + largest[:, None]], axis=1)
    scale_book, scale_indices = codebook_256(g.log_scales.numpy())
    color_book, color_indices = codebook_256(g.sh_dc.numpy())
    opacity = to_uint8(255 * sigmoid(g.opacity_logits.numpy()))[:, None]
    meta: dict[str, Any] = {
        "version": 2,
        "asset": {"generator": "kinosplat"},
        "count": len(g),
        "means": {"mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"codebook": scale_book.tolist(), "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": color_book.tolist(), "files": ["sh0.webp"]},
    }
    return meta, {
        "means_l.webp": _texture(fixed & 255),
        "means_u.webp": _texture(fixed >> 8),
        "quats.webp": _texture(quats),
        "scales.webp": _texture(scale_indices),
        "sh0.webp": _texture(np.concatenate([color_indices, opacity], axis=1)),
    }


def _rest_parts(
    g: Gaussians, largest_palette: int, iterations: int, seed: int
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The entry `shN` of meta.json and its textures."""
    palette, labels = _palette(g.sh_rest, largest_palette, iterations, seed)
    book, indices = codebook_256(palette)
    rows = -(-len(palette) // PALETTE_COLUMNS)
    texels = np.zeros((rows * PALETTE_COLUMNS, palette.shape[1], 4), np.uint8)
    texels[: len(palette), :, :3] = indices
    texels[..., 3] = 255
    meta = {
        "count": len(palette),
        "bands": g.sh_degree,
        "codebook": book.tolist(),
        "files": ["shN_centroids.webp", "shN_labels.webp"],
    }
    return meta, {
        "shN_centroids.webp": _webp(texels.reshape(rows, PALETTE_COLUMNS * palette.shape[1], 4)),
        "shN_labels.webp": _texture(np.stack([labels & 255, labels >> 8, 0 * labels], axis=1)),
    }


def _texture(channels: NDArray[Any]) -> bytes:
    """A picture with one texel for each row of `channels` (n, 1 to 4), its sides multiples of four."""
    n = len(channels)
    width = -(-math.ceil(math.sqrt(n)) // 4) * 4
    height = -(-n // (4 * width)) * 4
    texels = np.full((width * height, 4), 255, np.uint8)
    texels[:n, : channels.shape[1]] = channels
    texels[n:] = 0
    return _webp(texels.reshape(height, width, 4))


def read_sog(path: Path) -> Gaussians:
    """Read a bundle, or the folder or meta.json of an unbundled file; InputError when a part is missing or too
    small.
    """
    if path.is_dir() or path.name == "meta.json":
        folder = path if path.is_dir() else path.parent
        return _read(path, lambda name: (folder / Path(name).name).read_bytes())
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive.read)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path} is not a SOG bundle; give a .sog file or the folder with its meta.json.") from error


def _read(path: Path, load: Callable[[str], bytes]) -> Gaussians:
    try:
        meta = json.loads(load("meta.json")[:MAX_META_BYTES])
        if meta.get("version") != 2:
            raise InputError(f"{path} is SOG version {meta.get('version', 1)}; convert it to version 2.")
        n = int(meta["count"])
        if not 0 < n <= MAX_POINTS:
            raise InputError(f"{path} says that it has {n} Gaussians, which is out of range.")

        def texels(name: str) -> NDArray[np.uint8]:
            octets = _image(load(name)).reshape(-1, 4)
            if len(octets) < n:
                raise ValueError(f"{name} has fewer texels than Gaussians")
            return octets[:n]

        low, high = (np.array(meta["means"][end], np.float64) for end in ("mins", "maxs"))
        means_l, means_u = (texels(name)[:, :3].astype(np.int64) for name in meta["means"]["files"])
        logs = low + (high - low) * (means_l + 256 * means_u) / 65535
        quats = texels(meta["quats"]["files"][0]).astype(np.int64)
        others = (quats[:, :3] / 255 * 2 - 1) * SQRT_HALF
        colors = texels(meta["sh0"]["files"][0])
        scale_book, color_book = (np.array(meta[part]["codebook"], np.float32) for part in ("scales", "sh0"))
        return Gaussians(
            means=torch.from_numpy((np.sign(logs) * np.expm1(np.abs(logs))).astype(np.float32)),
            quats=torch.from_numpy(from_smallest_three(np.clip(quats[:, 3] - 252, 0, 3), others)),
            log_scales=torch.from_numpy(scale_book[texels(meta["scales"]["files"][0])[:, :3]]),
            opacity_logits=torch.from_numpy(logit(colors[:, 3] / 255)),
            sh_dc=torch.from_numpy(color_book[colors[:, :3]]),
            sh_rest=torch.from_numpy(_read_rest(meta.get("shN"), n, load, texels)),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} has parts that are missing or damaged ({error}); export it again.") from error


def _read_rest(
    part: Any, n: int, load: Callable[[str], bytes], texels: Callable[[str], NDArray[np.uint8]]
) -> NDArray[np.float32]:
    if not part:
        return np.zeros((n, 0, 3), np.float32)
    n_coefficients = {1: 3, 2: 8, 3: 15}[int(part["bands"])]
    book = np.array(part["codebook"], np.float32)
    palette = _image(load(part["files"][0])).reshape(-1, n_coefficients, 4)[:, :, :3]
    octets = texels(part["files"][1]).astype(np.int64)
    return book[palette[octets[:, 0] + 256 * octets[:, 1]]]


def codebook_256(values: NDArray[np.float32], iterations: int = 20) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """256 increasing numbers that stand for `values` of any shape with little squared error, and which one stands for
    each.

    Lloyd's iteration in one dimension on the sorted values, started at their quantiles.
    """
    flat = np.sort(values.reshape(-1).astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(flat)])
    centres = flat[np.linspace(0, len(flat) - 1, 256).round().astype(np.int64)]
    for _ in range(iterations):
        edges = np.concatenate([[0], np.searchsorted(flat, (centres[1:] + centres[:-1]) / 2), [len(flat)]])
        counts = np.diff(edges)
        centres = np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), centres)
        centres.sort()
    book = centres.astype(np.float32)
    indices = np.searchsorted((book[1:].astype(np.float64) + book[:-1]) / 2, values)
    return book, indices.astype(np.uint8)


def _palette(
    sh_rest: torch.Tensor, largest: int, iterations: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """SH vectors (P, K, 3) and which one (N,) stands for each Gaussian; P as the format's own writer chooses it."""
    n = len(sh_rest)
    size = max(1, min(largest, 65536, int(1024 * 2 ** math.floor(math.log2(n / 1024)))))
    book, labels = kmeans(sh_rest.reshape(n, -1), size, iterations=iterations, seed=seed)
    return book.reshape(len(book), -1, 3).numpy(), labels.numpy()


def _webp(texels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    # `exact` keeps the colour of transparent texels, which hold data here.
    Image.fromarray(texels, "RGBA").save(stream, "WEBP", lossless=True, quality=100, method=4, exact=True)
    return stream.getvalue()


def _image(content: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
        return np.asarray(image.convert("RGBA"))
