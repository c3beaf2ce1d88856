"""Size and quality of a trained run in every format, decoded and measured the same way.

    python benchmarks/compression.py RUN --presets small balanced quality --out outputs/compression

Prints two tables in Markdown, for docs/compression.md: our presets stage by stage, and our files beside PLY + zstd,
SPZ, SOG and, for moving scenes, .4dgs. Every file is read back by this project's reader and measured on the run's
held-out views. Formats without time hold one frame; for a moving scene, bytes and quality are those of --frames evenly
spread frames, the bytes times all frames over those.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
import zstandard

from kinosplat.compression.config import CompressConfig
from kinosplat.compression.formats import KEEPS_TIME, SUFFIXES, ExportFormat, export_gaussians, import_gaussians
from kinosplat.compression.report import parameter_bytes
from kinosplat.compression.size import size_words
from kinosplat.render import Gaussians
from kinosplat.scenes import load_scene
from kinosplat.scenes.scene import View
from kinosplat.trainers.compress import compress_training
from kinosplat.trainers.evaluate import evaluate, spread
from kinosplat.trainers.methods.gaussians import GaussianMethod
from kinosplat.trainers.run import read_config
from kinosplat.trainers.training import Training, restore, scene_for

STILL: tuple[ExportFormat, ...] = ("compressed-ply", "spz", "spz-fine", "sog", "splat")


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run of 3dgs or 4dgs."""
    presets: tuple[Literal["small", "balanced", "quality"], ...] = ("small", "balanced", "quality")
    """Presets of `kinosplat compress`."""
    out: Path = Path("outputs/compression")
    """Where files are written."""
    frames: int = 5
    """Frames that still formats are measured on in a moving scene."""
    views: int = 60
    """Held-out views at most."""


def main(arguments: Arguments) -> None:
    """Compress, export, read back, measure, print."""
    config = read_config(arguments.run)
    scene = scene_for(config, load_scene(config.scene, config.data))
    training = restore(config, scene, arguments.run)
    method = training.method
    assert isinstance(method, GaussianMethod)
    gaussians = method.gaussians()
    views = spread(scene.test, arguments.views)
    plain = psnr(training, gaussians, views)
    rows = [("parameters as float32", float(parameter_bytes(gaussians)), plain, plain)]
    for preset in arguments.presets:
        path = arguments.out / f"{preset}.kino"
        report = compress_training(training, CompressConfig(preset=preset), path=path, say=print)
        print(f"\n{report.table()}\n")
        decoded = import_gaussians(path).to(training.device)
        rows.append((f"kino {preset}", float(path.stat().st_size), psnr(training, decoded, views), plain))
    rows += list(other_formats(arguments, training, gaussians.to("cpu"), views, plain))
    print("| file | size | times smaller | PSNR | lost |\n|---|---|---|---|---|")
    for name, n_bytes, decibels, reference in rows:
        ratio = rows[0][1] / n_bytes
        print(f"| {name} | {size_words(n_bytes)} | {ratio:.1f} | {decibels:.2f} dB | {reference - decibels:.2f} dB |")


def other_formats(
    arguments: Arguments, training: Training, gaussians: Gaussians, views: list[View], plain: float
) -> Iterator[tuple[str, float, float, float]]:
    """Name, bytes, PSNR, and PSNR of the input on the same views, of each format."""
    out, duration = arguments.out, training.scene.duration
    path = export_gaussians(gaussians, out / "scene.ply", "ply")
    packed = len(zstandard.ZstdCompressor(level=19).compress(path.read_bytes()))
    yield "PLY + zstd", float(packed), plain, plain
    if gaussians.is_moving:
        path = export_gaussians(gaussians, out / "scene.4dgs", "4dgs", duration=duration)
        decoded = import_gaussians(path).to(training.device)
        yield "4dgs", float(path.stat().st_size), psnr(training, decoded, views), plain
    for format in STILL:
        assert format not in KEEPS_TIME
        path = out / f"scene{SUFFIXES[format]}"
        if not gaussians.is_moving:
            export_gaussians(gaussians, path, format)
            found = psnr(training, import_gaussians(path).to(training.device), views)
            yield format, float(path.stat().st_size), found, plain
            continue
        places = np.linspace(0, len(training.scene.times) - 1, arguments.frames).round().astype(int)
        times = [training.scene.times[i] for i in places]
        sizes, found, reference = [], [], []
        for time in times:
            export_gaussians(gaussians, path, format, time=time)
            sizes.append(path.stat().st_size)
            at_time = [view for view in training.scene.test if view.camera.time == time]
            found.append(psnr(training, import_gaussians(path).to(training.device), at_time))
            reference.append(psnr(training, gaussians.to(training.device), at_time))
        n = len(times)
        total = sum(sizes) / n * len(training.scene.times)
        yield f"{format}, one file a frame", total, sum(found) / n, sum(reference) / n


def psnr(training: Training, gaussians: Gaussians, views: list[View]) -> float:
    """Mean PSNR on `views`."""
    method = training.method
    assert isinstance(method, GaussianMethod)
    clip = method.clip if gaussians.is_moving else None
    shown = GaussianMethod(method.config, method.image, gaussians, radius=method.rows.radius, clip=clip, seed=0)
    background = training.background.evaluation_color()
    return evaluate(shown, views, background, mask_use=training.config.image.settled_mask_use).psnr


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
