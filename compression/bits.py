"""Chooses how coarsely each parameter is stored, by measured loss.

Each parameter is rounded on its own with several numbers of bits, a dozen training views are rendered, and their
squared difference to the unrounded renders is taken down beside the bytes that the planes will take. Rounding errors
of different parameters are independent, so their squared differences add up; the choice that loses no more than a
budget in the fewest bytes is then found by one Lagrange multiplier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.compression.appearance import appearance_options, palette_bytes
from kinosplat.compression.entropy import morton_bytes, plane_bytes
from kinosplat.compression.grid import Grid, quats_of, ratios_of
from kinosplat.compression.kino.networks import LATENTS
from kinosplat.compression.quantised import TABLE_BITS, Plan
from kinosplat.compression.stored import StoredSet
from kinosplat.compression.surroundings import Surroundings, ViewBatch
from kinosplat.compression.svq import SubVectors
from kinosplat.render import Gaussians, rasterize
from kinosplat.render.exposure import shown_by

BITS: dict[str, range] = {
    "means": range(9, 19),
    "quats": range(4, 11),
    "log_scales": range(4, 11),
    "opacity_logits": range(3, 10),
    "sh_dc": range(4, 11),
    "sh_rest": range(2, 8),
    "displacements": range(4, 13),
    "time_centres": range(5, 14),
    "log_durations": range(3, 10),
    LATENTS: range(3, 10),
}
"""Numbers of bits that are tried."""
PROBE_VIEWS = 12


@dataclass(frozen=True)
class Option:
    """One way to store one parameter."""

    mse: float
    """Mean squared difference of the probe's pictures to the unrounded ones."""
    n_bytes: float
    """Estimated bytes in the file."""
    bits: int = 0
    """Of a grid or a rotation."""
    palette: SubVectors | None = None
    """Given for palettes."""


class Probe:
    """Pictures of the unrounded set, to compare rounded ones with."""

    def __init__(self, gaussians: Gaussians, surroundings: Surroundings, n_views: int = PROBE_VIEWS) -> None:
        self._surroundings = surroundings
        self._views: list[ViewBatch] = list(surroundings.views(n_views))
        self._pictures = [self._render(gaussians, view) for view in self._views]
        errors = [_masked_mse(picture, view.images, view.masks) for picture, view in self._pairs()]
        self.training_mse = float(torch.stack(errors).mean())
        """Of the unrounded set against the photos."""

    def mse(self, gaussians: Gaussians) -> float:
        """Mean squared difference to the unrounded pictures."""
        errors = [_masked_mse(self._render(gaussians, view), picture, view.masks) for picture, view in self._pairs()]
        return float(torch.stack(errors).mean())

    def _pairs(self) -> list[tuple[Tensor, ViewBatch]]:
        return list(zip(self._pictures, self._views, strict=True))

    @torch.no_grad()
    def _render(self, gaussians: Gaussians, view: ViewBatch) -> Tensor:
        s = self._surroundings
        output = rasterize(gaussians, view.cameras, background=s.background, settings=s.settings)
        return shown_by(view.sensor, output.rgb).clamp(0.0, 1.0)


def _masked_mse(a: Tensor, b: Tensor, masks: Tensor | None) -> Tensor:
    """() mean squared difference over the pixels that count; stays on the device."""
    squared = (a - b) ** 2
    if masks is None:
        return squared.mean()
    return (squared * masks[..., None]).sum() / (3 * masks.sum()).clamp_min(1.0)


def measure_options(stored: StoredSet, probe: Probe, importance: Tensor, seed: int) -> dict[str, list[Option]]:
    """What each parameter of a canonical set (N) loses and costs; `importance` (N,) weighs the palettes."""
    rows = stored.rows
    options = {
        name: [_measure(stored, probe, name, tensor, bits) for bits in BITS[name]] for name, tensor in rows.items()
    }
    if "sh_rest" in rows:
        shape = rows["sh_rest"].shape
        options["sh_rest"] += [
            Option(
                probe.mse(stored.drawn({"sh_rest": palette.values().reshape(shape)})),
                palette_bytes(palette, TABLE_BITS),
                palette=palette,
            )
            for palette in appearance_options(stored.gaussians, importance, seed)
        ]
    return options


def _measure(stored: StoredSet, probe: Probe, name: str, rows: Tensor, bits: int) -> Option:
    flat = _flat(name, rows)
    grid = _grid(name, flat, bits)
    n_bytes = morton_bytes(len(rows), bits) if name == "means" else plane_bytes(grid.integers(flat), bits)
    rounded = grid.rounded(flat)
    values = quats_of(rounded) if name == "quats" else rounded.reshape(rows.shape)
    return Option(probe.mse(stored.drawn({name: values})), n_bytes, bits)


def _flat(name: str, rows: Tensor) -> Tensor:
    """(N, C) the numbers that are rounded."""
    return ratios_of(rows) if name == "quats" else rows.reshape(len(rows), -1)


def _grid(name: str, flat: Tensor, bits: int) -> Grid:
    return Grid.of_rotations(bits, flat.device) if name == "quats" else Grid.over(flat, bits)


def choose(options: Mapping[str, Sequence[Option]], budget: float) -> dict[str, Option]:
    """The cheapest option of each parameter such that their squared differences add up to at most `budget`.

    When even the best of all options lose more, those are taken.
    """
    low, high = -30.0, 60.0  # logarithms of bytes a unit of squared error, wider than any scene
    best = _at(options, high)
    for _ in range(60):
        middle = 0.5 * (low + high)
        chosen = _at(options, middle)
        if sum(option.mse for option in chosen.values()) <= budget:
            best, high = chosen, middle
        else:
            low = middle
    return best


def _at(options: Mapping[str, Sequence[Option]], log_weight: float) -> dict[str, Option]:
    weight = 2.0**log_weight
    return {name: min(given, key=lambda o: o.n_bytes + weight * o.mse) for name, given in options.items()}


def budget_for(training_mse: float, loss: float) -> float:
    """Squared difference that lowers the PSNR of pictures with `training_mse` by `loss` dB, errors being
    independent.
    """
    return training_mse * (10.0 ** (loss / 10.0) - 1.0)


def make_plan(stored: StoredSet, chosen: Mapping[str, Option]) -> Plan:
    """The plan that the chosen options describe."""
    rows = stored.rows
    palettes = {name: option.palette for name, option in chosen.items() if option.palette is not None}
    return Plan(
        {
            name: _grid(name, _flat(name, rows[name]), option.bits)
            for name, option in chosen.items()
            if option.palette is None
        },
        palettes,
    )
