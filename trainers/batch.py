"""The pictures of one step, ready to be compared with a rendering.

Alpha and masks are settled here, once for every method: a picture with alpha is composited over the step's background,
a mask either weighs pixels or cuts the object out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from kinosplat.render.camera import Camera
from kinosplat.render.exposure import Sensor, expose
from kinosplat.render.target import Target, compose_target
from kinosplat.scenes import LoadedBatch

MaskUse = Literal["ignore-outside", "object-only"]


@dataclass(frozen=True)
class Batch:
    """C pictures of one size."""

    cameras: tuple[Camera, ...]
    """C cameras; their world_to_camera carries gradients when poses are refined."""
    target: Tensor
    """(C, H, W, 3) what the rendering over `background` should look like."""
    background: Tensor
    """(3,) colour behind the scene; carries a gradient when it is learned."""
    mask: Tensor | None = None
    """(C, H, W) weight of each pixel, or None when all count."""
    alpha: Tensor | None = None
    """(C, H, W) alpha that the rendering should have, where it is known."""
    exposures: Tensor | None = None
    """(C, 3, 4) affine colour corrections, or None."""

    def expose(self, rgb: Tensor) -> Tensor:
        """Colours (C, H, W, 3) of the scene as the batch's cameras would have taken them."""
        return expose(rgb, Sensor(self.exposures))


def target_of(loaded: LoadedBatch, background: Tensor, mask_use: MaskUse) -> Target:
    """The pictures to aim at over `background` (3,), with the alpha and the weight of their pixels."""
    return compose_target(loaded.pixels, loaded.mask_pixels, background, masks_cut_out=mask_use == "object-only")


def assemble(
    loaded: LoadedBatch,
    cameras: Sequence[Camera],
    background: Tensor,
    mask_use: MaskUse,
    exposures: Tensor | None = None,
) -> Batch:
    """The batch of pictures that were `loaded`, taken by `cameras`; `exposures` is (C, 3, 4)."""
    target = target_of(loaded, background, mask_use)
    return Batch(tuple(cameras), target.rgb, background, target.weight, target.alpha, exposures)
