"""Held-out views, measured by the common protocol.

Prediction and target are rounded to 8 bits; PSNR is computed for each picture and averaged; SSIM has an 11x11 Gaussian
window with sigma 1.5. A held-out camera gets no exposure or pose correction: nothing about it was learned. Where
training ignored what lies outside masks, so does the PSNR that counts, and SSIM is averaged inside; the whole picture's
PSNR stands beside it.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
from torch import Tensor

from kinosplat.render.camera import Camera, cameras_to
from kinosplat.render.losses import psnr, quantize8, ssim
from kinosplat.render.media import PictureWriter, to_uint8
from kinosplat.render.target import Target
from kinosplat.scenes import FrameLoader, LoadedBatch, View
from kinosplat.trainers.batch import MaskUse, target_of
from kinosplat.trainers.checkpoint import write_atomically
from kinosplat.trainers.method import Method, Renderer

TIMED_CAMERAS = 5
"""FPS is measured on so many held-out cameras, spread evenly."""
TIMED_SECONDS = 1.0
"""And for about so long."""
LEAST_REPEATS = 3
"""But each camera at least so often, after one run that does not count."""
WHOLE = "whole picture"
"""Which pixels count where there are no masks."""
REGIONS: dict[MaskUse, str] = {
    "ignore-outside": "inside the masks",
    "object-only": "whole picture, what is outside the masks replaced by the background",
}
"""Which pixels count where there are masks."""
VIEWS_TOGETHER, PIXELS_TOGETHER = 8, 2**21
"""So many pictures, and pixels of pictures, are drawn and measured in one go at most. Drawing waits for the device
once a call, and a GPU that is waited for after every small picture stands still in between."""
HIGHEST_PSNR = 100.0
"""What equal pictures get, in dB, where the formula says infinity."""


@dataclass(frozen=True)
class ViewMetrics:
    """One held-out picture."""

    name: str
    """Name of the view."""
    psnr: float
    """dB of the pixels that count."""
    ssim: float
    """Mean over the pixels that count."""
    psnr_masked: float | None
    """dB inside the mask, if there is one."""
    psnr_whole: float
    """dB of the whole picture."""

    @classmethod
    def of(cls, view: View, psnr: float, ssim: float, psnr_masked: float, psnr_whole: float) -> ViewMetrics:
        """The numbers of `view`, of which those inside its mask count only if it has one."""
        return cls(view.name, psnr, ssim, None if view.mask is None else psnr_masked, psnr_whole)


@dataclass(frozen=True)
class ComparedView:
    """One picture beside what it should be."""

    rendered: Tensor
    """(H, W, 3), not clamped."""
    target: Tensor
    """(H, W, 3) over the background."""
    metrics: ViewMetrics
    """What a report says of it."""
    region: str
    """Which pixels count, in words: `WHOLE` or one of `REGIONS`."""


@dataclass(frozen=True)
class Evaluation:
    """All held-out pictures; at least one."""

    views: tuple[ViewMetrics, ...]
    """One entry for each, in the scene's order."""
    psnr: float
    """dB, mean over pictures."""
    ssim: float
    """Mean over pictures."""
    psnr_masked: float | None
    """dB, mean over the pictures that have a mask; None without masks."""
    psnr_whole: float
    """dB, mean over pictures."""
    region: str
    """Which pixels count, in words: `WHOLE` or one of `REGIONS`."""

    def write_table(self, path: Path) -> None:
        """A CSV file with a line for each picture and one for the mean."""
        text = io.StringIO()
        rows = [asdict(view) for view in self.views]
        mean = {key: getattr(self, key) for key in ("psnr", "ssim", "psnr_masked", "psnr_whole")}
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, {"name": "mean", **mean}])
        write_atomically(path, text.getvalue().encode())


def spread(views: Sequence[View], n: int | None) -> list[View]:
    """At most `n` of the views, evenly spread over the sequence."""
    if n is None or len(views) <= n:
        return list(views)
    return [views[i] for i in np.linspace(0, len(views) - 1, n).round().astype(int)]


@torch.no_grad()
def evaluate(
    method: Renderer,
    views: Sequence[View],
    background: Tensor,
    *,
    mask_use: MaskUse,
    cache_bytes: int | None = None,
    renders_dir: Path | None = None,
    pictures: FrameLoader | None = None,
) -> Evaluation:
    """Measure `method` on `views` (at least one), over the colour `background` (3,).

    With `renders_dir`, saves each picture as `<name>.png` and truth beside rendering as `<name>_compare.png`.
    `pictures` is a loader of these very views that stays open; without it, one is opened for this call.
    """
    measured = []
    groups = _drawn_together(views)
    cameras = cameras_to([view.camera for view in views], background.device)
    with ExitStack() as stack:
        writer = stack.enter_context(PictureWriter())
        loader = pictures or stack.enter_context(FrameLoader(views, cache_bytes=cache_bytes, device=background.device))
        for place, group in enumerate(groups):
            loader.prefetch([i for coming in groups[place : place + 2] for i in coming])
            loaded = loader.get_batch(group, groups[place + 1 : place + 2])
            rendered = method.render([cameras[i] for i in group], background).rgb
            target = target_of(loaded, background, mask_use)
            # An object cut out by its mask still has a mask that one may want to look inside of.
            measured.append(_measure(rendered, target, loaded.masks))
            if renders_dir is not None:
                for i, picture, truth in zip(group, rendered, target.rgb, strict=True):
                    _save(writer, renders_dir / f"{views[i].name}.png", picture, truth)
    numbers = torch.cat(measured).tolist()
    rows = [ViewMetrics.of(view, *row) for view, row in zip(views, numbers, strict=True)]
    masked = [row.psnr_masked for row in rows if row.psnr_masked is not None]
    return Evaluation(
        views=tuple(rows),
        psnr=fmean(row.psnr for row in rows),
        ssim=fmean(row.ssim for row in rows),
        psnr_masked=fmean(masked) if masked else None,
        psnr_whole=fmean(row.psnr_whole for row in rows),
        region=REGIONS[mask_use] if masked else WHOLE,
    )


@torch.no_grad()
def compare(
    method: Renderer, view: View, loaded: LoadedBatch, background: Tensor, *, mask_use: MaskUse
) -> ComparedView:
    """Draw `view`, whose picture was `loaded`, over `background` (3,), and measure it as `evaluate` does."""
    rendered = method.render(cameras_to([view.camera], background.device), background).rgb
    target = target_of(loaded, background, mask_use)
    (row,) = _measure(rendered, target, loaded.masks).tolist()
    region = WHOLE if loaded.masks is None else REGIONS[mask_use]
    return ComparedView(rendered[0], target.rgb[0], ViewMetrics.of(view, *row), region)


def _drawn_together(views: Sequence[View]) -> list[list[int]]:
    """Places of the views, in their order, by what can be drawn and measured in one go."""
    groups: list[list[int]] = []

    def kind(i: int) -> tuple[int, int, bool]:
        return views[i].camera.width, views[i].camera.height, views[i].mask is None

    for (width, height, _), members in groupby(range(len(views)), key=kind):
        alike = list(members)
        n = min(max(PIXELS_TOGETHER // (width * height), 1), VIEWS_TOGETHER)
        groups += [alike[first : first + n] for first in range(0, len(alike), n)]
    return groups


def _measure(rendered: Tensor, target: Target, masks: Tensor | None) -> Tensor:
    """(C, 4) PSNR and SSIM of the pixels that count, PSNR inside the masks (C, H, W) and of whole pictures; stays on
    the device, so that nobody waits.
    """
    a, b = quantize8(rendered), quantize8(target.rgb)
    whole = psnr(a, b).clamp_max(HIGHEST_PSNR)
    counted = whole if target.weight is None else masked_psnr(a, b, target.weight)
    inside = torch.full_like(whole, torch.nan) if masks is None else masked_psnr(a, b, masks)
    return torch.stack([counted, ssim(a, b, mask=target.weight), inside, whole], dim=1)


def masked_psnr(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """(C,) decibels between pictures (C, H, W, 3) over the pixels weighted by `mask` (C, H, W)."""
    squared = ((a - b) ** 2 * mask[..., None]).sum(dim=(1, 2, 3)) / (3.0 * mask.sum(dim=(1, 2))).clamp_min(1e-8)
    return (-10.0 * torch.log10(squared)).clamp_max(HIGHEST_PSNR)


def _save(writer: PictureWriter, path: Path, rendered: Tensor, target: Tensor) -> None:
    """Write pictures (H, W, 3)."""
    picture, truth = to_uint8(rendered), to_uint8(target)
    writer.write(path, picture)
    writer.write(path.with_name(f"{path.stem}_compare.png"), np.concatenate([truth, picture], axis=1))


@torch.no_grad()
def measure_fps(method: Method, cameras: Sequence[Camera], background: Tensor) -> float:
    """Frames a second: 1 over the median time of rendering one camera, on the device of `background`, nothing else."""
    step = max(1, len(cameras) // TIMED_CAMERAS)
    chosen = [camera.to(background.device) for camera in cameras[::step][:TIMED_CAMERAS]]
    seconds: list[float] = []
    started = time.perf_counter()
    for repeat in range(1000):
        for camera in chosen:
            _synchronize(background.device)
            begin = time.perf_counter()
            method.render([camera], background)
            _synchronize(background.device)
            if repeat > 0:
                seconds.append(time.perf_counter() - begin)
        if repeat >= LEAST_REPEATS and time.perf_counter() - started > TIMED_SECONDS:
            break
    return 1.0 / median(seconds)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
