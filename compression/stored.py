"""A set as a file stores it: all parameters of its Gaussians, or latents that become opacity and colour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from kinosplat.compression.canonical import canonical_axes
from kinosplat.compression.kino.networks import LATENTS, MADE_HERE
from kinosplat.compression.networks import WEIGHT_RATE, AppearanceNetworks
from kinosplat.compression.tunable import moving_rows, with_parameters
from kinosplat.render.gaussians import TIME_PARAMETER_NAMES, Gaussians


@dataclass(frozen=True)
class StoredSet:
    """Canonical Gaussians; with networks, their opacity and colour follow from the latents."""

    gaussians: Gaussians
    """As they are drawn."""
    latents: Tensor | None = None
    """(N, 6), given together with `networks`."""
    networks: AppearanceNetworks | None = None
    """Shared by all Gaussians."""

    def __len__(self) -> int:
        return len(self.gaussians)

    @cached_property
    def moving(self) -> Tensor:
        """(M,) positions of the Gaussians that are not still."""
        return moving_rows(self.gaussians)

    @cached_property
    def rows(self) -> dict[str, Tensor]:
        """What is stored of each Gaussian, by name; of what only moving ones have, their rows."""
        named = {
            name: tensor[self.moving] if name in TIME_PARAMETER_NAMES else tensor
            for name, tensor in self.gaussians.parameters().items()
            if self.latents is None or name not in MADE_HERE
        }
        named |= {} if self.latents is None else {LATENTS: self.latents}
        return {name: tensor for name, tensor in named.items() if tensor.numel()}

    def drawn(self, values: Mapping[str, Tensor], layers: dict[str, Tensor] | None = None) -> Gaussians:
        """The Gaussians with some of `rows` and maybe the networks' layers replaced; differentiable in both."""
        latents = values.get(LATENTS, self.latents)
        own = {name: value for name, value in values.items() if name != LATENTS}
        gaussians = with_parameters(self.gaussians, own, self.moving)
        if self.networks is None or latents is None:
            return gaussians
        networks = self.networks if layers is None else self.networks.with_layers(layers)
        return networks.dressed(gaussians, latents)

    def select(self, index: Tensor) -> StoredSet:
        """The part that `index` picks."""
        latents = None if self.latents is None else self.latents[index]
        return replace(self, gaussians=self.gaussians.select(index), latents=latents)


class TunableSet:
    """A `Tunable` of everything that a set stores; still Gaussians have no parameters of time, so they stay still."""

    def __init__(self, stored: StoredSet, rates: Mapping[str, float]) -> None:
        self._stored = stored
        layers = {} if stored.networks is None else stored.networks.layers
        self._leaves = {name: leaf.detach().clone().requires_grad_() for name, leaf in (stored.rows | layers).items()}
        self._layers = list(layers)
        self._rates = {name: rates[name] for name in stored.rows} | dict.fromkeys(layers, WEIGHT_RATE)

    @property
    def leaves(self) -> dict[str, Tensor]:
        """One leaf a parameter and a layer."""
        return self._leaves

    @property
    def rates(self) -> dict[str, float]:
        """As given."""
        return self._rates

    def gaussians(self) -> Gaussians:
        """The set with its leaves in place."""
        values = {name: leaf for name, leaf in self._leaves.items() if name not in self._layers}
        return self._stored.drawn(values, {name: self._leaves[name] for name in self._layers})

    def tuned(self) -> StoredSet:
        """The set as it is now, in canonical form."""
        with torch.no_grad():
            gaussians = canonical_axes(self.gaussians().detach())
        if self._stored.networks is None:
            return StoredSet(gaussians)
        layers = {name: self._leaves[name].detach() for name in self._layers}
        return StoredSet(gaussians, self._leaves[LATENTS].detach(), self._stored.networks.with_layers(layers))
