"""What renderings should look like, from the bytes of pictures and masks: one native pass a picture.

Pictures of unequal sizes, and masks that are not as large as their picture, are refused with ValueError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.render.backend import step_passes_for


@dataclass(frozen=True)
class Target:
    """C pictures to aim at."""

    rgb: Tensor
    """(C, H, W, 3) float32 over the background."""
    alpha: Tensor | None
    """(C, H, W) float32 alpha that the rendering should have, None when no picture has any."""
    weight: Tensor | None
    """(C, H, W) float32 in [0, 1], how much each pixel counts, None when all count."""


@torch.no_grad()
def compose_target(
    pixels: Sequence[Tensor], masks: Sequence[Tensor | None], background: Tensor, *, masks_cut_out: bool
) -> Target:
    """`alpha * picture + (1 - alpha) * background` of C pictures.

    pixels: (H, W, 3 or 4) uint8, the fourth channel being alpha. masks: (H, W) uint8, 0 outside; with `masks_cut_out`
    alpha is multiplied by them, else they are the weight. background: (3,) float32.
    """
    height, width = pixels[0].shape[:2]
    for picture, mask in zip(pixels, masks, strict=True):
        if picture.ndim != 3 or picture.shape[:2] != (height, width) or picture.shape[2] not in (3, 4):
            raise InputError(f"pixels must have shape ({height}, {width}, 3 or 4), got {tuple(picture.shape)}.")
        if mask is not None and mask.shape != (height, width):
            raise InputError(f"masks must have shape ({height}, {width}), got {tuple(mask.shape)}.")
    has_mask = any(mask is not None for mask in masks)
    has_alpha = any(picture.shape[2] == 4 for picture in pixels) or (has_mask and masks_cut_out)
    shape, device = (len(pixels), height, width), background.device
    target = Target(
        rgb=torch.empty(*shape, 3, device=device),
        alpha=torch.empty(shape, device=device) if has_alpha else None,
        weight=torch.empty(shape, device=device) if has_mask and not masks_cut_out else None,
    )
    step_passes_for(device).compose_target(pixels, masks, background, masks_cut_out, target)
    return target
