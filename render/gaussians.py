"""The parameters of a set of Gaussians, still or moving, as they are stored and optimised.

A moving Gaussian is kept in the cut form of a 4D Gaussian (docs/mathematics.md):
with `phase = (t - time_centre) / duration`
its mean at time t is `mean + displacement * phase`, and its opacity is multiplied by `exp(-phase^2 / 2)`.
A still Gaussian in a moving set has `log_duration = +inf` and `displacement = 0`. Tensors of unequal length are
refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

PARAMETER_NAMES = (
    "means",
    "quats",
    "log_scales",
    "opacity_logits",
    "sh_dc",
    "sh_rest",
    "displacements",
    "time_centres",
    "log_durations",
)
TIME_PARAMETER_NAMES = ("displacements", "time_centres", "log_durations")


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians; the time parameters are all None (a static set) or all given (a moving one)."""

    means: Tensor
    """(N, 3) positions in world units, of a moving Gaussian at its time centre."""
    quats: Tensor
    """(N, 4) rotations as quaternions wxyz, normalised where used."""
    log_scales: Tensor
    """(N, 3) natural logarithms of the standard deviations along the rotated axes, world units."""
    opacity_logits: Tensor
    """(N,) opacity is their sigmoid."""
    sh_dc: Tensor
    """(N, 3) degree-0 coefficients; colour is 0.5 + sum of basis * coefficient, clamped at 0."""
    sh_rest: Tensor
    """(N, K, 3) coefficients of degree 1 and up, K in {0, 3, 8, 15}, basis order and signs of the INRIA code; float16
    in a set that is only drawn (`for_drawing`).
    """
    displacements: Tensor | None = None
    """(N, 3) distance moved during one duration, world units: velocity * duration."""
    time_centres: Tensor | None = None
    """(N,) seconds."""
    log_durations: Tensor | None = None
    """(N,) natural logarithm of the standard deviation in time, seconds; +inf for a still Gaussian."""

    def __post_init__(self) -> None:
        n = self.means.shape[0]
        expected = {
            "means": (n, 3),
            "quats": (n, 4),
            "log_scales": (n, 3),
            "opacity_logits": (n,),
            "sh_dc": (n, 3),
            "displacements": (n, 3),
            "time_centres": (n,),
            "log_durations": (n,),
        }
        for name, shape in expected.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}.")
        if self.sh_rest.ndim != 3 or self.sh_rest.shape[0] != n or self.sh_rest.shape[2] != 3:
            raise ValueError(f"sh_rest must have shape ({n}, K, 3), got {tuple(self.sh_rest.shape)}.")
        if self.sh_rest.shape[1] not in (0, 3, 8, 15):
            raise ValueError(f"sh_rest must hold 0, 3, 8 or 15 coefficients a colour, got {self.sh_rest.shape[1]}.")
        given = [getattr(self, name) is not None for name in TIME_PARAMETER_NAMES]
        if any(given) and not all(given):
            raise ValueError(
                "displacements, time_centres and log_durations must be given together or left out together."
            )

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def is_moving(self) -> bool:
        """Whether the set has time parameters."""
        return self.displacements is not None

    @property
    def sh_degree(self) -> int:
        """Degree of the stored spherical harmonics, 0 to 3."""
        return {0: 0, 3: 1, 8: 2, 15: 3}[self.sh_rest.shape[1]]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.means.device

    @cached_property
    def notes(self) -> dict[str, Any]:
        """What others found out about these very tensors and do not want to find out again; gone with the set."""
        return {}

    def parameters(self) -> dict[str, Tensor]:
        """Name to tensor, without the time parameters of a static set; in the order of PARAMETER_NAMES."""
        return {name: tensor for name in PARAMETER_NAMES if (tensor := getattr(self, name)) is not None}

    def map(self, function: Callable[[Tensor], Tensor]) -> Gaussians:
        """A new set with `function` applied to every tensor, such as an index or a move to another device."""
        return Gaussians(**{name: function(tensor) for name, tensor in self.parameters().items()})

    def select(self, index: Tensor) -> Gaussians:
        """The Gaussians that `index` picks: (M,) int64 positions or (N,) bool mask."""
        return self.map(lambda tensor: tensor[index])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Gaussians:
        """The same set on `device` and in `dtype`."""
        return self.map(lambda tensor: tensor.to(device, dtype))

    def detach(self) -> Gaussians:
        """The same set without gradient history."""
        return self.map(lambda tensor: tensor.detach())

    def for_drawing(self) -> Gaussians:
        """The same set as it is drawn fastest, without gradients: on a GPU, harmonics beyond the first in float16.

        They are three quarters of what a picture reads. Rounding them moves a colour by less than an 8-bit step, and
        what takes gradients refuses such a set.
        """
        if self.device.type != "cuda" or self.sh_rest.shape[1] == 0:
            return self.detach()
        return replace(self.detach(), sh_rest=self.sh_rest.detach().half())

    @property
    def velocities(self) -> Tensor:
        """(N, 3) world units a second; zero for still Gaussians."""
        if self.displacements is None or self.log_durations is None:
            return torch.zeros_like(self.means)
        return self.displacements * torch.exp(-self.log_durations)[:, None]

    def at(self, time: float) -> Gaussians:
        """The static set seen at `time` (seconds): moved means, faded opacities; exactly what the renderer slices."""
        if self.time_centres is None or self.log_durations is None:
            return self
        offset = time - self.time_centres
        phase = offset * torch.exp(-self.log_durations)
        fade = torch.exp(-0.5 * phase**2)
        opacity = torch.sigmoid(self.opacity_logits) * fade
        return Gaussians(
            means=self.means + self.velocities * offset[:, None],
            quats=self.quats,
            log_scales=self.log_scales,
            opacity_logits=torch.logit(opacity.clamp_max(1 - torch.finfo(opacity.dtype).eps)),
            sh_dc=self.sh_dc,
            sh_rest=self.sh_rest,
        )


def concatenate(sets: list[Gaussians]) -> Gaussians:
    """One set of all the Gaussians of `sets`, in order; all must be moving or all static, with one SH degree."""
    names = {tuple(s.parameters()) for s in sets}
    if len(names) != 1:
        raise ValueError(
            "sets must be all static or all moving to be concatenated; give static ones a log_duration of +inf."
        )
    return Gaussians(**{name: torch.cat([s.parameters()[name] for s in sets]) for name in sets[0].parameters()})
