"""Appearance by networks, as it is learned: OMG4's implicit form (2025), after OMG (2025).

Six latents a Gaussian and four small networks shared by all replace opacity and spherical harmonics. They are first
fitted to the harmonics that training found, without rendering, then tuned through the renderer like every other
parametrisation. `kinosplat.compression.kino.networks` has the formulas and evaluates what is in a file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kinosplat.compression.kino.networks import N_COLOR_LATENTS, PREFIX, AppearanceSpec
from kinosplat.render.gaussians import Gaussians

FIELD_WIDTH = 13
"""Numbers that stand for where and when a Gaussian is (OMG4)."""
HIDDEN_WIDTH = 64
FREQUENCIES, TIME_FREQUENCIES = 8, 4
FIT_STEPS = 500
FIT_ROWS = 1 << 16
"""Gaussians a step of the fit looks at."""
FIT_RATE = 5e-3
WEIGHT_RATE = 5e-4
"""Adam's rate for tuning layers through the renderer."""
MOST_OPACITY_LOGIT = 6.0
"""Beyond it opacity does not change any more, and the fit should not try."""


@dataclass(frozen=True)
class AppearanceNetworks:
    """Layers of the four networks and how they are fed."""

    spec: AppearanceSpec
    """Frequencies of the encoding."""
    frame: Tensor
    """(2, 3 or 4) least value and extent of each coordinate."""
    layers: dict[str, Tensor]
    """`field.0` and so on: (outputs, inputs + 1), the bias in the last column."""

    @classmethod
    def create(cls, gaussians: Gaussians, seed: int) -> AppearanceNetworks:
        """Random networks for the place and time of a set; its degree says what `view` gives."""
        place = _place(gaussians)
        low, high = place.amin(dim=0), place.amax(dim=0)
        frame = torch.stack([low, (high - low).clamp_min(1e-6)])
        spec = AppearanceSpec(FREQUENCIES, TIME_FREQUENCIES if gaussians.is_moving else None)
        generator = torch.Generator().manual_seed(seed)
        fed = FIELD_WIDTH + N_COLOR_LATENTS
        widths = {"field": (spec.width, FIELD_WIDTH), "opacity": (fed, 1), "color": (fed, 3)}
        if gaussians.sh_degree:
            widths["view"] = (fed, 3 * gaussians.sh_rest.shape[1])
        layers = {}
        for name, (inputs, outputs) in widths.items():
            for i, (a, b) in enumerate(((inputs, HIDDEN_WIDTH), (HIDDEN_WIDTH, outputs))):
                # Last layers start small: what they give is small, and so is what they pass back at first.
                weights = torch.randn(b, a + 1, generator=generator) * (2.0 / a) ** 0.5 * (0.2 if i else 1.0)
                weights[:, -1] = 0.0
                layers[f"{name}.{i}"] = weights.to(gaussians.device)
        return cls(spec, frame, layers)

    def dressed(self, gaussians: Gaussians, latents: Tensor) -> Gaussians:
        """The set with opacity and colour made from `latents` (N, 6); differentiable."""
        seen = self._network("field", self._encoded(_place(gaussians)))
        color = torch.cat([seen, latents[:, :N_COLOR_LATENTS]], dim=1)
        view = torch.cat([seen, latents[:, N_COLOR_LATENTS:]], dim=1)
        rest = self._network("view", view) if "view.0" in self.layers else gaussians.sh_rest
        return replace(
            gaussians,
            opacity_logits=self._network("opacity", color)[:, 0],
            sh_dc=self._network("color", color),
            sh_rest=rest.reshape(gaussians.sh_rest.shape),
        )

    def with_layers(self, layers: dict[str, Tensor]) -> AppearanceNetworks:
        """The same networks with other numbers."""
        return replace(self, layers=layers)

    def n_weights(self) -> int:
        """Numbers in all layers."""
        return sum(layer.numel() for layer in self.layers.values())

    def tensors(self) -> dict[str, Tensor]:
        """Everything the file holds, by its name there."""
        return {f"{PREFIX}frame": self.frame} | {PREFIX + name: layer for name, layer in self.layers.items()}

    def _encoded(self, place: Tensor) -> Tensor:
        u = 2.0 * (place - self.frame[0]) / self.frame[1] - 1.0
        columns = []
        for axis, octaves in enumerate(self.spec.octaves()):
            angles = u[:, axis : axis + 1] * (torch.pi * 2.0 ** torch.arange(octaves, device=u.device))
            columns += [u[:, axis : axis + 1], torch.sin(angles), torch.cos(angles)]
        return torch.cat(columns, dim=1)

    def _network(self, name: str, values: Tensor) -> Tensor:
        layer = 0
        while f"{name}.{layer}" in self.layers:
            weights = self.layers[f"{name}.{layer}"]
            values = torch.relu(values) if layer else values
            values = torch.addmm(weights[:, -1], values, weights[:, :-1].T)
            layer += 1
        return values


def fit_networks(gaussians: Gaussians, importance: Tensor, seed: int) -> tuple[AppearanceNetworks, Tensor]:
    """Networks and latents (N, 6) that give back the appearance of a set as well as they can, without rendering.

    Latents start as what they have to tell: colour, and the three main components of view dependence.
    """
    gaussians = gaussians.detach()
    networks = AppearanceNetworks.create(gaussians, seed)
    latents = torch.cat([_standard(gaussians.sh_dc), _standard(_main_components(gaussians, seed))], dim=1)
    leaves = [latents.requires_grad_(), *(layer.requires_grad_() for layer in networks.layers.values())]
    optimizer = torch.optim.Adam(leaves, lr=FIT_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, FIT_RATE, total_steps=FIT_STEPS)
    weights = (importance / importance.mean().clamp_min(1e-30)).sqrt().clamp(0.05, 20.0)
    logits = gaussians.opacity_logits.clamp(-MOST_OPACITY_LOGIT, MOST_OPACITY_LOGIT)
    generator = torch.Generator(gaussians.device).manual_seed(seed)
    n = len(gaussians)
    every = torch.arange(n, device=gaussians.device)
    for _ in range(FIT_STEPS):
        rows = every
        if n > FIT_ROWS:
            rows = torch.randint(n, (FIT_ROWS,), generator=generator, device=gaussians.device)
        truth = gaussians.select(rows)
        found = networks.dressed(truth, latents[rows])
        wrong = (found.sh_dc - truth.sh_dc).square().sum(dim=1) + (found.sh_rest - truth.sh_rest).square().sum((1, 2))
        # A logit is worth what it changes of the opacity, at most a quarter.
        wrong = wrong + (0.25 * (found.opacity_logits - logits[rows])).square()
        (weights[rows] * wrong).mean().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return networks.with_layers({name: layer.detach() for name, layer in networks.layers.items()}), latents.detach()


def _place(gaussians: Gaussians) -> Tensor:
    """(N, 3 or 4) what the field sees."""
    if gaussians.time_centres is None:
        return gaussians.means
    return torch.cat([gaussians.means, gaussians.time_centres[:, None]], dim=1)


def _standard(columns: Tensor) -> Tensor:
    """(N, C) with mean 0 and deviation 1."""
    return (columns - columns.mean(dim=0)) / columns.std(dim=0, correction=0).clamp_min(1e-6)


def _main_components(gaussians: Gaussians, seed: int) -> Tensor:
    """(N, 3) of the view dependence; zeros where there is none."""
    rest = gaussians.sh_rest.reshape(len(gaussians), -1)
    if rest.shape[1] < N_COLOR_LATENTS or len(rest) < N_COLOR_LATENTS:
        return torch.zeros(len(rest), N_COLOR_LATENTS, device=rest.device)
    centred = rest - rest.mean(dim=0)
    _, vectors = torch.linalg.eigh((centred.T @ centred).double())
    return centred @ vectors[:, -N_COLOR_LATENTS:].to(centred.dtype)
