"""PLY as the INRIA code writes it: float columns x y z, nx ny nz (zero), f_dc_*, f_rest_* (channel by channel),
opacity (logit), scale_* (log), rot_* (quaternion wxyz).

A moving set gets further columns, which other tools skip: displacement_0..2 (distance moved in one duration),
time_centre (seconds) and log_duration (natural logarithm of the standard deviation in time, +inf when still). Reading
takes both forms, and compressed PLY.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kinosplat.compression.formats.frame import checked
from kinosplat.compression.formats.ply_container import read_elements, write_elements
from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians

TIME_COLUMNS = ("displacement_0", "displacement_1", "displacement_2", "time_centre", "log_duration")


def write_ply(path: Path, gaussians: Gaussians) -> None:
    """Write a still or moving set, exactly."""
    g = checked(gaussians)
    n = len(g)
    columns: dict[str, NDArray[np.float32]] = dict(zip("xyz", g.means.numpy().T, strict=True))
    columns |= {name: np.zeros(n, np.float32) for name in ("nx", "ny", "nz")}
    columns |= {f"f_dc_{i}": column for i, column in enumerate(g.sh_dc.numpy().T)}
    rest = g.sh_rest.transpose(1, 2).reshape(n, -1).numpy()
    columns |= {f"f_rest_{i}": column for i, column in enumerate(rest.T)}
    columns["opacity"] = g.opacity_logits.numpy()
    columns |= {f"scale_{i}": column for i, column in enumerate(g.log_scales.numpy().T)}
    columns |= {f"rot_{i}": column for i, column in enumerate(g.quats.numpy().T)}
    if g.displacements is not None and g.time_centres is not None and g.log_durations is not None:
        times = [*g.displacements.numpy().T, g.time_centres.numpy(), g.log_durations.numpy()]
        columns |= dict(zip(TIME_COLUMNS, times, strict=True))
    table = np.empty(n, np.dtype([(name, "<f4") for name in columns]))
    for name, column in columns.items():
        table[name] = column
    write_elements(path, {"vertex": table})


def read_ply(path: Path) -> Gaussians:
    """Read a PLY of Gaussians; InputError names the first column that is missing."""
    elements = read_elements(path)
    if "vertex" not in elements:
        raise InputError(f"{path} has no element `vertex`; give a PLY of Gaussians.")
    table = elements["vertex"]
    names = table.dtype.names or ()

    def columns(*wanted: str) -> torch.Tensor:
        for name in wanted:
            if name not in names:
                raise InputError(f"{path} has no column `{name}`; give a PLY of Gaussians as 3DGS tools write it.")
        stacked = np.stack([table[name].astype(np.float32) for name in wanted], axis=1)
        return torch.from_numpy(np.ascontiguousarray(stacked))

    n_rest = sum(name.startswith("f_rest_") for name in names)
    if n_rest not in (0, 9, 24, 45):
        raise InputError(f"{path} has {n_rest} columns f_rest_*; there must be 0, 9, 24 or 45.")
    rest = columns(*(f"f_rest_{i}" for i in range(n_rest))) if n_rest else torch.zeros(len(table), 0)
    time = {}
    if set(TIME_COLUMNS) & set(names):
        moving = columns(*TIME_COLUMNS)
        time = {"displacements": moving[:, :3], "time_centres": moving[:, 3], "log_durations": moving[:, 4]}
    return Gaussians(
        means=columns("x", "y", "z"),
        quats=columns("rot_0", "rot_1", "rot_2", "rot_3"),
        log_scales=columns("scale_0", "scale_1", "scale_2"),
        opacity_logits=columns("opacity")[:, 0],
        sh_dc=columns("f_dc_0", "f_dc_1", "f_dc_2"),
        sh_rest=rest.reshape(len(table), 3, n_rest // 3).transpose(1, 2).contiguous(),
        **time,
    )
