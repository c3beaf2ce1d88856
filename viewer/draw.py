"""From a subject, a camera and a look to one picture; the only place of the viewer that renders.

What the page may change about Gaussians (size, crop box, points instead of Gaussians) is done by handing the rasterizer
changed parameters, so there is one renderer for all outputs. A subject without Gaussians is drawn by its own `render`,
and outputs that it has not show its colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor
from typing_extensions import assert_never

from kinosplat.render.camera import Camera
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.output import RenderOutput
from kinosplat.render.pass_times import PassTimes
from kinosplat.render.rasterize import rasterize
from kinosplat.render.rotations import matrix_from_quaternion
from kinosplat.render.settings import RasterSettings
from kinosplat.viewer.colors import fitting_range, map_colors
from kinosplat.viewer.look import CropBox, Look, Output
from kinosplat.viewer.subject import Subject

HIDDEN_LOGIT = -30.0
"""Opacity logit of a Gaussian that is cropped away; far below 1/255, so the rasterizer drops it while projecting."""
OPAQUE_LOGIT = 10.0
"""Opacity logit of points and ellipsoids."""
OVERLAP_OPACITY = 0.02
"""Opacity given to all Gaussians to count them: small enough that 400 on a ray can be told from 399."""
SMALLEST_OPACITY = 1 / 255
"""What the rasterizer skips."""
POINT_PIXELS = 0.8
"""Standard deviation of a point on screen, pixels."""
ELLIPSOID_SIZE = 0.6
"""Ellipsoids are drawn at this part of one standard deviation, where an opaque Gaussian has a clear edge."""

OF_RAYS: tuple[Output, ...] = ("color", "depth", "alpha", "normals")
"""Outputs that whatever is made of rays may have; the others need Gaussians."""
PROBE_SIZE = (16, 12)
"""Pixels of a picture that is only made to see what it holds."""


@dataclass(frozen=True)
class Drawn:
    """One picture, on the subject's device."""

    picture: Tensor
    """(H, W, 3) float32, to be clamped to [0, 1]."""
    depth: Tensor | None
    """(H, W) z-depth, infinite where nothing is; None unless asked for."""
    n_visible: int
    """Gaussians that took part."""
    n_hits: int
    """Pairs of a Gaussian and a tile."""
    value_range: tuple[float, float] | None
    """What the ends of the colour map stand for, in the output's unit."""


@torch.no_grad()
def draw(subject: Subject, camera: Camera, look: Look, *, depth: bool = False, times: PassTimes | None = None) -> Drawn:
    """Render `camera` (on any device) as `look` says; `depth` asks for the depth of what is seen beside the picture.

    `times` is marked between the passes of the rasterizer, where there are Gaussians.
    """
    device = subject.device
    camera = camera.to(device)
    chosen = look.background
    background = subject.background if chosen is None else torch.tensor(chosen, device=device)
    if look.painter is not None and look.painter in subject.painters:
        return Drawn(subject.painters[look.painter](camera), None, 0, 0, None)
    gaussians = subject.gaussians()
    if gaussians is None:
        shown = look.output if look.output in OF_RAYS else "color"
        output = subject.render(camera, background, geometry=depth or shown in ("depth", "normals"))
        if (shown == "depth" and output.depth is None) or (shown == "normals" and output.normal is None):
            shown = "color"
        return _picture(output, look, shown)
    features = None
    if look.output == "speed":
        features = gaussians.velocities.norm(dim=1, keepdim=True)
    gaussians = changed(gaussians, camera, look)
    settings = RasterSettings(
        sh_degree=look.sh_degree,
        antialiased=look.antialiased,
        near=look.near,
        far=look.far,
        depth=depth or look.output == "depth",
        normal=look.output == "normals",
    )
    output = rasterize(gaussians, [camera], background=background, features=features, settings=settings, times=times)
    return _picture(output, look, look.output)


@torch.no_grad()
def outputs_of(subject: Subject) -> tuple[Output, ...]:
    """What a subject can show; one without Gaussians is asked for a picture of a few pixels."""
    if subject.gaussians() is not None:
        return tuple(output for output in get_args(Output) if output != "speed" or len(subject.times) > 1)
    camera = subject.cameras[0].resized(*PROBE_SIZE).to(subject.device)
    moment = subject.times[0] if subject.times else None
    output = subject.render(camera.at(moment), subject.background, geometry=True)
    missing = {"depth": output.depth is None, "normals": output.normal is None}
    return tuple(name for name in OF_RAYS if not missing.get(name, False))


def _picture(output: RenderOutput, look: Look, shown: Output) -> Drawn:
    alpha = output.alpha[0]
    depth = None
    if output.depth is not None:
        depth = torch.where(alpha > 0.5, output.depth[0], torch.inf)
    found: tuple[float, float] | None = None

    def colored(values: Tensor, where: Tensor, from_zero: bool) -> Tensor:
        nonlocal found
        found = look.value_range or fitting_range(values, where, from_zero)
        return torch.where(where[..., None], map_colors(values, *found, look.color_map), 0.0)

    match shown:
        case "color" | "points" | "ellipsoids":
            picture = output.rgb[0] * 2.0**look.exposure
        case "depth":
            assert output.depth is not None
            picture = colored(output.depth[0], alpha > 0.5, from_zero=False)
        case "alpha":
            picture = alpha[..., None].expand(-1, -1, 3)
        case "normals":
            assert output.normal is not None
            picture = torch.where(alpha[..., None] > 0.05, 0.5 + 0.5 * output.normal[0], 0.0)
        case "speed":
            if output.features is None:
                picture = torch.zeros_like(output.rgb[0])
            else:
                picture = colored(output.features[0, ..., 0] / alpha.clamp_min(1e-6), alpha > 0.5, from_zero=True)
        case "overlap":
            # T = product of (1 - c e_i), so -log T / c counts Gaussians, each by its fall-off e_i at the pixel.
            count = -torch.log((1 - alpha).clamp_min(1e-6)) / OVERLAP_OPACITY
            picture = colored(count, alpha > 0, from_zero=True)
        case _:
            assert_never(shown)
    return Drawn(picture, depth, output.n_visible, output.n_hits, found)


def changed(gaussians: Gaussians, camera: Camera, look: Look) -> Gaussians:
    """The Gaussians as the rasterizer is to draw them; the same object where the look changes nothing."""
    in_other_shape = look.output in ("points", "ellipsoids", "overlap")
    if not in_other_shape and look.crop is None and look.scale == 1.0:
        return gaussians
    if in_other_shape or (look.crop is not None and gaussians.is_moving):
        gaussians = gaussians if camera.time is None else gaussians.at(camera.time)
    if look.crop is not None:
        inside = is_inside(gaussians.means, look.crop)
        gaussians = replace(gaussians, opacity_logits=gaussians.opacity_logits.masked_fill(~inside, HIDDEN_LOGIT))
    if look.scale != 1.0:
        gaussians = replace(gaussians, log_scales=gaussians.log_scales + math.log(look.scale))
    if not in_other_shape:
        return gaussians
    alive = torch.sigmoid(gaussians.opacity_logits) >= SMALLEST_OPACITY
    logit = math.log(OVERLAP_OPACITY / (1 - OVERLAP_OPACITY)) if look.output == "overlap" else OPAQUE_LOGIT
    logits = torch.where(alive, logit, HIDDEN_LOGIT).to(gaussians.means.dtype)
    gaussians = replace(gaussians, opacity_logits=logits)
    if look.output == "points":
        z = gaussians.means @ camera.world_to_camera[2, :3] + camera.world_to_camera[2, 3]
        sizes = torch.log(z.clamp_min(look.near) * (POINT_PIXELS / camera.K[0, 0]))
        return replace(gaussians, log_scales=sizes[:, None].expand(-1, 3).contiguous())
    if look.output == "ellipsoids":
        return replace(gaussians, log_scales=gaussians.log_scales + math.log(ELLIPSOID_SIZE))
    return gaussians


def is_inside(points: Tensor, box: CropBox) -> Tensor:
    """(N,) bool: which of (N, 3) points are in the box."""
    rotation = matrix_from_quaternion(torch.tensor(box.wxyz, dtype=torch.float64)).to(points)
    offsets = (points - torch.tensor(box.center).to(points)) @ rotation
    return (offsets.abs() <= 0.5 * torch.tensor(box.size).to(points)).all(dim=1)


def count_alive(gaussians: Gaussians, time: float | None) -> int:
    """Gaussians that are not below 1/255 in opacity at `time`; waits for the device."""
    logits = gaussians.opacity_logits
    opacity = torch.sigmoid(logits)
    if time is not None and gaussians.time_centres is not None and gaussians.log_durations is not None:
        phase = (time - gaussians.time_centres) * torch.exp(-gaussians.log_durations)
        opacity = opacity * torch.exp(-0.5 * phase**2)
    return int((opacity >= SMALLEST_OPACITY).sum())
