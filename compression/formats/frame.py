"""What every exporter does first: back to the input's frame and scale, and, for formats without time, one moment of
the clip.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians
from kinosplat.scenes.scene import Similarity

MIN_OPACITY = 1.0 / 255.0
"""Below it the renderer skips a Gaussian everywhere."""


def in_input_frame(gaussians: Gaussians, to_input: Similarity) -> Gaussians:
    """The set in the coordinates of the photos: positions, sizes and displacements; rotations and colours are the same
    there.
    """
    displacements = gaussians.displacements
    return replace(
        gaussians,
        means=to_input.apply(gaussians.means),
        log_scales=gaussians.log_scales + math.log(to_input.scale),
        displacements=None if displacements is None else displacements * to_input.scale,
    )


def still_at(gaussians: Gaussians, time: float | None) -> Gaussians:
    """The static set seen at `time` seconds, without what cannot be seen then; a static set is returned as it is."""
    if not gaussians.is_moving:
        return gaussians
    if time is None:
        raise InputError("This format holds one moment of a moving scene; say which with --time SECONDS.")
    moment = gaussians.at(time)
    return moment.select(torch.sigmoid(moment.opacity_logits) >= MIN_OPACITY)


def checked(gaussians: Gaussians) -> Gaussians:
    """The set on the CPU in float32; InputError when it is empty or holds NaN or infinite values where no format can
    keep them.
    """
    if len(gaussians) == 0:
        raise InputError("There are no Gaussians to export; choose another --time or another run.")
    result = gaussians.detach().to("cpu", torch.float32)
    for name, tensor in result.parameters().items():
        if name != "log_durations" and not torch.isfinite(tensor).all():
            raise InputError(f"{name} holds values that are not finite; export an earlier checkpoint.")
    return result
