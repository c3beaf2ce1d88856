"""The tensor cores' multilayer perceptron computes what torch does in float32, to the precision of 16-bit operands."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.render.field.native_mlp import mlp_backward, mlp_forward

pytestmark = pytest.mark.gpu

NETWORKS = [
    (32, 64, 16),
    (32, 64, 64, 3),
    (3, 5),
    (17, 128, 31, 2),  # odd widths, the widest layer
    (16, 16, 16),
    (32, 32, 32, 32, 32, 32, 7),  # more layers than a launch of the backward pass takes
    (128, 128, 128, 128),  # half the samples a block
]
N_SAMPLES = [0, 1, 1000, 70_001]  # none, less than a tile, some blocks, several rounds of every block


def network(widths: tuple[int, ...], device: torch.device) -> list[Tensor]:
    """He et al. 2015: activations keep their size from layer to layer."""
    return [torch.randn(n_out, n_in, device=device) * (2 / n_in) ** 0.5 for n_in, n_out in pairwise(widths)]


def torch_mlp(inputs: Tensor, weights: list[Tensor]) -> Tensor:
    for weight in weights[:-1]:
        inputs = torch.relu(inputs @ weight.T)
    return inputs @ weights[-1].T


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm().clamp_min(1e-300))


@pytest.mark.parametrize("n_samples", N_SAMPLES)
@pytest.mark.parametrize("widths", NETWORKS)
@pytest.mark.parametrize("scale", [1.0, 1e-9], ids=["large", "tiny"])  # of the gradients: 1e-9 is zero in 16 bits
def test_values_and_gradients_are_those_of_torch(
    cuda_device: torch.device, widths: tuple[int, ...], n_samples: int, scale: float
) -> None:
    torch.manual_seed(0)
    weights, inputs = network(widths, cuda_device), torch.randn(n_samples, widths[0], device=cuda_device)
    leaves = [tensor.double().requires_grad_() for tensor in (inputs, *weights)]
    expected = torch_mlp(leaves[0], leaves[1:])
    dL_doutputs = torch.randn(n_samples, widths[-1], device=cuda_device) * scale
    gradients = torch.autograd.grad(expected, leaves, dL_doutputs.double())

    outputs = mlp_forward(inputs, weights)
    dL_dinputs, dL_dweights = mlp_backward(dL_doutputs, inputs, weights)

    assert outputs.dtype == torch.float32
    assert relative_error(outputs, expected.detach()) < 2e-3  # operands have 11 bits; the emulated kernel measures 5e-4
    # A unit that is on in one precision and off in the other changes a sample's gradient: 0.005 with one hidden layer,
    # 0.05 with five, in the emulated kernel.
    assert dL_dinputs is not None
    assert relative_error(dL_dinputs, gradients[0]) < 0.1
    for got, right in zip(dL_dweights, gradients[1:], strict=True):
        assert relative_error(got, right) < 0.1


def test_gradients_of_samples_that_matter_little_do_not_spoil_those_that_matter(cuda_device: torch.device) -> None:
    """Blocks have scales of their own: gradients may differ by 1e12 between them."""
    torch.manual_seed(1)
    weights, inputs = network((32, 64, 16), cuda_device), torch.randn(4096, 32, device=cuda_device)
    dL_doutputs = torch.randn(4096, 16, device=cuda_device)
    dL_doutputs[2048:] *= 1e-12
    leaf = inputs.double().requires_grad_()
    (expected,) = torch.autograd.grad(torch_mlp(leaf, [w.double() for w in weights]), leaf, dL_doutputs.double())
    dL_dinputs, _ = mlp_backward(dL_doutputs, inputs, weights)
    assert dL_dinputs is not None
    assert relative_error(dL_dinputs[:2048], expected[:2048]) < 0.03
    assert relative_error(dL_dinputs[2048:], expected[2048:]) < 0.03


def test_half_inputs_give_what_their_float_copies_give(cuda_device: torch.device) -> None:
    torch.manual_seed(2)
    weights = network((32, 64, 64, 3), cuda_device)
    half = torch.randn(5000, 32, device=cuda_device).half()
    dL_doutputs = torch.randn(5000, 3, device=cuda_device)
    assert torch.equal(mlp_forward(half, weights), mlp_forward(half.float(), weights))
    for got, same in zip(
        mlp_backward(dL_doutputs, half, weights)[1], mlp_backward(dL_doutputs, half.float(), weights)[1], strict=True
    ):
        assert torch.equal(got, same)


def test_two_calls_give_the_same_bits(cuda_device: torch.device) -> None:
    torch.manual_seed(3)
    weights, inputs = network((32, 64, 64, 3), cuda_device), torch.randn(100_000, 32, device=cuda_device)
    dL_doutputs = torch.randn(100_000, 3, device=cuda_device)
    first, second = (mlp_backward(dL_doutputs, inputs, weights)[1] for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)


def test_a_gradient_that_is_no_number_is_not_hidden(cuda_device: torch.device) -> None:
    weights, inputs = network((32, 64, 16), cuda_device), torch.randn(64, 32, device=cuda_device)
    dL_doutputs = torch.ones(64, 16, device=cuda_device)
    dL_doutputs[3, 5] = float("nan")
    dL_dinputs, _ = mlp_backward(dL_doutputs, inputs, weights)
    assert dL_dinputs is not None
    assert dL_dinputs[3].isnan().any()
    assert not dL_dinputs[40:].isnan().any()


def test_the_gradient_of_the_inputs_can_be_left_out(cuda_device: torch.device) -> None:
    weights, inputs = network((32, 64, 16), cuda_device), torch.randn(500, 32, device=cuda_device)
    nothing, dL_dweights = mlp_backward(torch.ones(500, 16, device=cuda_device), inputs, weights, inputs_gradient=False)
    assert nothing is None
    assert all(gradient.isfinite().all() for gradient in dL_dweights)


def test_what_does_not_fit_is_named(cuda_device: torch.device) -> None:
    inputs, weight = torch.zeros(4, 3, device=cuda_device), torch.zeros(8, 3, device=cuda_device)
    with pytest.raises(InputError, match=r"^layers must have 1 to 128 numbers on CUDA, got \[3, 129\]\.$"):
        mlp_forward(inputs, [torch.zeros(129, 3, device=cuda_device)])
    with pytest.raises(InputError, match=r"^weight_0 must be on cuda:\d+, got cpu; move it there first\.$"):
        mlp_forward(inputs, [weight.cpu()])
    with pytest.raises(InputError, match=r"^dL_doutputs must have shape \(4, 8\), got \(4, 7\)\.$"):
        mlp_backward(torch.zeros(4, 7, device=cuda_device), inputs, [weight])
