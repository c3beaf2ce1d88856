"""What compression did, stage by stage: Gaussians, bytes, quality on the held-out views, seconds."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from kinosplat.compression.size import size_words
from kinosplat.compression.surroundings import Quality
from kinosplat.render.gaussians import Gaussians

LINE_WIDTH = 120
"""Columns of the table, beyond which notes are wrapped."""


@dataclass(frozen=True)
class StageReport:
    """One line of the report."""

    stage: str
    """Name of the stage; `input` and `file` stand at the ends."""
    n_gaussians: int
    """After the stage; of a field, entries of its table that are not zero."""
    n_bytes: int
    """Of the parameters as float32; of the last stage, of the file on disk."""
    quality: Quality
    """On the held-out views."""
    seconds: float
    """Fine-tuning included, measuring not."""
    note: str = ""
    """What was chosen."""


@dataclass(frozen=True)
class WallTime:
    """Where the seconds from the command to its report went."""

    loading: float
    """Until the first set was there to be measured: program, scene, checkpoint, device."""
    measuring: float
    """Held-out views of the input, of every stage and of the file, pictures that were not there yet included."""
    stages: float
    """Everything else: the stages, those too that a search for a bound gave up."""

    @property
    def whole(self) -> float:
        """All of it."""
        return self.loading + self.measuring + self.stages


@dataclass(frozen=True)
class CompressReport:
    """What happened, stage by stage."""

    stages: tuple[StageReport, ...]
    """From the input to the file."""
    bound: str
    """Which bound was met, in words."""
    coding: dict[str, str]
    """How each parameter is stored."""
    counted: str = "Gaussians"
    """What the stages count."""
    wall: WallTime | None = None
    """Where the time went; None for whoever calls the stages alone."""

    @property
    def loss(self) -> float:
        """Decibels lost from the input to the decoded file."""
        return self.stages[0].quality.psnr - self.stages[-1].quality.psnr

    @property
    def ratio(self) -> float:
        """Times the file is smaller than the input's parameters."""
        return self.stages[0].n_bytes / max(self.stages[-1].n_bytes, 1)

    def table(self) -> str:
        """Plain lines for people."""
        lines = [f"stage       {self.counted:>10}        size      PSNR    SSIM  seconds"]
        for s in self.stages:
            quality = f"{s.quality.psnr:6.2f} dB  {s.quality.ssim:.4f}"
            line = f"{s.stage:<11} {s.n_gaussians:>10,}  {size_words(s.n_bytes):>10}  {quality}  {s.seconds:7.1f}"
            notes = textwrap.wrap(s.note, LINE_WIDTH - len(line) - 2) or [""]
            lines.append(f"{line}  {notes[0]}".rstrip())
            lines += [" " * (len(line) + 2) + note for note in notes[1:]]
        change = f"{abs(self.loss):.2f} dB {'lost' if self.loss >= 0 else 'better'}"
        lines.append(f"{self.ratio:.{0 if self.ratio >= 10 else 1}f} times smaller, {change}; {self.bound}")
        if (wall := self.wall) is not None:
            parts = f"loading {wall.loading:.1f}, measuring {wall.measuring:.1f}, stages {wall.stages:.1f}"
            lines.append(f"{wall.whole:.1f} s in all: {parts}")
        return "\n".join(lines)


def parameter_bytes(gaussians: Gaussians) -> int:
    """Bytes of all parameters as float32, as a PLY would hold them without its unused normals."""
    return 4 * sum(tensor.numel() for tensor in gaussians.parameters().values())
