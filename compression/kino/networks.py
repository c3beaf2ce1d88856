"""Appearance made by small networks when a file is read; docs/format.md gives the formulas.

A Gaussian then stores six latents instead of opacity and colour. One network turns where and when it is into a few
numbers; three more turn those and the latents into opacity, colour, and view-dependent colour (OMG4, 2025). This is
the reader's side, in numpy; `kinosplat.compression.networks` is the side that learns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PREFIX = "appearance."
LATENTS = "latents"
N_COLOR_LATENTS = 3
"""The first latents feed opacity and colour, the others view dependence."""
N_LATENTS = 6
MADE_HERE = ("opacity_logits", "sh_dc", "sh_rest")
"""Attributes that a file with networks does not store."""
HEADS = {"opacity": 1, "color": 3, "view": None}
"""Network to the numbers it gives; `view` gives three a coefficient."""
MOST_FREQUENCIES = 16
BLOCK = 1 << 15
"""Gaussians at a time: activations then stay in the cache."""


@dataclass(frozen=True)
class AppearanceSpec:
    """What the header says about the networks; their layers are tensors."""

    frequencies: int
    """Octaves of sine and cosine of each coordinate of the position."""
    time_frequencies: int | None = None
    """Octaves of the time centre; None when time is no input."""

    @property
    def n_inputs(self) -> int:
        """Coordinates: three, or four with time."""
        return 3 if self.time_frequencies is None else 4

    @property
    def width(self) -> int:
        """Numbers after encoding."""
        return 3 * (1 + 2 * self.frequencies) + (0 if self.time_frequencies is None else 1 + 2 * self.time_frequencies)

    def octaves(self) -> tuple[int, ...]:
        """Of each coordinate."""
        return (self.frequencies,) * 3 + (() if self.time_frequencies is None else (self.time_frequencies,))

    def to_json(self) -> dict[str, Any]:
        """The `appearance` object of the header."""
        document: dict[str, Any] = {"frequencies": self.frequencies}
        return document if self.time_frequencies is None else document | {"time_frequencies": self.time_frequencies}


def check_layers(spec: AppearanceSpec, shapes: Mapping[str, Sequence[int]]) -> int:
    """Refuse with ValueError networks whose tensors are missing or do not fit; gives the number of coefficients."""
    if tuple(shapes.get(f"{PREFIX}frame", ())) != (2, spec.n_inputs):
        raise ValueError("the networks need a tensor `appearance.frame` of two rows, one column a coordinate")
    field = _width_after(shapes, "field", spec.width)
    n_coefficients = 0
    for head, expected in HEADS.items():
        n_latents = N_LATENTS - N_COLOR_LATENTS if head == "view" else N_COLOR_LATENTS
        if head == "view" and f"{PREFIX}view.0" not in shapes:
            continue
        width = _width_after(shapes, head, field + n_latents)
        if expected is not None and width != expected:
            raise ValueError(f"network `{head}` must give {expected} numbers")
        n_coefficients = width // 3 if head == "view" else n_coefficients
        if head == "view" and width not in (9, 24, 45):
            raise ValueError("network `view` must give 9, 24 or 45 numbers")
    return n_coefficients


def _width_after(shapes: Mapping[str, Sequence[int]], name: str, width: int) -> int:
    layer = 0
    while f"{PREFIX}{name}.{layer}" in shapes:
        shape = shapes[f"{PREFIX}{name}.{layer}"]
        if len(shape) != 2 or shape[1] != width + 1 or not 0 < shape[0] <= 4096:
            raise ValueError(f"layer {layer} of network `{name}` does not fit to what it is fed")
        width, layer = shape[0], layer + 1
    if layer == 0:
        raise ValueError(f"network `{name}` is missing")
    return width


def appearance(
    spec: AppearanceSpec,
    tensors: Mapping[str, NDArray[np.float32]],
    means: NDArray[np.float32],
    time_centres: NDArray[np.float32] | None,
    latents: NDArray[np.float32],
) -> dict[str, NDArray[np.float32]]:
    """Opacity logits (n, 1), `sh_dc` (n, 3) and `sh_rest` (n, 3 K) of `means` (n, 3), `time_centres` (n, 1) and
    `latents` (n, 6).
    """
    place = (
        means if spec.time_frequencies is None else np.concatenate([means, _times(time_centres, len(means))], axis=1)
    )
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in MADE_HERE}
    for start in range(0, max(len(means), 1), BLOCK):
        here = slice(start, start + BLOCK)
        seen = _network(tensors, "field", encode(spec, tensors[f"{PREFIX}frame"], place[here]))
        color = np.concatenate([seen, latents[here, :N_COLOR_LATENTS]], axis=1)
        view = np.concatenate([seen, latents[here, N_COLOR_LATENTS:]], axis=1)
        parts["opacity_logits"].append(_network(tensors, "opacity", color))
        parts["sh_dc"].append(_network(tensors, "color", color))
        has_view = f"{PREFIX}view.0" in tensors
        parts["sh_rest"].append(_network(tensors, "view", view) if has_view else np.zeros((len(view), 0), np.float32))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def encode(spec: AppearanceSpec, frame: NDArray[np.float32], place: NDArray[np.float32]) -> NDArray[np.float32]:
    """Coordinates (n, 3 or 4) as (n, width): each coordinate u in [-1, 1], then sin(2^k pi u), then cos(2^k pi u)."""
    u = np.float32(2.0) * (place - frame[0]) / frame[1] - np.float32(1.0)
    columns = []
    for axis, octaves in enumerate(spec.octaves()):
        angles = u[:, axis : axis + 1] * (np.float32(np.pi) * np.float32(2.0) ** np.arange(octaves, dtype=np.float32))
        columns += [u[:, axis : axis + 1], np.sin(angles), np.cos(angles)]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _network(tensors: Mapping[str, NDArray[np.float32]], name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """All layers of a network, ReLU between them; the last column of a layer is its bias."""
    layer = 0
    while (weights := tensors.get(f"{PREFIX}{name}.{layer}")) is not None:
        values = np.maximum(values, 0) if layer else values
        values = values @ weights[:, :-1].T + weights[:, -1]
        layer += 1
    return values


def _times(time_centres: NDArray[np.float32] | None, n: int) -> NDArray[np.float32]:
    return np.zeros((n, 1), np.float32) if time_centres is None else time_centres.reshape(n, 1)
