"""What a renderer returns, whatever it rendered: Gaussians or a field."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class RenderOutput:
    """Pictures of C cameras of one size H x W; float32 unless the inputs were float64."""

    rgb: Tensor
    """(C, H, W, 3) colour over the background, not clamped above 1."""
    alpha: Tensor
    """(C, H, W) 1 - transmittance left at the end of the ray."""
    depth: Tensor | None = None
    """(C, H, W) expected z-depth in world units: sum of weight * depth / alpha, 0 where alpha is 0."""
    median_depth: Tensor | None = None
    """(C, H, W) z-depth where the transmittance passes 0.5, 0 where it never does; carries no gradient."""
    normal: Tensor | None = None
    """(C, H, W, 3) blended unit normals in world coordinates, facing the camera, not renormalised."""
    features: Tensor | None = None
    """(C, H, W, F) blended feature channels over zero."""
    n_visible: int = 0
    """Gaussians (or samples) that took part, summed over the cameras."""
    n_hits: int = 0
    """Pairs of a Gaussian and a tile it touches, summed over the cameras."""


@dataclass(frozen=True)
class Photometric:
    """What a comparison of C pictures with their targets gives; where there is a mask, pixels count as it says."""

    loss: Tensor
    """() mean absolute difference and 1 - SSIM, weighted."""
    squared_error: Tensor
    """() mean squared difference."""
    similarities: Tensor
    """(C,) float64 sum of the SSIM of all numbers of a picture."""
    dL_drendered: Tensor | None
    """(C, H, W, 3) gradient of the loss, where asked for."""
