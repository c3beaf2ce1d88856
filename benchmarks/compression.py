"""Size and quality of a trained run in every format, decoded and measured the same way.

    python benchmarks/compression.py RUN --files scene.kino --presets --out outputs/compression

Prints a table in Markdown, for docs/compression.md: our files (those of --files, and one for each of --presets) beside
PLY, PLY + zstd, SPZ, SOG, .splat and, for moving scenes, .4dgs and .splat4d. Every file is read back and measured on
the run's held-out views. Formats without time hold one frame; for a moving scene, bytes and quality are those of
--frames evenly spread frames, the bytes times all frames over those. .splat4d is written and read by the `splat4d` of
`pip install splats4d`, with its default bounds; without it there is no such row.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated

import numpy as np
import tyro
import zstandard

from kinosplat.compression.config import CompressConfig, CompressPreset
from kinosplat.compression.formats import FORMATS, ExportFormat, export_gaussians, import_gaussians
from kinosplat.compression.formats.splat import splat_table
from kinosplat.compression.kino import Metadata
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

STILL: tuple[ExportFormat, ...] = ("ply", "compressed-ply", "spz", "spz-fine", "sog", "splat")
PLY_LEVEL = 12
"""Of zstd; 19 takes minutes for 70 MB and saves half a percent."""
SPLAT4D_BOUND = 2.0
"""Thousandths of the input's unit that its positions may be wrong by: the default."""
FAINTEST_LOGIT = -20.0
"""Of Gaussians that a frame does not show; .splat4d wants all of them in all frames."""


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run of 3dgs or 4dgs."""
    files: tuple[Path, ...] = ()
    """Files of this run that `kinosplat compress` has written."""
    presets: tuple[CompressPreset, ...] = ("small", "balanced", "quality")
    """Presets of `kinosplat compress` to write further files with."""
    formats: tuple[ExportFormat, ...] = STILL
    """Still formats to compare with."""
    out: Path = Path("outputs/compression")
    """Where files are written."""
    frames: int = 5
    """Frames that still formats are measured on in a moving scene."""
    views: int = 60
    """Held-out views at most."""


@dataclass(frozen=True)
class Row:
    """One format."""

    name: str
    """With what is special about it."""
    n_bytes: float
    """Of all its files."""
    psnr: float
    """dB, decoded."""
    reference: float
    """dB of the run on the same views."""


class Sizes:
    """The run, and what each format makes of it."""

    def __init__(self, arguments: Arguments) -> None:
        config = read_config(arguments.run)
        scene = scene_for(config, load_scene(config.scene, config.data))
        self.arguments = arguments
        self.training: Training = restore(config, scene, arguments.run)
        assert isinstance(self.training.method, GaussianMethod)
        self.method: GaussianMethod = self.training.method
        self.gaussians = self.method.gaussians().to("cpu")
        self.views = spread(scene.test, arguments.views)
        self.plain = self.psnr(self.gaussians, self.views)
        times = scene.times if self.gaussians.is_moving else []
        places = np.linspace(0, len(times) - 1, arguments.frames).round().astype(int) if times else []
        self.times = list(times)
        self.chosen_times = [times[i] for i in places]

    def rows(self) -> Iterator[Row]:
        """The run itself first."""
        yield Row("parameters as float32", parameter_bytes(self.gaussians), self.plain, self.plain)
        for path in self.arguments.files:
            yield self._whole(f"kino {path.stem}", path)
        for preset in self.arguments.presets:
            path = self.arguments.out / f"{preset}.kino"
            report = compress_training(self.training, CompressConfig(preset=preset), path=path, say=print)
            print(f"\n{report.table()}\n", flush=True)
            yield self._whole(f"kino {preset}", path)
        packed = zstandard.ZstdCompressor(level=PLY_LEVEL, threads=-1).compress(self._exported("ply").read_bytes())
        yield Row(f"PLY + zstd -{PLY_LEVEL}", len(packed), self.plain, self.plain)
        if self.gaussians.is_moving:
            yield self._whole(".4dgs", self._exported("4dgs"))
            yield from self._splat4d()
        for format in self.arguments.formats:
            yield self._frame_by_frame(format) if self.times else self._whole(format, self._exported(format))

    def psnr(self, gaussians: Gaussians, views: list[View]) -> float:
        """Mean on `views`."""
        clip = self.method.clip if gaussians.is_moving else None
        shown = GaussianMethod(
            self.method.config,
            self.method.image,
            gaussians.to(self.training.device),
            radius=self.method.rows.radius,
            clip=clip,
            seed=0,
        )
        background = self.training.background.evaluation_color()
        return evaluate(shown, views, background, mask_use=self.training.config.image.settled_mask_use).psnr

    def _exported(self, format: ExportFormat, time: float | None = None) -> Path:
        path = self.arguments.out / f"scene{FORMATS[format].suffix}"
        return export_gaussians(
            self.gaussians, path, format, metadata=Metadata(duration=self.training.scene.duration), time=time
        )

    def _whole(self, name: str, path: Path) -> Row:
        return Row(name, path.stat().st_size, self.psnr(import_gaussians(path), self.views), self.plain)

    def _frame_by_frame(self, format: ExportFormat) -> Row:
        assert FORMATS[format].time != "clip"
        n_bytes, found, reference = [], [], []
        for time in self.chosen_times:
            path = self._exported(format, time)
            n_bytes.append(path.stat().st_size)
            found.append(self.psnr(import_gaussians(path), self._views_at(time)))
            reference.append(self.psnr(self.gaussians, self._views_at(time)))
        return Row(f"{format}, a file a frame", fmean(n_bytes) * len(self.times), fmean(found), fmean(reference))

    def _splat4d(self) -> Iterator[Row]:
        tool = shutil.which("splat4d")
        if tool is None:
            print("no row for .splat4d: `pip install splats4d` brings the splat4d that writes and reads it", flush=True)
            return
        folder, path, frame = (self.arguments.out / name for name in ("splats", "scene.splat4d", "frame.splat"))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for i, time in enumerate(self.times):
            moment = self.gaussians.at(time)
            seen = replace(moment, opacity_logits=moment.opacity_logits.clamp_min(FAINTEST_LOGIT))
            (folder / f"frame_{i:04d}.splat").write_bytes(splat_table(seen).tobytes())
        bound = str(SPLAT4D_BOUND / self.training.scene.to_input.scale)
        fps = str(self.training.scene.fps or 30.0)
        encode = [tool, "encode", "-i", str(folder), "-o", str(path), "--pos-mm", bound, "--fps", fps]
        subprocess.run([*encode, "--zstd-level", "19", "--no-verify"], check=True, capture_output=True)
        found, reference = [], []
        for time in self.chosen_times:
            decode = [tool, "decode", str(path), "--frame", str(self.times.index(time)), "-o", str(frame)]
            subprocess.run(decode, check=True, capture_output=True)
            found.append(self.psnr(import_gaussians(frame), self._views_at(time)))
            reference.append(self.psnr(self.gaussians, self._views_at(time)))
        yield Row(".splat4d", path.stat().st_size, fmean(found), fmean(reference))

    def _views_at(self, time: float) -> list[View]:
        return [view for view in self.training.scene.test if view.camera.time == time]


def main(arguments: Arguments) -> None:
    """Measure, and print each line as soon as it is known."""
    first = 0.0
    print("| file | size | times smaller | PSNR | lost |\n|---|---|---|---|---|", flush=True)
    for row in Sizes(arguments).rows():
        first = first or row.n_bytes
        size, ratio = size_words(row.n_bytes), first / row.n_bytes
        lost = row.reference - row.psnr
        print(f"| {row.name} | {size} | {ratio:.3g} | {row.psnr:.2f} dB | {lost:.2f} dB |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
