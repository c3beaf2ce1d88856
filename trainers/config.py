"""Options of a training run that do not depend on the method.

Every field reads on its own (`--steps`, `--time-limit`), so that a command line may leave out the names of the groups.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kinosplat.scenes import LoadOptions
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.methods.field_config import HashGrid, HollowNerf

MethodConfig = ThreeDGS | FourDGS | HashGrid | HollowNerf


@dataclass(frozen=True)
class ScheduleConfig:
    """How long to train."""

    preset: Literal["quick", "default", "full"] = "default"
    """Length and size of the run: quick for a look (minutes on a CPU), default, or full for the best quality; a GPU
    does more steps with more primitives."""
    steps: int | None = None
    """Optimisation steps; by default what the preset says for the method."""
    time_limit: float | None = None
    """Stop after this many seconds of training, with learning rates decayed by then; whichever of steps and time ends
    first."""
    batch_size: int = 1
    """Pictures a step; learning rates grow with its square root."""
    seed: int = 0
    """Every random draw follows from it: the same seed on the same CPU gives the same run."""


@dataclass(frozen=True)
class ImageConfig:
    """What the rendered picture is compared with."""

    ssim_weight: float = 0.2
    """Weight of 1 - SSIM in the loss; the rest is the mean absolute error."""
    saturation: bool | None = None
    """Let what pictures show at full brightness be brighter than that in the scene; by default for data sets whose
    cameras are known to differ, where a lamp is white in dark pictures too."""
    background: Literal["auto", "black", "white", "random", "learned"] = "auto"
    """Colour behind the scene; auto is the scene's own when its format fixes one, random with --mask-use object-only
    and for fields, else black."""
    mask_use: Literal["auto", "ignore-outside", "object-only"] = "auto"
    """What a mask means: pixels outside it do not count, or the scene ends at it (as if the mask were the alpha
    channel); auto is object-only where the data set's masks outline an object (IDR), else ignore-outside."""
    alpha_weight: float = 0.1
    """Weight of the mean absolute error of the rendered alpha, for pictures with alpha."""

    @property
    def settled_mask_use(self) -> Literal["ignore-outside", "object-only"]:
        """What masks mean in this run; a run settles `auto` before it starts."""
        assert self.mask_use != "auto"
        return self.mask_use


@dataclass(frozen=True)
class CorrectionConfig:
    """What may be wrong with the pictures besides the scene."""

    exposure: bool | None = None
    """Learn an affine colour correction for each camera, whose mean over the cameras stays the identity; by default
    for data sets whose cameras are known to differ (Panoptic)."""
    exposure_lr: float = 1e-3
    """Learning rate of the colour corrections at the start; a hundredth of it at the end."""
    refine_poses: bool = False
    """Learn a small rigid correction for each camera; its mean over the cameras stays zero."""
    pose_lr: float = 3e-4
    """Learning rate of the pose corrections (radians and scene radii) at the start; a hundredth of it at the end."""


@dataclass(frozen=True)
class EvaluationConfig:
    """When and how held-out views are measured."""

    evaluate_every: int | None = None
    """Measure held-out views every so many steps; by default only at the end."""
    max_test_views: int | None = None
    """Use at most this many held-out views, spread evenly; by default all."""
    save_test_renders: bool = True
    """Save the held-out views as rendered, and side by side with the truth, at the end."""


@dataclass(frozen=True)
class CheckpointConfig:
    """What is written while training."""

    save_every: int | None = None
    """Write a checkpoint every so many steps; by default every half minute. One is always written at the end and on
    Ctrl-C."""
    log_every: int | None = None
    """Write a line of metrics.jsonl and report progress every so many steps; by default 20, and 100 on a GPU."""
    tensorboard: bool = False
    """Also write TensorBoard events; needs `pip install kinosplat[tensorboard]`."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run, complete: the same config trains the same scene."""

    method: MethodConfig = field(default_factory=ThreeDGS)
    """What is trained, with its own options."""
    scene: str = ""
    """Path or name of the scene."""
    data: LoadOptions = field(default_factory=LoadOptions)
    """How the scene is read."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """How long to train."""
    image: ImageConfig = field(default_factory=ImageConfig)
    """What the rendered picture is compared with."""
    corrections: CorrectionConfig = field(default_factory=CorrectionConfig)
    """What may be wrong with the pictures besides the scene."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """When and how held-out views are measured."""
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    """What is written while training."""
    device: str = "auto"
    """Where to train: cpu, cuda, cuda:1, or auto for cuda where there is one."""
    cache_memory: float | None = None
    """GiB of decoded pictures kept in memory; by default a quarter of what is free."""
