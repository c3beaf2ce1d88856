"""Colours of a scene as cameras show them: an affine map for each camera, and a sensor that ends at 1.

One native pass each way. Pictures and maps that do not belong together are refused with ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kinosplat.errors import InputError
from kinosplat.render.backend import step_passes_for


@dataclass(frozen=True)
class Sensor:
    """How the cameras of C pictures show colours; without anything, as they are."""

    exposures: Tensor | None = None
    """(C, 3, 4) affine maps A, b: a colour is shown as A rgb + b. None is the identity."""
    target: Tensor | None = None
    """(C, H, W, 3) pictures that show where the sensors have reached their end: there, and only there, a channel
    brighter than 1 is shown as 1 and has no gradient. None cuts nothing off."""
    saturated: float = 1.0
    """A channel of the target at least this bright has reached the end."""

    @property
    def is_plain(self) -> bool:
        """Whether colours are shown as they are."""
        return self.exposures is None and self.target is None

    def check(self, rgb: Tensor) -> None:
        """Refuse what does not belong to pictures `rgb`."""
        if rgb.ndim != 4 or rgb.shape[3] != 3:
            raise InputError(f"rgb must have shape (C, H, W, 3), got {tuple(rgb.shape)}.")
        if self.exposures is not None and self.exposures.shape != (rgb.shape[0], 3, 4):
            raise InputError(f"exposures must have shape ({rgb.shape[0]}, 3, 4), got {tuple(self.exposures.shape)}.")
        if self.target is not None and self.target.shape != rgb.shape:
            raise InputError(f"target must have shape {tuple(rgb.shape)}, got {tuple(self.target.shape)}.")


def expose(rgb: Tensor, sensor: Sensor) -> Tensor:
    """Pictures (C, H, W, 3) as `sensor` shows them; differentiable by the colours and by the exposures."""
    sensor.check(rgb)
    if sensor.is_plain:
        return rgb
    shown: Tensor = _Expose.apply(rgb, sensor.exposures, sensor)
    return shown


def shown_by(sensor: Sensor, rgb: Tensor) -> Tensor:
    """`expose` without a history."""
    return rgb if sensor.is_plain else step_passes_for(rgb.device).expose(rgb, sensor)


def gradients_through(sensor: Sensor, rgb: Tensor, dL_dshown: Tensor) -> tuple[Tensor, Tensor | None]:
    """Gradients by colours (C, H, W, 3) and by exposures (C, 3, 4; None without any) from that by what is shown."""
    return (dL_dshown, None) if sensor.is_plain else step_passes_for(rgb.device).expose_backward(rgb, sensor, dL_dshown)


class _Expose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rgb: Tensor, exposures: Tensor | None, sensor: Sensor) -> Tensor:
        ctx.sensor = sensor
        ctx.save_for_backward(rgb)
        return shown_by(sensor, rgb)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dL_dshown: Tensor) -> Any:
        (rgb,) = ctx.saved_tensors
        return *gradients_through(ctx.sensor, rgb, dL_dshown.contiguous()), None
