"""The colour behind the scene, in training and in evaluation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kinosplat.trainers.draws import generator
from kinosplat.trainers.optim import Group, exponential_decay

BackgroundKind = Literal["black", "white", "random", "learned"]


class Background:
    """One colour a step; held-out pictures are drawn over black where training drew random ones."""

    def __init__(self, kind: BackgroundKind | tuple[float, float, float], seed: int, device: torch.device) -> None:
        """`kind` is one of the words of `ImageConfig.background`, auto settled, or a fixed colour."""
        self._kind = kind
        self._seed = seed
        self._device = device
        self._fixed = torch.zeros(3, device=device)
        self.group: Group | None = None
        if isinstance(kind, tuple):
            self._fixed = torch.tensor(kind, device=device)
        elif kind == "white":
            self._fixed = torch.ones(3, device=device)
        elif kind == "learned":
            start = torch.full((1, 3), 0.5, device=device)
            self.group = Group("background", start, exponential_decay(1e-2, 1e-3), rows="background", eps=1e-8)

    def color(self, step: int) -> Tensor:
        """(3,) colour for training step `step`; carries a gradient when it is learned."""
        if self._kind == "random":
            draws = generator(self._seed, step, "background", self._device)
            return torch.rand(3, generator=draws, device=self._device)
        return self._fixed if self.group is None else self.group.parameter[0].clamp(0.0, 1.0)

    def behind_rays(self, step: int) -> Tensor | None:
        """(3,) colour behind all rays of a step, with a gradient when learned; None where each has a random one."""
        return None if self._kind == "random" else self.color(step)

    def evaluation_color(self) -> Tensor:
        """(3,) colour for held-out views."""
        return self._fixed if self.group is None else self.group.parameter[0].detach().clamp(0.0, 1.0)
