"""`3dgs` and `4dgs`: Gaussians, still or moving, drawn by the rasterizer and learned by gradients.

One class serves both: `4dgs` is the same with time parameters (docs/mathematics.md). On a static scene it has none and
is `3dgs`. What the optimiser moves of the motion is the displacement over one duration, at the rate of the means; with
velocities, long-lived Gaussians are thrown about and training collapses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import assert_never

from kinosplat.render import GaussianStatistics, RasterSettings, rasterize
from kinosplat.render.camera import Camera
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.output import RenderOutput
from kinosplat.scenes import PointCloud, Scene
from kinosplat.trainers.batch import Batch
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.config import ImageConfig
from kinosplat.trainers.densify.classic import Classic
from kinosplat.trainers.densify.mcmc import Mcmc
from kinosplat.trainers.densify.strategy import NoDensification, Strategy
from kinosplat.trainers.draws import draw_key
from kinosplat.trainers.gaussian_rows import GaussianRows
from kinosplat.trainers.method import Losses, Measure, MethodState
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.methods.gaussian_step import PictureStep
from kinosplat.trainers.methods.initial import first_gaussians, first_moving_gaussians, thin
from kinosplat.trainers.motion import motion_penalties
from kinosplat.trainers.optim import Group, LearningRate, exponential_decay

GaussiansConfig = ThreeDGS | FourDGS

STILL_CHECKS = 100
"""How often in a run Gaussians that outlive the clip are turned still."""


def learning_rates(config: GaussiansConfig, radius: float, clip: tuple[float, float] | None) -> dict[str, LearningRate]:
    """Parameter name to its rate over the run, in world units and seconds."""
    rates = config.rates
    assert rates.rates_end is not None
    rates_end = rates.rates_end

    def fading(start: float) -> LearningRate:
        return exponential_decay(start, start * rates_end)

    def like_means(start: float) -> LearningRate:
        return exponential_decay(start, start * rates.means_lr_end / rates.means_lr)

    named = {
        "means": like_means(rates.means_lr * radius),
        "quats": fading(rates.quats_lr),
        "log_scales": fading(rates.scales_lr),
        "opacity_logits": fading(rates.opacities_lr),
        "sh_dc": fading(rates.sh_dc_lr),
        "sh_rest": fading(rates.sh_rest_lr),
    }
    if isinstance(config, FourDGS) and clip is not None:
        named |= {
            "displacements": like_means(rates.means_lr * radius * config.time.displacements_lr),
            "time_centres": like_means(config.time.time_centres_lr * (clip[1] - clip[0])),
            "log_durations": fading(config.time.durations_lr),
        }
    return named


def strategy_of(config: GaussiansConfig, seed: int, clip: tuple[float, float] | None) -> Strategy:
    """The densification strategy that the config asks for."""
    assert config.gaussians.max_gaussians is not None
    match config.densify:
        case "mcmc":
            return Mcmc(config.mcmc, config.gaussians.max_gaussians, seed, clip)
        case "classic":
            return Classic(config.classic, config.gaussians.max_gaussians, seed)
        case "none":
            return NoDensification()
        case _:
            assert_never(config.densify)


class GaussianMethod:
    """The method the loop trains."""

    learns_from: Literal["pictures"] = "pictures"

    def __init__(
        self,
        config: GaussiansConfig,
        image: ImageConfig,
        first: Gaussians,
        *,
        radius: float,
        clip: tuple[float, float] | None,
        seed: int,
    ) -> None:
        """`first` are moving Gaussians if and only if there is a `clip` (first and last time in seconds)."""
        self.name: str = config.name
        self.config = config
        self.image = image
        self.clip = clip
        self.seed = seed
        self.rows = GaussianRows(first, learning_rates(config, radius, clip), radius)
        self.strategy = strategy_of(config, seed, clip)
        self._statistics: GaussianStatistics | None = None
        self._step = PictureStep(image)
        self._visible = torch.empty(0, dtype=torch.bool, device=first.device)

    @classmethod
    def create(
        cls,
        config: GaussiansConfig,
        image: ImageConfig,
        scene: Scene,
        points: PointCloud,
        *,
        seed: int,
        device: torch.device,
    ) -> GaussianMethod:
        """First Gaussians for a scene; at most `n_first_points`, and never more than `max_gaussians`."""
        options = config.gaussians
        assert options.max_gaussians is not None
        points = thin(points, min(options.n_first_points or options.max_gaussians, options.max_gaussians), seed)
        first = first_gaussians(points, options, scene.radius, seed)
        clip = None
        if isinstance(config, FourDGS) and scene.is_moving:
            clip = (scene.times[0], scene.times[-1])
            first = first_moving_gaussians(first, points, config.time, clip)
        return cls(config, image, first.to(device), radius=scene.radius, clip=clip, seed=seed)

    @classmethod
    def restore(
        cls,
        config: GaussiansConfig,
        image: ImageConfig,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, Any],
        *,
        seed: int,
        device: torch.device,
    ) -> GaussianMethod:
        """The method as a checkpoint holds it, without the optimiser's moments (the optimiser loads those)."""
        rates = learning_rates(config, metadata["radius"], metadata["clip"])
        first = Gaussians(**{name: tensors[name].to(device) for name in rates})
        clip = None if metadata["clip"] is None else (metadata["clip"][0], metadata["clip"][1])
        return cls(config, image, first, radius=metadata["radius"], clip=clip, seed=seed)

    @property
    def n_primitives(self) -> int:
        """Gaussians there are now."""
        return len(self.rows)

    @property
    def n_bytes(self) -> int:
        """Bytes of all the parameters."""
        return sum(group.parameter.nbytes for group in self.rows.groups.values())

    def groups(self) -> list[Group]:
        """All tensors of the Gaussians."""
        return list(self.rows.groups.values())

    def gaussians(self) -> Gaussians:
        """The set as it is now, without gradients."""
        return self.rows.gaussians().detach()

    @property
    def settings(self) -> RasterSettings:
        """How the set is drawn once it is trained; whoever draws it, compresses it or stores it takes these."""
        options = self.config.gaussians
        assert options.near is not None
        return RasterSettings(
            rasterizer=options.rasterizer,
            sh_degree=options.sh_degree,
            antialiased=options.antialiased,
            near=options.near,
        )

    def loss(self, batch: Batch, moment: Moment) -> Losses:
        """Draw, compare, and add what the densification asks for."""
        n, device = len(self.rows), self.rows.device
        self._statistics = GaussianStatistics.zeros(n, device) if self.strategy.wants_statistics else None
        if len(self._visible) != n:
            self._visible = torch.empty(n, dtype=torch.bool, device=device)
        step = self._step.take(
            self.rows.gaussians(), batch, self._settings(moment), statistics=self._statistics, visible=self._visible
        )
        losses = step.losses
        losses.terms.update(self.strategy.penalties(self.rows, self._visible, batch.cameras, step.gradients))
        if self.clip is not None and isinstance(self.config, FourDGS) and self.config.motion.is_asked:
            times = [camera.time for camera in batch.cameras if camera.time is not None]
            key = draw_key(self.seed, moment.step, "motion")
            losses.terms.update(motion_penalties(self.config.motion, self.rows, self._visible, times, self.clip, key))
        return losses

    def touched(self) -> Mapping[str, Tensor]:
        """Gaussians that were seen; the time parameters of still ones have gradients of zero and stay by themselves."""
        return {"gaussians": self._visible}

    def after_step(self, moment: Moment) -> None:
        """Densify; turn still what outlives the clip."""
        self.strategy.after_step(self.rows, self._statistics, moment)
        self._statistics = None
        if self.clip is not None and isinstance(self.config, FourDGS) and moment.crosses(STILL_CHECKS):
            length = self.clip[1] - self.clip[0]
            self.rows.make_still(self.config.time.still_above * length, 0.5 * (self.clip[0] + self.clip[1]))

    def finish(self, measure: Measure) -> dict[str, float]:
        """Nothing is left to do."""
        return {}

    def render(self, cameras: Sequence[Camera], background: Tensor, *, geometry: bool = False) -> RenderOutput:
        """The Gaussians with all their spherical harmonics."""
        settings = replace(self.settings, depth=geometry, median_depth=geometry, normal=geometry)
        return rasterize(self.gaussians(), cameras, background=background, settings=settings)

    def state(self) -> MethodState:
        """What is not in the groups: the strategy's memory, the scene's radius and clip."""
        clip = None if self.clip is None else list(self.clip)
        return MethodState(self.strategy.tensors(), {"radius": self.rows.radius, "clip": clip})

    def load(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Take over the strategy's memory."""
        self.strategy.load(tensors)

    def summary(self) -> dict[str, float]:
        """The share of still Gaussians in a moving scene."""
        return {"still": self.rows.still.float().mean().item()} if self.rows.is_moving else {}

    def _settings(self, moment: Moment) -> RasterSettings:
        """As `settings`, but the degree of the harmonics grows over the run."""
        options = self.config.gaussians
        if options.sh_warm_up <= 0.0:
            return self.settings
        return replace(self.settings, sh_degree=min(options.sh_degree, int(moment.progress / options.sh_warm_up)))
