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

    @cached_property
    def leaves(self) -> dict[str, Tensor]:
        """Everything that can be learned: `rows`, and the networks' layers by their names."""
        return self.rows | ({} if self.networks is None else self.networks.layers)

    def drawn(self, values: Mapping[str, Tensor]) -> Gaussians:
        """The Gaussians with some of `leaves` replaced; differentiable in them."""
        own = {name: value for name, value in values.items() if name in self.gaussians.parameters()}
        gaussians = with_parameters(self.gaussians, own, self.moving)
        latents = values.get(LATENTS, self.latents)
        if self.networks is None or latents is None:
            return gaussians
        return self._networks_with(self.networks, values).dressed(gaussians, latents)

    def replaced(self, values: Mapping[str, Tensor]) -> StoredSet:
        """The set with some of `leaves` replaced, in canonical form again."""
        with torch.no_grad():
            gaussians = canonical_axes(self.drawn(values).detach())
        if self.networks is None:
            return StoredSet(gaussians)
        latents = values.get(LATENTS, self.latents)
        return StoredSet(gaussians, latents, self._networks_with(self.networks, values))

    @staticmethod
    def _networks_with(networks: AppearanceNetworks, values: Mapping[str, Tensor]) -> AppearanceNetworks:
        return networks.with_layers({name: values.get(name, layer) for name, layer in networks.layers.items()})

    def select(self, index: Tensor) -> StoredSet:
        """The part that `index` picks."""
        latents = None if self.latents is None else self.latents[index]
        return replace(self, gaussians=self.gaussians.select(index), latents=latents)


class TunableSet:
    """A `Tunable` of everything that a set stores; still Gaussians have no parameters of time, so they stay still."""

    def __init__(self, stored: StoredSet, rates: Mapping[str, float]) -> None:
        self._stored = stored
        self._leaves = {name: leaf.detach().clone().requires_grad_() for name, leaf in stored.leaves.items()}
        self._rates = {name: rates.get(name, WEIGHT_RATE) for name in stored.leaves}

    @property
    def leaves(self) -> dict[str, Tensor]:
        """One leaf a parameter and a layer."""
        return self._leaves

    @property
    def rates(self) -> dict[str, float]:
        """As given, of layers `WEIGHT_RATE`."""
        return self._rates

    def gaussians(self) -> Gaussians:
        """The set with its leaves in place."""
        return self._stored.drawn(self._leaves)

    def tuned(self) -> StoredSet:
        """The set as it is now, in canonical form."""
        return self._stored.replaced({name: leaf.detach() for name, leaf in self._leaves.items()})
