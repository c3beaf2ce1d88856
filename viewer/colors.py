"""Colour maps as tables on the device, so that a picture of numbers is coloured where it was rendered."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from typing_extensions import assert_never

from kinosplat.render.media import colorize
from kinosplat.viewer.look import ColorMap

N_COLORS = 256
# Nine samples of viridis (van der Walt and Smith 2015), linearly interpolated between.
_VIRIDIS = (
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
    (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
)  # fmt: skip


@lru_cache(maxsize=16)
def color_table(name: ColorMap, device: torch.device) -> Tensor:
    """(256, 3) float32 colours in [0, 1] from the lowest value to the highest."""
    ramp = torch.linspace(0, 1, N_COLORS)
    match name:
        case "turbo":
            table = torch.from_numpy(colorize(ramp[None], 0.0, 1.0)[0]).float() / 255
        case "viridis":
            stops = np.array(_VIRIDIS, dtype=np.float32) / 255
            places = np.linspace(0, len(stops) - 1, N_COLORS)
            channels = [np.interp(places, np.arange(len(stops)), stops[:, c]) for c in range(3)]
            table = torch.from_numpy(np.stack(channels, axis=1)).float()
        case "gray":
            table = ramp[:, None].expand(-1, 3).contiguous()
        case _:
            assert_never(name)
    return table.to(device)


def map_colors(values: Tensor, low: float, high: float, name: ColorMap) -> Tensor:
    """(H, W) numbers to (H, W, 3) colours; values beyond the ends, or not finite, get the colour of an end."""
    span = high - low if high > low else 1.0
    places = torch.nan_to_num((values - low) / span, nan=0.0).clamp(0, 1)
    return color_table(name, values.device)[(places * (N_COLORS - 1)).round().long()]


def fitting_range(values: Tensor, shown: Tensor, from_zero: bool) -> tuple[float, float]:
    """2nd and 98th percentile of `values` where `shown` is true; from 0 if `from_zero`; (0, 1) of nothing."""
    chosen = values[shown]
    if chosen.numel() == 0:
        return 0.0, 1.0
    # 65536 values give the same percentiles to the eye, and sorting more would cost a frame.
    sample = chosen[:: max(1, chosen.numel() // 65536)].float()
    low, high = torch.quantile(sample, torch.tensor([0.02, 0.98], device=sample.device)).tolist()
    return (0.0 if from_zero else low), max(high, 1e-6)
