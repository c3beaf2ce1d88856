"""What densification and pruning need to know of each Gaussian, collected while rendering."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianStatistics:
    """Sums over all cameras rendered since the last reset; given to `rasterize`, which adds to the tensors in place."""

    blend_weight: Tensor
    """(N,) float32, sum over pixels of alpha times transmittance: how much of the pictures it painted."""
    n_pixels: Tensor
    """(N,) int32, pixels it contributed to."""
    screen_gradient: Tensor
    """(N,) float32, sum over cameras of the norm of the loss gradient by its centre on screen, in units of half an
    image (dL/dmean2d * [W/2, H/2]); added by the backward pass."""
    n_seen: Tensor
    """(N,) int32, cameras it was visible in."""
    max_radius: Tensor
    """(N,) float32, pixels, largest three standard deviations along its long axis on screen."""

    @staticmethod
    def zeros(n: int, device: torch.device | str = "cpu") -> GaussianStatistics:
        """Empty statistics of `n` Gaussians."""

        def make(dtype: torch.dtype) -> Tensor:
            return torch.zeros(n, dtype=dtype, device=device)

        return GaussianStatistics(
            blend_weight=make(torch.float32),
            n_pixels=make(torch.int32),
            screen_gradient=make(torch.float32),
            n_seen=make(torch.int32),
            max_radius=make(torch.float32),
        )

    def __len__(self) -> int:
        return self.n_seen.shape[0]

    def reset(self) -> None:
        """Set everything to zero."""
        for field in fields(self):
            getattr(self, field.name).zero_()
