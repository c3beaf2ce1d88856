"""tiny-cuda-nn (Mueller 2021) in place of the native encoding and networks, where it is installed and asked for.

Its modules own their parameters as one flat vector; here they are called with vectors laid out from ours, so that
checkpoints, optimiser and hardening see the same tables and weights for every backend. Its hash grid has N vertices a
side where ours has N + 1, and rounds levels up to multiples of 8 entries, so a table is only read by the backend that
learned it. It computes in half precision; what it returns is made float32 here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from kinosplat.errors import BackendError
from kinosplat.render.field.layout import GridLayout

MISSING_TCNN = (
    "--field-backend tcnn needs tiny-cuda-nn; run 'pip install "
    "git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch' with a CUDA compiler installed, or use "
    "--field-backend native."
)
PADDING = 16
"""Its networks round the numbers of inputs and outputs up to multiples of this."""
FUSED_WIDTHS = (16, 32, 64, 128)
"""Hidden widths that its fully fused networks exist for."""


def load_tcnn() -> Any:
    """The module tinycudann; BackendError with the remedy where it is missing or finds no device."""
    try:
        return import_module("tinycudann")
    except (ImportError, OSError) as error:
        raise BackendError(MISSING_TCNN) from error


class TcnnGrid:
    """Its hash grid."""

    def __init__(self, layout: GridLayout) -> None:
        growth = 1.0
        if layout.n_levels > 1:
            growth = (layout.finest_resolution / layout.base_resolution) ** (1 / (layout.n_levels - 1))
        self._module = load_tcnn().Encoding(
            n_input_dims=3,
            encoding_config={
                "otype": "HashGrid",
                "n_levels": layout.n_levels,
                "n_features_per_level": layout.n_features,
                "log2_hashmap_size": layout.log2_table_size,
                "base_resolution": layout.base_resolution,
                "per_level_scale": growth,
            },
        )
        self._n_features = layout.n_features

    @property
    def n_entries(self) -> int:
        """Rows of the table (n_entries, F) that it reads."""
        return int(self._module.params.numel()) // self._n_features

    def encode(self, positions: Tensor, table: Tensor) -> Tensor:
        """(S, L * F) features."""
        return _call(self._module, table.reshape(-1), positions).float()


class TcnnNetwork:
    """Its fully fused network for layers of `widths` (inputs, hidden, ..., outputs)."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        hidden = set(widths[1:-1])
        if len(hidden) != 1 or not hidden <= set(FUSED_WIDTHS):
            raise BackendError(
                f"tiny-cuda-nn has no network with hidden widths {', '.join(map(str, widths[1:-1]))}; choose one of "
                f"{', '.join(map(str, FUSED_WIDTHS))} for all, or use --field-backend native."
            )
        self._widths = widths
        self._module = load_tcnn().Network(
            n_input_dims=widths[0],
            n_output_dims=widths[-1],
            network_config={
                "otype": "FullyFusedMLP",
                "activation": "ReLU",
                "output_activation": "None",
                "n_neurons": widths[1],
                "n_hidden_layers": len(widths) - 2,
            },
        )

    def __call__(self, inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """(S, n_outputs) of (S, n_inputs)."""
        padded = [
            padded_to_multiple(weight, first=i == 0, last=i == len(weights) - 1) for i, weight in enumerate(weights)
        ]
        return _call(self._module, torch.cat([weight.reshape(-1) for weight in padded]), inputs).float()


def padded_to_multiple(weight: Tensor, *, first: bool, last: bool) -> Tensor:
    """A layer's weight with rows (at the end) and columns (at the beginning) of zeros up to multiples of 16."""
    rows, columns = (-weight.shape[axis] % PADDING for axis in (0, 1))
    return torch.nn.functional.pad(weight, (0, columns if first else 0, 0, rows if last else 0))


def _call(module: Any, parameters: Tensor, inputs: Tensor) -> Tensor:
    """Run a module of tiny-cuda-nn with other parameters than its own; gradients flow to both arguments."""
    return torch.func.functional_call(module, {"params": parameters}, (inputs,))


@lru_cache(maxsize=8)
def tcnn_grid(layout: GridLayout) -> TcnnGrid:
    """The grid of a layout, made once."""
    return TcnnGrid(layout)


@lru_cache(maxsize=8)
def tcnn_network(widths: tuple[int, ...]) -> TcnnNetwork:
    """The network of these widths, made once."""
    return TcnnNetwork(widths)
