"""report.json: what a run was and what it reached."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from kinosplat.trainers.checkpoint import write_atomically


@dataclass(frozen=True)
class Compressed:
    """The file that compression made of a run, as decoding gives it back."""

    file: str
    """Path of the .kino file, relative to the run's folder where it lies inside."""
    bytes: int
    """Of the file."""
    n_primitives: int
    """Gaussians in it, or entries of a field's table that are not zero."""
    psnr: float
    """dB on the held-out views."""
    ssim: float
    """On the same views."""
    seconds: float
    """Wall time of compression, without measuring."""


@dataclass(frozen=True)
class Report:
    """A finished run; every number was measured in it."""

    scene: str
    """Name of the scene."""
    method: str
    """Name of the method."""
    split: str
    """How training and held-out views were told apart."""
    resolution: str
    """Width x height of the pictures (of the first one, if they differ) and how they were scaled."""
    n_train: int
    """Pictures learned from."""
    n_test: int
    """Held-out pictures measured."""
    steps: int
    """Optimisation steps done."""
    seconds: float
    """Wall time of training, first points included, evaluation not."""
    psnr: float | None
    """dB, mean over held-out pictures after rounding to 8 bits; None without held-out pictures."""
    ssim: float | None
    """Mean over held-out pictures, window 11x11, sigma 1.5."""
    psnr_region: str
    """Which pixels psnr is about, in words (`evaluate.WHOLE` and `evaluate.REGIONS`)."""
    psnr_masked: float | None
    """dB inside the masks, when there are any."""
    psnr_whole: float | None
    """dB of whole pictures, whatever training looked at."""
    n_primitives: int
    """Gaussians, or entries of a field's table that a sample can reach."""
    bytes: int
    """Of the model's parameters, stored plainly."""
    fps: float
    """Frames a second, rendering only, median over held-out cameras at their resolution."""
    device: str
    """What it was trained and measured on."""
    peak_memory_mib: float
    """Largest resident memory of the process; of the device's allocator on a GPU."""
    device_utilisation: float | None
    """Share of the training time in which the GPU ran something, by its driver; None where that is not known."""
    n_dropped_gradients: int
    """Rows that lost a step because their gradient was not finite."""
    n_steps_with_dropped_gradients: int
    """Steps in which that happened."""
    first_points: str
    """Where the first points came from."""
    seed: int
    """Seed of the run."""
    steps_per_second: float
    """Mean over the run."""
    finished: str
    """Why training ended: `steps` or `time limit`."""
    facts: dict[str, float] = field(default_factory=dict)
    """What else the method says of itself, such as parameters before and after hardening."""
    compressed: Compressed | None = None
    """The file made of the run, once there is one."""

    def write(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_atomically(path, (json.dumps(asdict(self), indent=2) + "\n").encode())


def refer_to_file(path: Path, compressed: Compressed) -> None:
    """Add `compressed` to the report.json at `path`, if a finished run has written one."""
    if path.exists():
        document = {**json.loads(path.read_text()), "compressed": asdict(compressed)}
        write_atomically(path, (json.dumps(document, indent=2) + "\n").encode())


def peak_memory_mib(device: torch.device) -> float:
    """MiB at the highest point so far: of the device's allocator on a GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
