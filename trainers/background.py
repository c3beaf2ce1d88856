"""The colour behind the scene, in training and in evaluation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from typing_extensions import assert_never

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
        self.group: Group | None = None
        if kind == "learned":
            start = torch.full((1, 3), 0.5, device=device)
            self.group = Group("background", start, exponential_decay(1e-2, 1e-3), rows="background", eps=1e-8)

    def color(self, step: int) -> Tensor:
        """(3,) colour for training step `step`; carries a gradient when it is learned."""
        if self._kind == "random":
            draw = torch.rand(3, generator=generator(self._seed, step, "background"))
            return draw.to(self._device)
        return self._fixed()

    def evaluation_color(self) -> Tensor:
        """(3,) colour for held-out views."""
        return torch.zeros(3, device=self._device) if self._kind == "random" else self._fixed().detach()

    def _fixed(self) -> Tensor:
        if isinstance(self._kind, tuple):
            return torch.tensor(self._kind, device=self._device)
        match self._kind:
            case "black" | "random":
                return torch.zeros(3, device=self._device)
            case "white":
                return torch.ones(3, device=self._device)
            case "learned":
                assert self.group is not None
                return self.group.parameter[0].clamp(0.0, 1.0)
            case _:
                assert_never(self._kind)
