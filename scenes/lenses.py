"""From the raw picture to the delivered one: channels, lens undistortion, area downscale.

Undistortion keeps K as it is, principal point, focal lengths and size included, so a delivered picture is what a
pinhole camera with the calibrated K would have taken. Pixels that no part of the raw picture reaches repeat its border
and are 0 in the mask: readers give such views a mask (`Delivery.leaves_gaps`). A raw picture of another size than its
intrinsics is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.scenes.distortion import Lens
from kinosplat.scenes.resample import area_resize

MAP_CACHE_BYTES = 256 * 2**20
"""Memory that undistortion maps may take together: 20 cameras of 1352x1014, or 15 of 1920x1080."""


@dataclass(frozen=True)
class Undistortion:
    """A lens together with the intrinsics and the size of the pictures it takes."""

    lens: Lens
    """The distortion."""
    K: tuple[float, float, float, float, float]
    """fx, fy, cx, cy, skew in pixels; the same before and after."""
    width: int
    """Width of raw and undistorted picture."""
    height: int
    """Height of raw and undistorted picture."""

    @property
    def n_bytes(self) -> int:
        """Size of the map that `_maps` keeps."""
        return self.width * self.height * 9


@dataclass(frozen=True)
class Delivery:
    """What happens to a raw picture on the way to the trainer; hashable, shared by all pictures of a camera."""

    raw_width: int
    """Width the raw picture must have, since the intrinsics belong to it."""
    raw_height: int
    """Height the raw picture must have."""
    width: int
    """Delivered width, at most raw_width."""
    height: int
    """Delivered height, at most raw_height."""
    undistortion: Undistortion | None = None
    """The lens to undo first, if there is one."""
    role: Literal["picture", "mask", "inverted mask"] = "picture"
    """A picture is delivered with 3 channels, or 4 when it has alpha; a mask with one, 0 outside."""

    def as_mask(self, inverted: bool = False) -> Delivery:
        """The same way for the mask of the picture; `inverted` when its file marks what is outside."""
        return replace(self, role="inverted mask" if inverted else "mask")

    @property
    def leaves_gaps(self) -> bool:
        """Whether undistortion leaves pixels without a source, which a mask then has to exclude."""
        if self.undistortion is None:
            return False
        # Lenses grow outwards, so the outermost pixels are the first to lose their source.
        x, y = _centres(self.raw_width), _centres(self.raw_height)
        edges = [(edge.expand_as(y), y) for edge in (x[0], x[-1])] + [(x, edge.expand_as(x)) for edge in (y[0], y[-1])]
        return not all(bool(_sources(self.undistortion, *edge)[1].all()) for edge in edges)

    def apply(self, raw: NDArray[Any], description: str = "The picture") -> NDArray[np.uint8]:
        """Raw (H, W) or (H, W, 1 to 4) uint8 or uint16 to delivered (height, width, 3 or 4) uint8, or (height, width)
        for a mask.

        A raw picture of another size raises an InputError that begins with `description`.
        """
        if raw.shape[:2] != (self.raw_height, self.raw_width):
            raise InputError(
                f"{description} is {raw.shape[1]}x{raw.shape[0]} pixels but its intrinsics are for "
                f"{self.raw_width}x{self.raw_height}; scale one of the two so that they agree."
            )
        is_mask = self.role != "picture"
        pixels = _as_mask(raw) if is_mask else _as_picture(raw)
        if self.role == "inverted mask":
            pixels = 255 - pixels
        if self.undistortion is None and (self.width, self.height) == (self.raw_width, self.raw_height):
            return pixels[..., 0] if is_mask else pixels
        values = pixels.astype(np.float32)
        has_alpha = values.shape[2] == 4
        if has_alpha:
            # Colours are averaged by how much of them is seen, else the colour hidden behind alpha 0 would bleed in.
            values[..., :3] *= values[..., 3:] / 255
        if self.undistortion is not None:
            values = _remap(values, self.undistortion, fill_gaps_with_zero=is_mask or has_alpha)
        if values.shape[:2] != (self.height, self.width):
            values = area_resize(values, self.width, self.height)
        if has_alpha:
            values[..., :3] /= np.maximum(values[..., 3:] / 255, 1 / 510)
        delivered = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return delivered[..., 0] if is_mask else delivered


def _as_picture(raw: NDArray[Any]) -> NDArray[np.uint8]:
    """Any number of channels and 8 or 16 bits to (H, W, 3 or 4) uint8."""
    pixels = _eight_bits(raw)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    match pixels.shape[2]:
        case 1:
            return np.repeat(pixels, 3, axis=2)
        case 2:
            return np.concatenate([np.repeat(pixels[..., :1], 3, axis=2), pixels[..., 1:]], axis=2)
        case _:
            return pixels[..., :4]


def _as_mask(raw: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W, 1) uint8: the largest of the channels; the alpha channel where there is one that says more than opaque."""
    pixels = raw[..., None] if raw.ndim == 2 else raw
    if pixels.shape[2] in (2, 4):
        alpha = pixels[..., -1:]
        pixels = alpha if int(alpha.min()) < np.iinfo(pixels.dtype).max else pixels[..., :-1]
    strongest = pixels.max(axis=2, keepdims=True)
    # Label pictures count with 0 and 1; anything else is a grey level.
    return strongest.astype(np.uint8) * np.uint8(255) if strongest.max() <= 1 else _eight_bits(strongest)


def _eight_bits(raw: NDArray[Any]) -> NDArray[np.uint8]:
    if raw.dtype == np.uint16:
        return ((raw.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return raw.astype(np.uint8, copy=False)


class _MapCache:
    """Undistortion maps by camera, the least recently used dropped beyond a number of bytes; safe to use from many
    threads.
    """

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes = n_bytes
        self._maps: OrderedDict[Undistortion, tuple[Tensor, Tensor]] = OrderedDict()
        self._lock = Lock()

    def __call__(self, undistortion: Undistortion) -> tuple[Tensor, Tensor]:
        with self._lock:
            if undistortion in self._maps:
                self._maps.move_to_end(undistortion)
                return self._maps[undistortion]
        maps = _sampling_grid(undistortion)
        with self._lock:
            self._maps[undistortion] = maps
            while len(self._maps) > 1 and sum(key.n_bytes for key in self._maps) > self._n_bytes:
                self._maps.popitem(last=False)
        return maps


_maps = _MapCache(MAP_CACHE_BYTES)


def _sampling_grid(undistortion: Undistortion) -> tuple[Tensor, Tensor]:
    """Where each undistorted pixel comes from: (H, W, 2) float32, -1 to 1 across the raw picture; whether inside it."""
    y, x = torch.meshgrid(_centres(undistortion.height), _centres(undistortion.width), indexing="ij")
    source, inside = _sources(undistortion, x, y)
    return source * torch.tensor([2 / undistortion.width, 2 / undistortion.height]) - 1, inside


def _centres(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64) + 0.5


def _sources(undistortion: Undistortion, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Raw coordinates (..., 2) float32 of undistorted pixel coordinates, and whether they lie in the raw picture."""
    fx, fy, cx, cy, skew = undistortion.K
    ideal_y = (y - cy) / fy
    ideal_x = (x - cx - skew * ideal_y) / fx
    real_x, real_y = undistortion.lens.distort(torch.stack([ideal_x, ideal_y], dim=-1)).unbind(-1)
    source = torch.stack([fx * real_x + skew * real_y + cx, fy * real_y + cy], dim=-1)
    inside = (source >= 0).all(-1) & (source[..., 0] <= undistortion.width) & (source[..., 1] <= undistortion.height)
    inside &= torch.hypot(ideal_x, ideal_y) < undistortion.lens.largest_radius
    return source.nan_to_num(nan=-1.0).float(), inside


def _remap(values: NDArray[np.float32], undistortion: Undistortion, fill_gaps_with_zero: bool) -> NDArray[np.float32]:
    """Bilinear lookup of (H, W, C) values at the map's sources."""
    grid, inside = _maps(undistortion)
    channels_first = torch.from_numpy(values).permute(2, 0, 1)[None]
    looked_up = torch.nn.functional.grid_sample(
        channels_first, grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0].permute(1, 2, 0)
    if fill_gaps_with_zero:
        looked_up = looked_up * inside[..., None]
    return np.ascontiguousarray(looked_up.numpy())
