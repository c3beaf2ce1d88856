"""The Gaussians of a run as parameter groups: one place where rows are added, removed and moved."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from kinosplat.render.gaussians import PARAMETER_NAMES, TIME_PARAMETER_NAMES, Gaussians
from kinosplat.render.rotations import matrix_from_quaternion
from kinosplat.trainers.optim import Group, LearningRate, append_rows, assign_rows, keep_rows


class GaussianRows:
    """A set of Gaussians whose tensors are learned; `radius` is the scene's, in world units."""

    def __init__(self, first: Gaussians, learning_rates: Mapping[str, LearningRate], radius: float) -> None:
        """`learning_rates` has one for every tensor of `first`."""
        self.radius = radius
        self.groups = {
            name: Group(name, tensor, learning_rates[name], rows="gaussians", hastens=True)
            for name, tensor in first.parameters().items()
        }
        self._gaussians: Gaussians | None = None

    def __len__(self) -> int:
        return self.groups["means"].parameter.shape[0]

    def __getitem__(self, name: str) -> Tensor:
        """The (N, ...) leaf of one parameter, as it is now."""
        return self.groups[name].parameter

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self["means"].device

    @property
    def is_moving(self) -> bool:
        """Whether the set has time parameters."""
        return "log_durations" in self.groups

    def gaussians(self) -> Gaussians:
        """The set with its live leaves, for rendering."""
        known = self._gaussians
        if known is None or any(group.parameter is not getattr(known, name) for name, group in self.groups.items()):
            known = Gaussians(**{name: self[name] for name in PARAMETER_NAMES if name in self.groups})
            self._gaussians = known
        return known

    @property
    def opacities(self) -> Tensor:
        """(N,) at the time centre, without gradient."""
        return torch.sigmoid(self["opacity_logits"].detach())

    @property
    def scales(self) -> Tensor:
        """(N, 3) standard deviations in world units, without gradient."""
        return torch.exp(self["log_scales"].detach())

    @property
    def still(self) -> Tensor:
        """(N,) bool: Gaussians that do not change in time."""
        if not self.is_moving:
            return torch.ones(len(self), dtype=torch.bool, device=self.device)
        return torch.isinf(self["log_durations"].detach())

    def shapes(self, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rotations (M, 3, 3) and scales (M, 3) of the Gaussians at `index` (all by default), without gradient."""
        quats, log_scales = self["quats"].detach(), self["log_scales"].detach()
        if index is not None:
            quats, log_scales = quats[index], log_scales[index]
        return matrix_from_quaternion(quats), torch.exp(log_scales)

    def deform(self, vectors: Tensor, index: Tensor | None = None) -> Tensor:
        """Standard normal vectors (M, 3) stretched and turned to the shapes of the Gaussians at `index`."""
        rotations, scales = self.shapes(index)
        return (rotations @ (scales * vectors)[..., None])[..., 0]

    def append(self, values: Gaussians) -> None:
        """Add Gaussians at the end, with moments of zero."""
        append_rows(self.groups.values(), values.parameters())

    def keep(self, index: Tensor) -> None:
        """Keep the Gaussians that `index` picks: positions or a mask."""
        keep_rows(self.groups.values(), index)

    def assign(self, index: Tensor, values: Mapping[str, Tensor]) -> None:
        """Give the Gaussians at `index` (M,) new values by parameter name, with moments of zero."""
        assign_rows(self.groups.values(), index, values)

    @torch.no_grad()
    def make_still(self, above: float, moment_in_clip: float) -> None:
        """Turn Gaussians with a duration above `above` seconds still, where they are at `moment_in_clip`; in place.

        They have `log_duration = +inf` and a displacement of zero from then on. Does not wait for the device.
        """
        log_durations = self["log_durations"]
        turning = (log_durations > math.log(above)) & ~self.still
        offset = moment_in_clip - self["time_centres"]
        velocity = self["displacements"] * torch.exp(-log_durations)[:, None]
        self["means"].copy_(torch.where(turning[:, None], self["means"] + velocity * offset[:, None], self["means"]))
        for name, value in {"displacements": 0.0, "log_durations": float("inf")}.items():
            self[name].masked_fill_(turning.reshape(-1, *[1] * (self[name].ndim - 1)), value)
        for name in TIME_PARAMETER_NAMES:
            group = self.groups[name]
            rows = turning.reshape(-1, *[1] * (group.parameter.ndim - 1))
            group.exp_avg.masked_fill_(rows, 0.0)
            group.exp_avg_sq.masked_fill_(rows, 0.0)
