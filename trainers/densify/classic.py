"""Densification by screen-space gradients (Kerbl et al. 2023): clone the small, split the large, prune the faint and
the huge.

Opacities are reset a few times so that what the pictures do not need fades away. When the cap leaves no room for all
candidates, those with the largest gradient come first. A moving Gaussian's clones keep its motion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kinosplat.render import GaussianStatistics
from kinosplat.render.camera import Camera
from kinosplat.render.gaussians import Gaussians
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.draws import generator
from kinosplat.trainers.gaussian_rows import GaussianRows
from kinosplat.trainers.methods.config import ClassicConfig

SPLIT_SHRINK = 1.6
"""Each half of a split Gaussian is smaller by this factor (paper, section 5.2)."""
RESET_OPACITY = 0.01
"""Opacities are cut down to this at a reset: twice the default of classic_min_opacity, as in the paper's code."""


class Classic:
    """The strategy; remembers gradients between rounds and whether opacities were reset yet."""

    wants_statistics = True

    def __init__(self, config: ClassicConfig, max_gaussians: int, seed: int) -> None:
        """`max_gaussians` is the cap."""
        self.config = config
        self.max_gaussians = max_gaussians
        self.seed = seed
        self._gradient: Tensor | None = None
        self._n_seen: Tensor | None = None
        self._n_resets = 0

    def penalties(
        self,
        rows: GaussianRows,
        visible: Tensor,
        cameras: Sequence[Camera],
        gradients: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """None: pruning does the work."""
        return {}

    @torch.no_grad()
    def after_step(self, rows: GaussianRows, statistics: GaussianStatistics | None, moment: Moment) -> None:
        """Collect gradients; densify and prune when a round is due; reset opacities when that is due."""
        assert statistics is not None
        if moment.progress >= self.config.classic_stop:
            return
        gradient = torch.nan_to_num(statistics.screen_gradient, nan=0.0, posinf=0.0, neginf=0.0)
        if self._gradient is None or self._n_seen is None:
            self._gradient, self._n_seen = gradient.clone(), statistics.n_seen.clone()
        else:
            self._gradient += gradient
            self._n_seen += statistics.n_seen
        if moment.progress >= self.config.classic_start and moment.crosses(self.config.classic_rounds):
            mean_gradient = self._gradient / self._n_seen.clamp_min(1)
            self._densify(rows, mean_gradient, generator(self.seed, moment.step, "split", rows.device))
            self._prune(rows)
            self._gradient, self._n_seen = None, None
        if moment.following < self.config.classic_stop and moment.crosses(self.config.classic_resets):
            self._reset(rows)

    def tensors(self) -> dict[str, Tensor]:
        """The gradients collected since the last round, and how often opacities were reset."""
        tensors = {"classic.n_resets": torch.tensor(self._n_resets)}
        if self._gradient is not None and self._n_seen is not None:
            tensors |= {"classic.gradient": self._gradient, "classic.n_seen": self._n_seen}
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over `tensors()`."""
        self._n_resets = int(tensors["classic.n_resets"])
        self._gradient, self._n_seen = tensors.get("classic.gradient"), tensors.get("classic.n_seen")

    def _densify(self, rows: GaussianRows, gradient: Tensor, draws: torch.Generator) -> None:
        room = self.max_gaussians - len(rows)
        candidates = (gradient > self.config.classic_gradient).nonzero()[:, 0]
        if room <= 0 or len(candidates) == 0:
            return
        if len(candidates) > room:
            candidates = candidates[torch.argsort(gradient[candidates], descending=True, stable=True)[:room]]
        copies = rows.gaussians().detach().select(candidates)
        large = rows.scales[candidates].amax(dim=1) > self.config.classic_split_scale * rows.radius
        # A split replaces one Gaussian by two halves drawn from it: one half takes its row, the other is appended.
        shift = [torch.randn(len(candidates), 3, generator=draws, device=rows.device) for _ in range(2)]
        first, second = (torch.where(large[:, None], rows.deform(s, candidates), 0.0) for s in shift)
        shrink = torch.where(large, math.log(SPLIT_SHRINK), 0.0)[:, None]
        changed = copies.parameters() | {"means": copies.means + second, "log_scales": copies.log_scales - shrink}
        rows.assign(
            candidates[large],
            {"means": (copies.means + first)[large], "log_scales": changed["log_scales"][large]},
        )
        rows.append(Gaussians(**changed))

    def _prune(self, rows: GaussianRows) -> None:
        prune = rows.opacities < self.config.classic_min_opacity
        prune |= ~torch.isfinite(rows["means"].detach().sum(dim=1) + rows["log_scales"].detach().sum(dim=1))
        if self._n_resets > 0:
            prune |= rows.scales.amax(dim=1) > self.config.classic_max_scale * rows.radius
        if prune.any() and not prune.all():
            rows.keep(~prune)

    def _reset(self, rows: GaussianRows) -> None:
        logits = rows["opacity_logits"].detach().clamp_max(math.log(RESET_OPACITY / (1.0 - RESET_OPACITY)))
        rows.assign(torch.arange(len(rows), device=rows.device), {"opacity_logits": logits})
        self._n_resets += 1
