"""`.4dgs` files through the package `fourdgs` (extra: `pip install kinosplat[fourdgs]`), whose Gaussians move and fade
as ours do.

Its colour is clipped to [0, 1] and its SH are bytes over [-4, 4]; the package chooses the quantisation and verifies it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinosplat.compression.canonical import clip_seconds
from kinosplat.compression.formats.frame import MIN_OPACITY, checked
from kinosplat.compression.formats.imported import Imported
from kinosplat.compression.formats.packing import color_of, dc_of, logit, normalised, sigmoid, to_uint8
from kinosplat.compression.kino.metadata import Metadata
from kinosplat.errors import BackendError, InputError
from kinosplat.render.gaussians import Gaussians

SH_LOW, SH_HIGH = -4.0, 4.0
LEAST_SECONDS = 1e-3
"""The format has no clip of no length."""
FPS = "fps"
"""The frame rate's name among the header's free words."""
LARGEST_FPS = 1e4


def write_four_dgs(path: Path, gaussians: Gaussians, metadata: Metadata, profile: str = "default") -> None:
    """Write a still or moving set with the duration and frame rate that `metadata` says; `profile` is fine, default or
    coarse.
    """
    fourdgs = _package()
    g = checked(gaussians)
    duration = max(clip_seconds(g, metadata.duration), LEAST_SECONDS)
    n = len(g)
    still = np.zeros(n, np.float32)
    moving = g.time_centres is not None and g.log_durations is not None
    quats = normalised(g.quats.numpy()).astype(np.float32)
    rest = g.sh_rest.transpose(1, 2).reshape(n, -1).numpy()
    octets = to_uint8((rest - SH_LOW) / (SH_HIGH - SH_LOW) * 255)
    colors = np.concatenate([color_of(g.sh_dc.numpy()).clip(0, 1), sigmoid(g.opacity_logits.numpy())[:, None]], axis=1)
    scene = fourdgs.GaussianSet(
        positions=g.means.numpy(),
        scales=np.exp(g.log_scales.numpy()),
        rotations=quats[:, [1, 2, 3, 0]],
        colors=colors.astype(np.float32),
        motions=g.velocities.numpy(),
        mu_t=g.time_centres.numpy() if g.time_centres is not None else still,
        sigma_t=np.exp(g.log_durations.numpy()) if g.log_durations is not None else still + np.inf,
        win_lo=still,
        # Windows are half open: the last frame has to be inside.
        win_hi=np.full(n, np.nextafter(np.float32(duration), np.float32(np.inf))),
        sh=octets if g.sh_degree else None,
        sh_degree=g.sh_degree,
    )
    options = fourdgs.WriteOptions(
        profile=profile,
        cutoff=MIN_OPACITY if moving else 0.05,
        library="kinosplat",
        metadata={FPS: f"{metadata.fps:g}"} if metadata.fps else None,
    )
    fourdgs.write(str(path), scene, duration, options=options)


def read_four_dgs(path: Path) -> Imported:
    """Read a file as a moving set, with its duration and, if we wrote it, its frame rate; InputError when the package
    refuses it.
    """
    fourdgs = _package()
    try:
        file = fourdgs.read(str(path))
    except (fourdgs.FourdgsError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a .4dgs file.") from error
    scene = file.gaussians
    with np.errstate(divide="ignore"):
        log_durations = np.log(scene.sigma_t)
    velocities = torch.from_numpy(scene.motions)
    durations = torch.from_numpy(scene.sigma_t)
    displacements = torch.where(durations.isfinite()[:, None], velocities * durations[:, None], 0.0)
    n = scene.count
    rest = torch.zeros(n, 0, 3)
    if scene.sh is not None:
        values = scene.sh.astype(np.float32) / 255 * (SH_HIGH - SH_LOW) + SH_LOW
        rest = torch.from_numpy(values).reshape(n, 3, -1).transpose(1, 2).contiguous()
    gaussians = Gaussians(
        means=torch.from_numpy(scene.positions),
        quats=torch.from_numpy(np.ascontiguousarray(scene.rotations[:, [3, 0, 1, 2]])),
        log_scales=torch.from_numpy(np.log(np.maximum(scene.scales, 1e-12)).astype(np.float32)),
        opacity_logits=torch.from_numpy(logit(scene.colors[:, 3])),
        sh_dc=torch.from_numpy(dc_of(scene.colors[:, :3])),
        sh_rest=rest,
        displacements=displacements,
        time_centres=torch.from_numpy(scene.mu_t),
        log_durations=torch.from_numpy(log_durations.astype(np.float32)),
    )
    return Imported(gaussians, Metadata(duration=float(file.duration_sec), fps=_fps(file)))


def _fps(file: Any) -> float | None:
    try:
        fps = float(file.header.attributes.get(FPS, ""))
    except ValueError:
        return None
    return fps if 0.0 < fps < LARGEST_FPS else None


def _package() -> Any:
    try:
        import fourdgs
    except ImportError as error:
        raise BackendError("The .4dgs format needs the package fourdgs; install kinosplat[fourdgs].") from error
    return fourdgs
