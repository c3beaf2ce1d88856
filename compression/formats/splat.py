""".splat as antimatter15's viewer reads it: 32 bytes a Gaussian without header, most visible first.

float32 x 3 position, float32 x 3 standard deviations, uint8 x 4 colour and opacity, uint8 x 4 quaternion wxyz as 128 +
128 q. There is no room for view dependence: SH of degree 1 and up are dropped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kinosplat.compression.formats.frame import checked
from kinosplat.compression.formats.packing import color_of, dc_of, logit, normalised, sigmoid, to_uint8
from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians

ROW = np.dtype([("position", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("rotation", "u1", 4)])


def write_splat(path: Path, gaussians: Gaussians) -> None:
    """Write a still set, ordered by volume times opacity so that a viewer shows the most visible first."""
    table = splat_table(gaussians)
    volume = np.exp(gaussians.log_scales.detach().cpu().double().sum(dim=1).numpy())
    opacity = sigmoid(gaussians.opacity_logits.detach().cpu().numpy())
    path.write_bytes(table[np.argsort(-volume * opacity, kind="stable")].tobytes())


def splat_table(gaussians: Gaussians) -> NDArray[np.void]:
    """The records (N,) of a still set, in its order."""
    g = checked(gaussians)
    table = np.empty(len(g), ROW)
    table["position"] = g.means.numpy()
    table["scale"] = np.exp(g.log_scales.numpy())
    table["color"][:, :3] = to_uint8(255 * color_of(g.sh_dc.numpy()))
    table["color"][:, 3] = to_uint8(255 * sigmoid(g.opacity_logits.numpy()))
    table["rotation"] = np.clip(np.floor(128 + 128 * normalised(g.quats.numpy()) + 0.5), 0, 255).astype(np.uint8)
    return table


def read_splat(path: Path) -> Gaussians:
    """Read a .splat file; InputError when its length is no multiple of 32 bytes."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    if not data or len(data) % ROW.itemsize:
        raise InputError(f"{path} has {len(data)} bytes, which is no positive multiple of 32; give a .splat file.")
    table = np.frombuffer(data, ROW)
    quats = normalised((table["rotation"].astype(np.float64) - 128) / 128)
    scales = np.maximum(table["scale"].astype(np.float64), 1e-12)  # a flat Gaussian may have been stored as 0
    return Gaussians(
        means=torch.from_numpy(table["position"].copy()),
        quats=torch.from_numpy(quats.astype(np.float32)),
        log_scales=torch.from_numpy(np.log(scales).astype(np.float32)),
        opacity_logits=torch.from_numpy(logit(table["color"][:, 3] / 255)),
        sh_dc=torch.from_numpy(dc_of(table["color"][:, :3] / 255)),
        sh_rest=torch.zeros(len(table), 0, 3),
    )
