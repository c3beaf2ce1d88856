"""Pixels out of many pictures: the pictures lie as bytes on the device, and every step draws from all of them.

When not all of them fit, a window slides over an endless shuffled sequence of the views, one view every few steps.
What a step draws depends on the seed and the step alone, whatever the device. A picture that cannot be read is an
InputError.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.render.field.native_step import DrawnRays, Pictures, draw_rays
from kinosplat.scenes import FrameLoader, View, ViewSampler
from kinosplat.trainers.batch import MaskUse
from kinosplat.trainers.draws import draw_key

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
class CameraMatrices:
    """V views' cameras, one row a view, so that rays can pick theirs on the device."""

    inverse_K: Tensor
    """(V, 3, 3)."""
    world_to_camera: Tensor
    """(V, 4, 4) as given, without corrections."""
    camera_index: Tensor
    """(V,) int64, which physical camera took the view."""

    @staticmethod
    def of(views: Sequence[View], device: torch.device) -> CameraMatrices:
        """The cameras of `views`."""
        cameras = [view.camera for view in views]
        inverse_K = torch.linalg.inv(torch.stack([camera.K for camera in cameras]).double()).float()
        return CameraMatrices(
            inverse_K.contiguous().to(device),
            torch.stack([camera.world_to_camera for camera in cameras]).to(device),
            torch.tensor([view.camera_index for view in views], device=device),
        )


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
        self.cameras = CameraMatrices.of(views, device)
        sizes = torch.tensor([[view.camera.width, view.camera.height] for view in views])
        largest = int(sizes.prod(dim=1).max())
        fitting = (POOL_BYTES if max_bytes is None else max_bytes) // (CHANNELS * largest)
        self._n_slots = min(len(views), max(fitting, 1))
        self._order = ViewSampler(views, seed)
        n_workers = min(max((os.cpu_count() or 2) // 2, 2), MOST_WORKERS)
        self._loader = FrameLoader(views, cache_bytes=LOADER_BYTES, n_workers=n_workers)
        self._held: list[int] = [-1] * self._n_slots
        self._pictures = Pictures(
            data=torch.empty(self._n_slots, largest, CHANNELS, dtype=torch.uint8, device=device),
            view_of_slot=torch.zeros(self._n_slots, dtype=torch.int64, device=device),
            sizes=sizes.to(device),
            inverse_K=self.cameras.inverse_K,
            world_to_camera=self.cameras.world_to_camera,
        )
        self._has_alpha = False
        self._has_weight = any(view.mask is not None for view in views) and mask_use == "ignore-outside"

    @property
    def has_alpha(self) -> bool:
        """Whether a picture loaded so far is transparent anywhere, or cut out."""
        return self._has_alpha

    def close(self) -> None:
        """Stop loading."""
        self._loader.close()

    def draw(self, step: int, n_rays: int, background: Tensor | None = None) -> DrawnRays:
        """The rays of a step, through cameras without corrections, and what should be seen along them.

        background: (3,) colour behind all rays; None for a random one behind each, as everywhere where pictures have
        alpha.
        """
        self._fill(step)
        return draw_rays(
            self._pictures,
            n_rays,
            draw_key(self._seed, step, "pixels"),
            background=None if self._has_alpha else background,
            with_weight=self._has_weight,
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
        self._pictures.view_of_slot.copy_(torch.tensor(self._held))

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
        self._pictures.data[slot, : len(flat)] = flat.to(self._device)
        self._held[slot] = view
