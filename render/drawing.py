"""Pictures of Gaussians whose gradients are asked for by hand: what a training step does with the native rasterizer.

`rasterize` and torch's autograd give the same numbers; here the host builds no history, and gradients lie where they
were written. Arguments that do not fit raise what they raise in `rasterize`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.render.backend import passes_for
from kinosplat.render.camera import Camera
from kinosplat.render.frame import Frame, FrameGradients, FrameInputs, InputGradients
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.rasterize import ONLY_DRAWN, check_arguments, frame_inputs
from kinosplat.render.settings import RasterSettings
from kinosplat.render.statistics import GaussianStatistics


class GaussianSet:
    """Gaussians that many pictures are drawn of before a tensor is replaced: they are checked once."""

    def __init__(self, gaussians: Gaussians) -> None:
        if gaussians.sh_rest.dtype == torch.float16:
            raise InputError(ONLY_DRAWN)
        self.gaussians = gaussians
        self.passes: ModuleType = passes_for(gaussians.device)
        self.checked: Any = self.passes.check_gaussians(gaussians.parameters())


@dataclass(frozen=True)
class Drawing:
    """Pictures of C cameras, and what their gradients need; these may be asked for once."""

    rgb: Tensor
    """(C, H, W, 3) colour over the background."""
    alpha: Tensor
    """(C, H, W) 1 - transmittance left at the end of the ray."""
    inputs: FrameInputs
    """What was drawn. Its cameras and background carry the history that they came with."""
    _passes: ModuleType
    _frame: Frame
    _state: Any
    _statistics: GaussianStatistics | None

    @torch.no_grad()
    def gradients(self, dL_drgb: Tensor, dL_dalpha: Tensor | None) -> InputGradients:
        """Of everything that went in, from those of the pictures."""
        picture_gradients = FrameGradients(dL_drgb, dL_dalpha, depth_sum=None, normal=None, features=None)
        gradients: InputGradients = self._passes.render_backward(
            self.inputs, self._state, self._frame, picture_gradients, statistics=self._statistics
        )
        return gradients


def draw(
    gaussian_set: GaussianSet,
    cameras: Sequence[Camera],
    *,
    background: Tensor,
    settings: RasterSettings,
    statistics: GaussianStatistics | None,
    visible: Tensor,
) -> Drawing:
    """Colour and alpha; arguments as of `rasterize`."""
    gaussians, passes = gaussian_set.gaussians, gaussian_set.passes
    check_arguments(gaussians, cameras, background, None, settings, statistics, visible)
    inputs = frame_inputs(gaussians, cameras, background, None, settings, visible, gaussian_set.checked)
    with torch.no_grad():
        frame, state, _, _ = passes.render_forward(inputs, keep_state=True, statistics=statistics)
    return Drawing(frame.rgb, frame.alpha, inputs, passes, frame, state, statistics)
