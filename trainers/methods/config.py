"""Options of the Gaussian methods, `3dgs` and `4dgs`.

Fractions of a run stand where other codes have step numbers, so that runs of any length have the same shape (see
clock.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class GaussianConfig:
    """The set of Gaussians and how it is drawn."""

    max_gaussians: int | None = None
    """Never have more Gaussians than this; by default what the preset says."""
    n_first_points: int | None = None
    """First Gaussians at most; by default max_gaussians."""
    sh_degree: int = 3
    """Degree of the spherical harmonics, 0 (colour from all sides the same) to 3."""
    sh_warm_up: float = 0.06
    """One more degree is used after each such fraction of the run."""
    first_opacity: float = 0.3
    """Opacity of the first Gaussians."""
    first_scale: float = 0.7
    """Size of the first Gaussians, in mean distances to the three nearest neighbours."""
    near: float | None = None
    """Draw no Gaussian whose centre is nearer to a camera than this, in scene units (1 is about the cameras' distance
    from what they look at); by default what the format of the scene says, else 0.05."""
    antialiased: bool = False
    """Compensate opacity for the dilation on the screen (Mip-Splatting)."""
    rasterizer: Literal["auto", "native", "reference", "gsplat"] = "auto"
    """Which rasterizer draws; auto is this project's own."""


@dataclass(frozen=True)
class GaussianRates:
    """Learning rates of the Gaussians, for Adam and runs of 30 000 steps; shorter runs have larger ones (clock.py)."""

    means_lr: float = 1.6e-4
    """Of the positions at the start, in scene radii."""
    means_lr_end: float = 1.6e-5
    """Of the positions at the end, in scene radii; decays exponentially."""
    scales_lr: float = 3e-3
    """Of the log-scales."""
    quats_lr: float = 1e-3
    """Of the quaternions."""
    opacities_lr: float = 2e-2
    """Of the opacity logits."""
    sh_dc_lr: float = 2.5e-3
    """Of the colours."""
    sh_rest_lr: float = 2.5e-4
    """Of the view-dependent colours."""
    rates_end: float | None = None
    """Factor that every rate but the positions' has reached at the end; decays exponentially. By default 0.1 in runs of
    15 000 steps and more, which it makes less sure of their training pictures, and 1 in shorter ones, which need every
    step.
    """


@dataclass(frozen=True)
class McmcConfig:
    """Densification as Markov chain Monte Carlo (Kheradmand et al. 2024): relocate the dead, add, and shake."""

    mcmc_noise: float = 5e5
    """Strength of the noise on positions, in learning rates of the positions."""
    mcmc_growth: float = 0.05
    """Fraction of Gaussians added a round, up to max_gaussians."""
    mcmc_rounds: int = 100
    """Rounds that would lie evenly over the whole run."""
    mcmc_start: float = 0.015
    """Fraction of the run after which rounds start."""
    mcmc_stop: float = 0.8
    """Fraction of the run after which rounds and noise stop."""
    mcmc_min_opacity: float = 0.005
    """A Gaussian is dead when its opacity is below this at every moment of the clip."""
    opacity_penalty: float = 0.01
    """Weight of the mean opacity of the Gaussians in view, as they are at the time of the picture."""
    scale_penalty: float = 0.01
    """Weight of the mean scale of the Gaussians in view, in scene radii."""


@dataclass(frozen=True)
class ClassicConfig:
    """Densification by gradients (Kerbl et al. 2023): clone, split, prune, reset opacities."""

    classic_gradient: float = 2e-4
    """Screen-space gradient (normalised units, mean over cameras) above which a Gaussian is cloned or split."""
    classic_split_scale: float = 0.01
    """Split instead of clone above this size, in scene radii."""
    classic_rounds: int = 100
    """Rounds that would lie evenly over the whole run."""
    classic_start: float = 0.015
    """Fraction of the run after which rounds start."""
    classic_stop: float = 0.5
    """Fraction of the run after which rounds stop."""
    classic_resets: int = 10
    """How often opacities would be reset over the whole run; none after classic_stop."""
    classic_min_opacity: float = 0.005
    """Prune below this opacity."""
    classic_max_scale: float = 0.1
    """Prune above this size, in scene radii, once opacities were reset."""


@dataclass(frozen=True)
class TimeConfig:
    """How Gaussians live and move in time."""

    first_duration: float = 0.75
    """Duration of first Gaussians that were seen at one time, in the time between key frames."""
    first_long_duration: float = 0.5
    """Duration of first Gaussians that hold for the whole clip, as a fraction of it."""
    displacements_lr: float = 1.0
    """Learning rate of the displacements, in those of the positions."""
    time_centres_lr: float = 4e-4
    """Learning rate of the time centres at the start, in clip lengths; decays with that of the positions."""
    durations_lr: float = 3e-3
    """Learning rate of the log-durations."""
    still_above: float = 1.0
    """A Gaussian whose duration exceeds this many clip lengths becomes still and loses its time parameters."""


@dataclass(frozen=True)
class MotionConfig:
    """What is asked of motion beyond explaining the pictures (motion.py)."""

    lifetime: float = 0.0
    """Weight of the mean of log(clip length / duration) of what is in view."""
    coherence: float = 0.0
    """Weight of the mean distance, in scene radii, of displacements from those of the neighbourhood."""
    neighbourhood: float = 0.03
    """Edge of a neighbourhood, in scene radii."""
    neighbourhood_time: float = 0.15
    """Length of a neighbourhood, in seconds."""

    @property
    def is_asked(self) -> bool:
        """Whether there is anything to add to the loss."""
        return self.lifetime > 0.0 or self.coherence > 0.0


@dataclass(frozen=True)
class ThreeDGS:
    """Still Gaussians; of a moving scene they take one frame."""

    gaussians: GaussianConfig = field(default_factory=GaussianConfig)
    """The set of Gaussians and how it is drawn."""
    rates: GaussianRates = field(default_factory=GaussianRates)
    """Learning rates."""
    densify: Literal["mcmc", "classic", "none"] = "mcmc"
    """How Gaussians are added and moved: by relocation and noise, by gradients, or not at all."""
    mcmc: McmcConfig = field(default_factory=McmcConfig)
    """Used with densify mcmc."""
    classic: ClassicConfig = field(default_factory=ClassicConfig)
    """Used with densify classic."""
    name: Literal["3dgs"] = "3dgs"
    """Name of the method."""


@dataclass(frozen=True)
class FourDGS:
    """Moving Gaussians, each a native 4D Gaussian cut at the time of the picture; all still in a static scene."""

    gaussians: GaussianConfig = field(default_factory=GaussianConfig)
    """The set of Gaussians and how it is drawn."""
    rates: GaussianRates = field(default_factory=GaussianRates)
    """Learning rates."""
    time: TimeConfig = field(default_factory=TimeConfig)
    """How Gaussians live and move in time."""
    motion: MotionConfig = field(default_factory=MotionConfig)
    """What is asked of motion beyond explaining the pictures."""
    densify: Literal["mcmc", "classic", "none"] = "mcmc"
    """How Gaussians are added and moved: by relocation and noise, by gradients, or not at all."""
    mcmc: McmcConfig = field(default_factory=McmcConfig)
    """Used with densify mcmc."""
    classic: ClassicConfig = field(default_factory=ClassicConfig)
    """Used with densify classic."""
    name: Literal["4dgs"] = "4dgs"
    """Name of the method."""
