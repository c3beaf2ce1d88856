"""Pixels out of many pictures: the pictures lie as bytes on the device, and every step draws from all of them.

When not all of them fit, a window slides over an endless shuffled sequence of the views, one view every few steps.
What a step draws depends on the seed and the step alone. A picture that cannot be read is an InputError.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.scenes import FrameLoader, View, ViewSampler
from kinosplat.trainers.batch import MaskUse
from kinosplat.trainers.draws import generator

POOL_BYTES = 2 * 2**30
"""Default size of the pool: 2000 pictures of 512x512."""
CHANNELS = 5
"""Bytes a pixel: red, green, blue, alpha, weight."""
LOADER_BYTES = 256 * 2**20
"""Room for pictures that are read ahead on their way into the pool."""
MOST_WORKERS = 16
"""Threads that decode pictures at most; they are done before the first step, when nothing else is to be done."""
STEPS_A_VIEW = 8
"""When not all pictures fit, one is exchanged every so many steps."""


@dataclass(frozen=True)
class Pixels:
    """R pixels drawn at random, each picture as often as another."""

    views: Tensor
    """(R,) int64 places in the sequence of views."""
    places: Tensor
    """(R, 2) float32 x and y of the centres, pixels."""
    rgb: Tensor
    """(R, 3) float32 in [0, 1], not multiplied with alpha."""
    alpha: Tensor | None
    """(R,) float32 in [0, 1]; None when everything is opaque."""
    weight: Tensor | None
    """(R,) float32 in [0, 1], how much each counts; None when all count."""


class PixelPool:
    """Holds the pictures of `views`, or as many of them as fit."""

    def __init__(
        self,
        views: Sequence[View],
        seed: int,
        mask_use: MaskUse,
        device: torch.device,
        *,
        max_bytes: int | None = None,
    ) -> None:
        """`max_bytes` is part of what determines the draws; nothing is loaded before the first one."""
        self._views = views
        self._seed = seed
        self._mask_use = mask_use
        self._device = device
        self._sizes = torch.tensor([[view.camera.width, view.camera.height] for view in views], device=device)
        largest = int(self._sizes.prod(dim=1).max())
        fitting = (POOL_BYTES if max_bytes is None else max_bytes) // (CHANNELS * largest)
        self._n_slots = min(len(views), max(fitting, 1))
        self._order = ViewSampler(views, seed)
        n_workers = min(max((os.cpu_count() or 2) // 2, 2), MOST_WORKERS)
        self._loader = FrameLoader(views, cache_bytes=LOADER_BYTES, n_workers=n_workers)
        self._data = torch.empty(self._n_slots, largest, CHANNELS, dtype=torch.uint8, device=device)
        self._held: list[int] = [-1] * self._n_slots
        self._view_of_slot = torch.zeros(self._n_slots, dtype=torch.int64, device=device)
        self._has_alpha = False
        self._has_weight = any(view.mask is not None for view in views) and mask_use == "ignore-outside"

    def close(self) -> None:
        """Stop loading."""
        self._loader.close()

    def draw(self, step: int, n_pixels: int) -> Pixels:
        """The pixels of a step."""
        self._fill(step)
        draws = generator(self._seed, step, "pixels", self._device)
        slots = torch.randint(self._n_slots, (n_pixels,), generator=draws, device=self._device)
        views = self._view_of_slot[slots]
        sizes = self._sizes[views]
        places = (torch.rand(n_pixels, 2, generator=draws, device=self._device) * sizes).long()
        # A random number just below 1 times the size may round up to it.
        places = torch.minimum(places, sizes - 1)
        values = self._data[slots, places[:, 1] * sizes[:, 0] + places[:, 0]].float() / 255
        return Pixels(
            views=views,
            places=places + 0.5,
            rgb=values[:, :3],
            alpha=values[:, 3] if self._has_alpha else None,
            weight=values[:, 4] if self._has_weight else None,
        )

    def _fill(self, step: int) -> None:
        """Let every slot hold the view that it has at this step."""
        wanted = self._wanted(step)
        missing = [slot for slot, view in enumerate(wanted) if self._held[slot] != view]
        if not missing:
            return
        self._loader.prefetch([wanted[slot] for slot in missing])
        for slot in missing:
            self._load(slot, wanted[slot])
        self._view_of_slot.copy_(torch.tensor(self._held))

    def _wanted(self, step: int) -> list[int]:
        if self._n_slots == len(self._views):
            return list(range(self._n_slots))
        first = step // STEPS_A_VIEW
        wanted = [0] * self._n_slots
        for place in range(first, first + self._n_slots):
            wanted[place % self._n_slots] = self._order.batch(place)[0]
        return wanted

    def _load(self, slot: int, view: int) -> None:
        frame = self._loader.get(view)
        pixels = frame.image.new_ones(*frame.image.shape[:2], CHANNELS)
        pixels[..., :3] = frame.image
        alpha = frame.alpha
        if self._mask_use == "object-only":
            alpha = frame.foreground
        elif frame.mask is not None:
            pixels[..., 4] = frame.mask
        if alpha is not None:
            pixels[..., 3] = alpha
            self._has_alpha = True
        flat = (pixels * 255).round().to(torch.uint8).view(-1, CHANNELS)
        self._data[slot, : len(flat)] = flat.to(self._device)
        self._held[slot] = view
