"""The native multilayer perceptron computes what torch does, value and gradient."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from kinosplat.render.field.native_mlp import mlp_backward, mlp_forward

NETWORKS = [(3, 5), (32, 64, 16), (32, 64, 64, 3), (17, 128, 31, 2)]
N_SAMPLES = [0, 1, 97, 1000]  # none, less than a tile, a block and one more, several chunks


def network(widths: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    return [torch.randn(n_out, n_in, dtype=dtype) / n_in**0.5 for n_in, n_out in pairwise(widths)]


def torch_mlp(inputs: Tensor, weights: list[Tensor]) -> Tensor:
    for weight in weights[:-1]:
        inputs = torch.relu(inputs @ weight.T)
    return inputs @ weights[-1].T


class NativeMlp(torch.autograd.Function):
    """What a caller wraps around the raw calls."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, inputs: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, *weights)
        return mlp_forward(inputs, weights)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, dL_doutputs: Tensor) -> tuple[Tensor | None, ...]:
        inputs, *weights = ctx.saved_tensors
        dL_dinputs, dL_dweights = mlp_backward(dL_doutputs.contiguous(), inputs, weights)
        return dL_dinputs, *dL_dweights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_samples", N_SAMPLES)
@pytest.mark.parametrize("widths", NETWORKS)
def test_values_and_gradients_are_those_of_torch(widths: tuple[int, ...], n_samples: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weights = network(widths, dtype)
    inputs = torch.randn(n_samples, widths[0], dtype=dtype)
    leaves = [tensor.clone().requires_grad_() for tensor in (inputs, *weights)]
    expected = torch_mlp(leaves[0], leaves[1:])
    dL_doutputs = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, leaves, dL_doutputs)

    outputs = mlp_forward(inputs, weights)
    dL_dinputs, dL_dweights = mlp_backward(dL_doutputs, inputs, weights)

    tolerance = 1e-14 if dtype == torch.float64 else 1e-5  # measured 1e-15 and 5e-7
    torch.testing.assert_close(outputs, expected.detach(), rtol=0, atol=tolerance)
    torch.testing.assert_close(dL_dinputs, gradients[0], rtol=0, atol=tolerance)
    for gradient, right in zip(dL_dweights, gradients[1:], strict=True):
        # Sums over up to a thousand samples: measured 1.4e-13 and 4e-5.
        torch.testing.assert_close(gradient, right, rtol=0, atol=50 * tolerance)


def test_gradients_are_the_derivatives_of_the_values() -> None:
    torch.manual_seed(1)
    weights = network((5, 16, 8, 3), torch.float64)
    inputs = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(NativeMlp.apply, (inputs, *(weight.requires_grad_() for weight in weights)))


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(2)
    weights, inputs = network((32, 64, 64, 3), torch.float32), torch.randn(20_000, 32)
    dL_doutputs = torch.randn(20_000, 3)
    results = []
    n_before = torch.get_num_threads()
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            dL_dinputs, dL_dweights = mlp_backward(dL_doutputs, inputs, weights)
            results.append([mlp_forward(inputs, weights), dL_dinputs, *dL_dweights])
    finally:
        torch.set_num_threads(n_before)
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


def test_the_gradient_of_the_inputs_can_be_left_out() -> None:
    torch.manual_seed(3)
    weights, inputs, dL_doutputs = network((32, 64, 16), torch.float32), torch.randn(500, 32), torch.randn(500, 16)
    nothing, dL_dweights = mlp_backward(dL_doutputs, inputs, weights, inputs_gradient=False)
    assert nothing is None
    for gradient, same in zip(dL_dweights, mlp_backward(dL_doutputs, inputs, weights)[1], strict=True):
        assert torch.equal(gradient, same)


@pytest.mark.parametrize(
    ("inputs", "weights", "sentence"),
    [
        (torch.zeros(4, 3), [torch.zeros(8, 3), torch.zeros(2, 7)], "weight_1 must have shape (2, 8), got (2, 7)."),
        (torch.zeros(4, 3), [torch.zeros(8, 3).double()], "weight_0 must be float32, got float64; convert it first."),
        (torch.zeros(4, 6)[:, ::2], [torch.zeros(8, 3)], "inputs must be contiguous; call .contiguous() on it first."),
        (torch.zeros(4, 3), [torch.zeros(3, 3)] * 9, "weights must be 1 to 8 matrices, got 9."),
        (torch.zeros(4, 3), [], "weights must be 1 to 8 matrices, got 0."),
    ],
)
def test_what_does_not_fit_is_named(inputs: Tensor, weights: list[Tensor], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        mlp_forward(inputs, weights)
