"""The mask of `hollownerf`: how sharp its gate is, the pruner that makes it sparse, and what is left in the end.

HollowNeRF (Xie et al., ICCV 2023). With m the mean of the mask and C its target, the pruner minimises over the model
and maximises over the dual variable gamma >= 0

    loss + rho / 2 max(0, m - C)^2 + gamma (m - C),      gamma <- max(0, gamma + rho (m - C)) after every step.

rho is the pruner's strength times the part of the run that a step is, so that runs of any length prune alike.
Hardening removes the cells of the mask whose eight vertices are all below a threshold. In bounded spaces the occupancy
grid, which is finer, loses the cells in which no ray saw anything lately: insides, and mist that never mattered.
Entries of the hash grid that no sample reaches any more go too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kinosplat.render.field.composite import sample_weights
from kinosplat.render.field.field import REMOVED
from kinosplat.render.field.layout import GridLayout
from kinosplat.render.field.occupancy import OccupancyGrid
from kinosplat.render.field.reach import SIDE, cells_within, drop_vertices, overlapping, reachable_entries
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.methods.field_config import HollowConfig
from kinosplat.trainers.methods.field_loss import RayCost
from kinosplat.trainers.optim import Group, exponential_decay

RATE_AT_THE_END = 0.1
"""The mask's learning rate falls to this part."""
WATCHED, WATCH_EVERY = 0.3, 2
"""In the last part of a run, every other step, cells are noted in which a ray sees something."""
SEEN = 0.01
"""Weight that one sample must have for its cell to be seen; a small scene loses 0.01 dB, and a third of its cells."""


class Hollow:
    """Mask and pruner of one run."""

    def __init__(self, config: HollowConfig, mask: Group) -> None:
        """`mask` holds the logits (64^3, 1); they get their first value and learning rate here."""
        self.config = config
        self.sharpness = config.sharpness_first
        self.reachable: Tensor | None = None
        self._mask = mask
        self._dual = torch.zeros((), device=mask.parameter.device)
        self._seen: Tensor | None = None
        mask.learning_rate = exponential_decay(config.mask_lr, RATE_AT_THE_END * config.mask_lr)
        if not bool(mask.parameter.any()):
            with torch.no_grad():
                mask.parameter.fill_(math.log(config.mask_first / (1 - config.mask_first)))

    @property
    def is_hard(self) -> bool:
        """Whether the mask has been hardened."""
        return self.reachable is not None

    @property
    def n_values(self) -> int:
        """Values of the mask that have not been removed."""
        return int((self._mask.parameter > 0.5 * REMOVED).sum())

    @torch.no_grad()
    def mean(self) -> Tensor:
        """() mean of the mask."""
        return torch.sigmoid(self._mask.parameter).mean()

    @torch.no_grad()
    def penalty(self, moment: Moment) -> tuple[dict[str, Tensor], Tensor | None]:
        """What the pruner adds to the loss, and to the gradient of the mask's logits; nothing before it starts."""
        if self.is_hard or moment.progress < self.config.pruning_start:
            return {}, None
        rho, saliency = self._rho(moment), torch.sigmoid(self._mask.parameter)
        excess = saliency.mean() - self.config.mask_target
        too_much = excess.clamp_min(0)
        slope = (rho * too_much + self._dual) / saliency.numel()
        return {"mask": 0.5 * rho * too_much.square() + self._dual * excess}, slope * saliency * (1 - saliency)

    @torch.no_grad()
    def after_step(self, moment: Moment) -> None:
        """Step the dual variable, and sharpen the gate."""
        options = self.config
        growth = options.sharpness_last / options.sharpness_first
        self.sharpness = options.sharpness_first * growth**moment.following
        if not self.is_hard and moment.progress >= options.pruning_start:
            excess = self.mean() - options.mask_target
            self._dual = (self._dual + self._rho(moment) * excess).clamp_min(0)

    @torch.no_grad()
    def watch(self, moment: Moment, grid: OccupancyGrid, cost: RayCost) -> None:
        """Note the cells of a bounded space in which the step's rays see something: what nothing sees is dropped."""
        if grid.space.contract or moment.progress < 1 - WATCHED or moment.step % WATCH_EVERY != 0:
            return
        samples, positions, density = cost.in_use()
        if self._seen is None:
            self._seen = torch.zeros(grid.n_cells, dtype=torch.bool, device=positions.device)
        weights, _ = sample_weights(density, samples)
        cells = (positions[weights > SEEN] * grid.resolution).long().clamp(0, grid.resolution - 1)
        self._seen[cells[:, 0] + grid.resolution * (cells[:, 1] + grid.resolution * cells[:, 2])] = True

    def _rho(self, moment: Moment) -> float:
        return self.config.pruning_strength * (moment.following - moment.progress)

    @torch.no_grad()
    def harden(self, table: Group, layout: GridLayout, grid: OccupancyGrid) -> None:
        """Remove what is below the threshold and what cannot be reached any more; doing it twice changes nothing."""
        alive = torch.sigmoid(self._mask.parameter[:, 0]) >= self.config.harden_below
        cells = cells_within(alive)
        grid.keep_only(cells, self._seen)
        reached = cells
        if not grid.space.contract:
            # Nothing looks into empty cells of the occupancy grid, which are finer than those of the mask.
            reached = grid.occupied()
            cells &= overlapping(reached, SIDE)
        self._mask.parameter[drop_vertices(cells)] = REMOVED
        self.reachable = reachable_entries(reached, layout)
        table.parameter[~self.reachable] = 0.0
        for group in (table, self._mask):
            group.exp_avg.zero_()
            group.exp_avg_sq.zero_()

    def facts(self) -> dict[str, float]:
        """What a report says of the hardened mask."""
        return {"mask_density": self.n_values / self._mask.parameter.numel(), "mask_values": self.n_values}

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds besides the mask."""
        tensors = {"hollow.dual": self._dual}
        if self._seen is not None:
            tensors["hollow.seen"] = self._seen.to(torch.uint8)
        if self.reachable is not None:
            tensors["hollow.reachable"] = self.reachable.to(torch.uint8)
        return tensors

    def metadata(self) -> dict[str, Any]:
        """The same, of what is no tensor."""
        return {"sharpness": self.sharpness}

    def load(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Take over what `tensors` and `metadata` returned."""
        device = self._mask.parameter.device
        self.sharpness = metadata["sharpness"]
        self._dual = tensors["hollow.dual"].to(device).clone()
        self._seen, self.reachable = (
            None if found is None else found.to(device).bool()
            for found in (tensors.get("hollow.seen"), tensors.get("hollow.reachable"))
        )
