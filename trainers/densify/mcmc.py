"""3D Gaussian Splatting as Markov chain Monte Carlo (Kheradmand et al. 2024), for still and moving Gaussians.

A dead Gaussian is relocated to a live one drawn by opacity, which shares its opacity and scale with the newcomers so
that the picture stays as it was; new Gaussians are born the same way; positions get noise that grows with the
covariance and with transparency.

Penalties on opacity and scale act on the Gaussians in view only, weighted by how far the picture's time has faded them.
A penalty on all of them at every step starves what is rarely visible in time: it is pulled down at every step and held
up at few.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kinosplat.render import GaussianStatistics
from kinosplat.render.camera import Camera
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.mcmc import shake, view_penalties
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.draws import draw_key, generator
from kinosplat.trainers.gaussian_rows import GaussianRows
from kinosplat.trainers.methods.config import McmcConfig

MAX_SHARES = 51
"""At most so many Gaussians share one place after a round, as in the paper's code."""


def shared_opacity_and_scale(opacities: Tensor, n_shares: Tensor) -> tuple[Tensor, Tensor]:
    """Opacity of each of N coinciding Gaussians, and the factor on their scales, that look like one with `opacities`.

    opacities (M,), n_shares (M,) int64 >= 1, both results (M,). Paper, equation 9 and its appendix: o' = 1 - (1 -
    o)^(1/N) and scale'/scale = o / sum_{i=1..N} sum_{k=0..i-1} C(i-1, k) (-1)^k o'^(k+1) / sqrt(k+1), which keeps the
    integral of alpha. Summed in float64: the terms alternate and are large beside their sum.
    """
    shares = n_shares.clamp(1, MAX_SHARES)
    opacity = opacities.double()
    shared = 1.0 - (1.0 - opacity) ** (1.0 / shares)
    # Summing over i first turns the double sum into sum_k C(N, k+1) (-1)^k o'^(k+1) / sqrt(k+1) (hockey-stick
    # identity).
    k = torch.arange(MAX_SHARES, device=opacities.device, dtype=torch.float64)
    binomials = torch.tensor(
        [[math.comb(n, j + 1) for j in range(MAX_SHARES)] for n in range(MAX_SHARES + 1)],
        dtype=torch.float64,
        device=opacities.device,
    )
    sign = 1.0 - 2.0 * (k % 2)
    terms = binomials[shares] * sign * shared[:, None] ** (k + 1) / torch.sqrt(k + 1)
    factor = opacity / terms.sum(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
    return shared.to(opacities.dtype), factor.to(opacities.dtype)


class Mcmc:
    """The strategy; everything random follows from the seed and the step."""

    wants_statistics = False

    def __init__(self, config: McmcConfig, max_gaussians: int, seed: int, clip: tuple[float, float] | None) -> None:
        """`clip` is the first and last time of the scene in seconds, None when it does not move."""
        self.config = config
        self.max_gaussians = max_gaussians
        self.seed = seed
        self.clip = clip

    def penalties(
        self,
        rows: GaussianRows,
        visible: Tensor,
        cameras: Sequence[Camera],
        gradients: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Mean opacity and mean scale of the Gaussians in view, faded to the time of the picture; divided by all N."""
        opacity, scale = view_penalties(
            rows.gaussians(),
            visible,
            [camera.time for camera in cameras],
            opacity_weight=self.config.opacity_penalty,
            scale_weight=self.config.scale_penalty / rows.radius,
            add_to=None if gradients is None else (gradients["opacity_logits"], gradients["log_scales"]),
        )
        return {"opacity": opacity, "scale": scale}

    @torch.no_grad()
    def after_step(self, rows: GaussianRows, statistics: GaussianStatistics | None, moment: Moment) -> None:
        """Noise at every step; relocation and growth when a round is due."""
        if moment.progress >= self.config.mcmc_stop:
            return
        if moment.within(self.config.mcmc_start, self.config.mcmc_stop) and moment.crosses(self.config.mcmc_rounds):
            draws = generator(self.seed, moment.step, "relocate", rows.device)
            self._relocate(rows, draws)
            self._grow(rows, draws)
        strength = self.config.mcmc_noise * rows.groups["means"].learning_rate(moment.progress)
        shake(rows.gaussians(), strength, draw_key(self.seed, moment.step, "noise"))

    def tensors(self) -> dict[str, Tensor]:
        """Nothing to keep: the strategy has no memory."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to take over."""

    def _peak_opacities(self, rows: GaussianRows) -> Tensor:
        """(N,) largest opacity that each Gaussian has at any moment of the clip."""
        if self.clip is None or not rows.is_moving:
            return rows.opacities
        nearest = rows["time_centres"].detach().clamp(*self.clip)
        offset = (nearest - rows["time_centres"].detach()) * torch.exp(-rows["log_durations"].detach())
        return rows.opacities * torch.exp(-0.5 * offset**2)

    def _relocate(self, rows: GaussianRows, draws: torch.Generator) -> None:
        peaks = self._peak_opacities(rows)
        finite = torch.isfinite(rows["means"].detach().sum(dim=1) + rows["log_scales"].detach().sum(dim=1))
        dead = (peaks <= self.config.mcmc_min_opacity) | ~finite
        n_dead = int(dead.sum())
        if n_dead == 0 or n_dead == len(rows):
            return
        sources = draw_rows(torch.where(dead, 0.0, peaks), n_dead, draws)
        self._share(rows, sources, n_dead, destinations=dead.nonzero()[:, 0])

    def _grow(self, rows: GaussianRows, draws: torch.Generator) -> None:
        n_new = min(self.max_gaussians, int((1.0 + self.config.mcmc_growth) * len(rows)) + 1) - len(rows)
        if n_new > 0:
            peaks = self._peak_opacities(rows)
            self._share(rows, draw_rows(peaks, n_new, draws), n_new, destinations=None)

    def _share(self, rows: GaussianRows, sources: Tensor, n_new: int, destinations: Tensor | None) -> None:
        """Let `sources` (M,), with repeats, share with M new Gaussians: at `destinations`, or appended."""
        n_shares = torch.bincount(sources, minlength=len(rows)) + 1
        opacity, factor = shared_opacity_and_scale(rows.opacities[sources], n_shares[sources])
        eps = torch.finfo(opacity.dtype).eps
        changed = {
            "opacity_logits": torch.logit(opacity.clamp(self.config.mcmc_min_opacity, 1.0 - eps)),
            "log_scales": rows["log_scales"].detach()[sources] + torch.log(factor)[:, None],
        }
        copies = {name: group.parameter.detach()[sources] for name, group in rows.groups.items()} | changed
        # A source drawn twice is written twice with the same values, so the order does not matter.
        rows.assign(sources, changed)
        if destinations is None:
            rows.append(Gaussians(**copies))
        else:
            rows.assign(destinations, copies)


def draw_rows(weights: Tensor, n: int, draws: torch.Generator) -> Tensor:
    """(n,) row numbers drawn with replacement in proportion to `weights` (N,); torch.multinomial stops at N = 2^24."""
    cumulative = torch.cumsum(weights.double(), dim=0)
    picks = torch.rand(n, generator=draws, device=weights.device, dtype=torch.float64) * cumulative[-1]
    return torch.searchsorted(cumulative, picks, right=True).clamp_max(weights.shape[0] - 1)
