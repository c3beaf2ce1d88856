"""Imports checkpoints of the two published parametrisations of 4D Gaussians; `kinosplat.render.four_d` does the exact
conversion.

* Yang et al. 2024 (4d-gaussian-splatting, `chkpnt*.pth`): a pair of the captured model, a tuple of 19, and the
iteration. With `rot_4d` the
  covariance has two quaternions, without it the time variance is exp(scaling_t) and nothing moves. Of time-dependent
  colour the constant part is kept.
* Duan et al. 2024 (4D-Rotor-Gaussians, nerfstudio's `step-*.ckpt`): tensors `_model.gauss_params.*`, rotors as (s, xy,
xz, yz), (xw, yw, zw, p).

Files are opened with torch's `weights_only`, which builds tensors and plain containers and runs nothing.
"""

from __future__ import annotations

import dataclasses
import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.render.four_d import from_rotors, from_two_quaternions
from kinosplat.render.gaussians import Gaussians

CAPTURED = 19
ROTOR_PREFIX = "_model.gauss_params."
AROUND_ZERO = 0.25
"""Part of the time centres that are negative from which a clip counts as one around 0."""


@dataclass(frozen=True)
class ClipTime:
    """How a checkpoint counts time, which it does not say itself."""

    seconds: float = 1.0
    """How long one unit of its time lasts."""
    start: float | None = None
    """The clip's first moment in that unit; by default 0, or the earliest time centre of a clip around 0."""


def read_4d_checkpoint(path: Path, time: ClipTime) -> Gaussians:
    """Moving Gaussians of either kind of checkpoint, in seconds from the clip's first moment."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} is not a checkpoint that can be opened safely; save its tensors again.") from error
    try:
        if isinstance(content, dict) and isinstance(content.get("pipeline"), dict):
            gaussians = _rotors(content["pipeline"])
        else:
            gaussians = _two_quaternions(content)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not a checkpoint of 4d-gaussian-splatting or 4D-Rotor-Gaussians ({error}); check the path."
        ) from error
    assert gaussians.time_centres is not None
    assert gaussians.log_durations is not None
    return dataclasses.replace(
        gaussians,
        time_centres=(gaussians.time_centres - _start(gaussians.time_centres, time)) * time.seconds,
        log_durations=gaussians.log_durations + math.log(time.seconds),
    )


def _start(time_centres: Tensor, time: ClipTime) -> float:
    """Clips of [0, 1] have a few centres before 0; half of those of a clip of [-0.5, 0.5] are."""
    if time.start is not None:
        return time.start
    negative = (time_centres < 0).float().mean()
    return float(time_centres.min()) if negative > AROUND_ZERO else 0.0


def _two_quaternions(content: Any) -> Gaussians:
    model = content[0]
    if len(model) != CAPTURED:
        raise ValueError(f"{len(model)} entries instead of {CAPTURED}")
    _, means, sh_dc, sh_rest, scales, left, opacities = model[:7]
    centres, scales_t, right, rot_4d = model[13:17]
    plain = {
        "means": _plain(means),
        "time_centres": _plain(centres)[:, 0],
        "opacity_logits": _plain(opacities)[:, 0],
        "sh_dc": _plain(sh_dc)[:, 0],
        "sh_rest": _spatial_sh(_plain(sh_rest)),
    }
    if rot_4d:
        log_scales = torch.cat([_plain(scales), _plain(scales_t)], dim=1)
        return from_two_quaternions(**plain, log_scales=log_scales, left=_plain(left), right=_plain(right))
    return Gaussians(
        **plain,
        quats=_plain(left),
        log_scales=_plain(scales),
        displacements=torch.zeros_like(plain["means"]),
        log_durations=0.5 * _plain(scales_t)[:, 0],
    )


def _rotors(state: dict[str, Any]) -> Gaussians:
    tensors = {
        name.removeprefix(ROTOR_PREFIX): _plain(value) for name, value in state.items() if name.startswith(ROTOR_PREFIX)
    }
    n = len(tensors["xyz"])
    return from_rotors(
        means=tensors["xyz"],
        time_centres=tensors["t"][:, 0],
        log_scales=torch.cat([tensors["scales_xyz"], tensors["scales_t"]], dim=1),
        rotors=torch.cat([tensors["quats1"], tensors["quats2"]], dim=1),
        opacity_logits=tensors["opacities"][:, 0],
        sh_dc=tensors["features_dc"].reshape(n, 3),
        sh_rest=_spatial_sh(tensors["features_rest"].reshape(n, -1, 3)),
    )


def _plain(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError("a tensor is missing")
    return value.detach().float().contiguous()


def _spatial_sh(rest: Tensor) -> Tensor:
    """The coefficients (N, K, 3) that do not depend on time, which come first; K in {0, 3, 8, 15}."""
    kept = max(k for k in (0, 3, 8, 15) if k <= rest.shape[1])
    return rest[:, :kept].contiguous()
