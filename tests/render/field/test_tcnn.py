"""tiny-cuda-nn behind the same interface, against a stand-in that computes what its documentation says."""

from __future__ import annotations

import math
import sys
import types
from typing import Any

import pytest
import torch

from kinosplat.errors import BackendError
from kinosplat.render.field import reference, tcnn
from kinosplat.render.field.encoding import encode, n_table_entries
from kinosplat.render.field.layout import GridLayout
from kinosplat.render.field.mlp import mlp

LAYOUT = GridLayout(n_levels=3, n_features=2, base_resolution=4, finest_resolution=16, log2_table_size=9)


class Encoding(torch.nn.Module):
    """Of the interface only: so many parameters as tiny-cuda-nn has, and features linear in them."""

    def __init__(self, n_input_dims: int, encoding_config: dict[str, Any]) -> None:
        super().__init__()
        assert n_input_dims == 3
        assert encoding_config["otype"] == "HashGrid"
        self.config = encoding_config
        n = 0
        for level in range(encoding_config["n_levels"]):
            scale = encoding_config["base_resolution"] * encoding_config["per_level_scale"] ** level - 1
            side = math.ceil(scale) + 1
            n += min(-(-(side**3) // 8) * 8, 2 ** encoding_config["log2_hashmap_size"])
        self.params = torch.nn.Parameter(torch.zeros(n * encoding_config["n_features_per_level"]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        width = self.config["n_levels"] * self.config["n_features_per_level"]
        return (x.sum(dim=1, keepdim=True) * self.params[:width]).half()


class Network(torch.nn.Module):
    """A network without biases whose inputs and outputs are padded to 16, parameters layer after layer."""

    def __init__(self, n_input_dims: int, n_output_dims: int, network_config: dict[str, Any]) -> None:
        super().__init__()
        n_hidden = network_config["n_neurons"]
        self.n_outputs = n_output_dims
        self.widths = [
            -(-n_input_dims // 16) * 16,
            *[n_hidden] * network_config["n_hidden_layers"],
            -(-n_output_dims // 16) * 16,
        ]
        n = sum(a * b for a, b in zip(self.widths[:-1], self.widths[1:], strict=True))
        self.params = torch.nn.Parameter(torch.zeros(n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.pad(x, (0, self.widths[0] - x.shape[1]), value=1.0)
        first = 0
        for i, (n_in, n_out) in enumerate(zip(self.widths[:-1], self.widths[1:], strict=True)):
            weight = self.params[first : first + n_in * n_out].view(n_out, n_in)
            first += n_in * n_out
            x = (torch.relu(x) if i > 0 else x) @ weight.T
        return x[:, : self.n_outputs].half()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("tinycudann")
    module.Encoding = Encoding  # type: ignore[attr-defined]
    module.Network = Network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tinycudann", module)
    tcnn.tcnn_grid.cache_clear()
    tcnn.tcnn_network.cache_clear()


@pytest.mark.usefixtures("stand_in")
class TestWithIt:
    def test_a_network_is_that_of_the_reference_whatever_it_pads(self) -> None:
        draws = torch.Generator().manual_seed(0)
        weights = [torch.randn(*size, generator=draws).requires_grad_() for size in ((16, 20), (16, 16), (3, 16))]
        inputs = torch.randn(50, 20, generator=draws)
        outputs = mlp(inputs, weights, "tcnn")
        expected = reference.mlp(inputs, weights)
        assert outputs.dtype == torch.float32
        # Measured 0.03 of values up to 113: the outputs are rounded to 16 bits.
        assert torch.allclose(outputs, expected, rtol=2e-3, atol=1e-2)
        outputs.sum().backward()
        mine = [weight.grad.clone() for weight in weights if weight.grad is not None]
        theirs = torch.autograd.grad(expected.sum(), weights)
        assert len(mine) == 3
        assert all(torch.allclose(a, b, rtol=1e-2, atol=1e-2) for a, b in zip(mine, theirs, strict=True))

    def test_the_table_is_as_long_as_it_asks_for_and_gets_gradients(self) -> None:
        # 4, 8 and 16 vertices a side: 64, then 512 twice, which is all that fits.
        assert n_table_entries(LAYOUT, "tcnn") == 64 + 512 + 512
        table = torch.ones(n_table_entries(LAYOUT, "tcnn"), 2, requires_grad=True)
        features = encode(torch.full((5, 3), 0.25), table, LAYOUT, "tcnn")
        assert features.shape == (5, LAYOUT.width)
        assert features.dtype == torch.float32
        features.sum().backward()
        assert table.grad is not None
        assert table.grad.shape == table.shape
        assert table.grad.abs().sum() > 0

    def test_widths_that_it_has_no_network_for_are_refused(self) -> None:
        with pytest.raises(BackendError) as error:
            mlp(torch.zeros(1, 8), [torch.zeros(48, 8), torch.zeros(3, 48)], "tcnn")
        assert str(error.value) == (
            "tiny-cuda-nn has no network with hidden widths 48; choose one of 16, 32, 64, 128 for all, or use "
            "--field-backend native."
        )


def test_without_it_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    with pytest.raises(BackendError) as error:
        tcnn.load_tcnn()
    assert str(error.value) == (
        "--field-backend tcnn needs tiny-cuda-nn; run 'pip install "
        "git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch' with a CUDA compiler installed, or "
        "use --field-backend native."
    )
