"""The fixed orbit that a subject is measured on, by the page's button and by `kinosplat bench`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from kinosplat.render.camera import Camera
from kinosplat.render.output import RenderOutput
from kinosplat.render.pass_times import PassTimes
from kinosplat.render.rasterize import rasterize
from kinosplat.render.timing import Timing, measure
from kinosplat.viewer.lens import orbit_to_show
from kinosplat.viewer.subject import Subject


@torch.no_grad()
def benchmark(
    subject: Subject,
    width: int,
    height: int,
    *,
    n_frames: int = 200,
    warm_up: int = 20,
    progress: Callable[[int], None] | None = None,
) -> Timing:
    """Time `n_frames` of an orbit through the whole clip; called while nobody else renders."""
    cameras = orbit_to_show(subject.cameras, n_frames, subject.times, width, height)
    gaussians, background = subject.gaussians(), subject.background

    def render(camera: Camera, times: PassTimes | None = None) -> RenderOutput:
        if gaussians is None:
            return subject.render(camera, background, geometry=False)
        return rasterize(gaussians, [camera], background=background, settings=subject.settings, times=times)

    return measure(
        render,
        cameras,
        device=subject.device,
        n_primitives=subject.n_primitives,
        warm_up=warm_up,
        progress=progress,
    )
