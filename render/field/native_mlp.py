"""The native multilayer perceptron: raw calls, no autograd (cuda/cpu/mlp.h and cuda/gpu/mlp.h have the contracts).

A network is a list of weights (widths[l + 1], widths[l]) as torch.nn.Linear keeps them, without biases, with ReLU
between layers and a linear end. Nothing is kept for the backward pass, which computes the hidden layers again. Wrong
shapes, dtypes, devices or layouts raise ValueError naming the argument.

CUDA: at most 128 numbers a layer; weights are float32 and rounded to 16 bits a call, inputs float32 or float16, sums
and all that comes out float32. Gradients need no loss scale: each block of samples finds its own (cuda/gpu/mlp.h).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.render.backend import call_cpu, call_native, load_cuda, load_native


def mlp_forward(inputs: Tensor, weights: Sequence[Tensor], count: Tensor | None = None) -> Tensor:
    """Outputs (S, n_out) of `inputs` (S, n_in), float32 or on the CPU float64, like the weights.

    On a GPU `count` () int32 may say how many of the inputs are in use.
    """
    if inputs.is_cuda:
        return _cuda_forward(inputs, weights, count)
    network, _ = cpu_network(inputs, weights)
    outputs = inputs.new_empty(inputs.shape[0], weights[-1].shape[0])
    call_cpu("mlp_forward", inputs=inputs, **network, outputs=outputs)
    return outputs


def mlp_backward(
    dL_doutputs: Tensor,
    inputs: Tensor,
    weights: Sequence[Tensor],
    *,
    inputs_gradient: bool = True,
    count: Tensor | None = None,
) -> tuple[Tensor | None, list[Tensor]]:
    """Gradients of the inputs (None unless wanted) and of each of the weights, from those of the outputs; `count` as
    for `mlp_forward`.
    """
    if inputs.is_cuda:
        return _cuda_backward(dL_doutputs, inputs, weights, inputs_gradient, count)
    network, partial = cpu_network(inputs, weights)
    dL_dinputs = torch.empty_like(inputs) if inputs_gradient else None
    dL_dweights = [torch.empty_like(weight) for weight in weights]
    call_cpu(
        "mlp_backward",
        inputs=inputs,
        **network,
        dL_doutputs=dL_doutputs,
        dL_dinputs=dL_dinputs,
        **{f"dL_dweight_{layer}": gradient for layer, gradient in enumerate(dL_dweights)},
        partial=inputs.new_empty(partial),
    )
    return dL_dinputs, dL_dweights


def cpu_network(inputs: Tensor, weights: Sequence[Tensor]) -> tuple[dict[str, Any], tuple[int, int]]:
    """Weights and scratch memory as the CPU's passes name them, and the shape of the backward pass's partial sums."""
    network: dict[str, Any] = {f"weight_{layer}": weight for layer, weight in enumerate(weights)}
    network["n_layers"] = len(weights)
    packed, block, partial = call_native(load_native().cpu.mlp_sizes, inputs=inputs, **network)
    network["packed"] = inputs.new_empty(packed)
    network["scratch"] = inputs.new_empty(torch.get_num_threads(), block)
    return network, partial


def _cuda_forward(inputs: Tensor, weights: Sequence[Tensor], count: Tensor | None) -> Tensor:
    native, calls = load_cuda()
    network = _cuda_arguments(inputs, weights)
    outputs = torch.empty(inputs.shape[0], weights[-1].shape[0], device=inputs.device)
    count_address = calls.Checked(inputs.device)("count", count, (), torch.int32)
    queue = calls.current_queue(inputs.device)
    calls.run_pass(native.mlp_forward, queue, *network, outputs.data_ptr(), count_address)
    return outputs


def _cuda_backward(
    dL_doutputs: Tensor, inputs: Tensor, weights: Sequence[Tensor], inputs_gradient: bool, count: Tensor | None
) -> tuple[Tensor | None, list[Tensor]]:
    native, calls = load_cuda()
    network = _cuda_arguments(inputs, weights)
    queue, n_samples = calls.current_queue(inputs.device), inputs.shape[0]
    checked = calls.Checked(inputs.device)
    dL_dinputs = torch.empty(inputs.shape, device=inputs.device) if inputs_gradient else None
    dL_dweights = [torch.empty_like(weight) for weight in weights]
    n_blocks = native.mlp_gradient_blocks(queue, n_samples)
    partial = torch.empty(n_blocks, sum(weight.numel() for weight in weights), device=inputs.device)
    calls.run_pass(
        native.mlp_backward,
        queue,
        *network,
        checked("dL_doutputs", dL_doutputs, (n_samples, weights[-1].shape[0]), alignment=16),
        calls.address_of(dL_dinputs),
        [gradient.data_ptr() for gradient in dL_dweights],
        partial.data_ptr(),
        n_blocks,
        checked("count", count, (), torch.int32),
    )
    return dL_dinputs, dL_dweights


def _cuda_arguments(inputs: Tensor, weights: Sequence[Tensor]) -> tuple[list[int], int, int, bool, list[int]]:
    """Widths, number of samples, address and kind of the inputs, addresses of the weights."""
    native, calls = load_cuda()
    if not 1 <= len(weights) <= native.MAX_MLP_LAYERS:
        raise InputError(f"weights must be 1 to {native.MAX_MLP_LAYERS} matrices, got {len(weights)}.")
    widths = [inputs.shape[-1], *(weight.shape[0] for weight in weights)]
    if max(widths) > native.MAX_MLP_WIDTH or min(widths) < 1:
        raise InputError(f"layers must have 1 to {native.MAX_MLP_WIDTH} numbers on CUDA, got {widths}.")
    checked = calls.Checked(inputs.device)
    half_inputs = inputs.dtype == torch.float16
    dtype = torch.float16 if half_inputs else torch.float32
    return (
        widths,
        inputs.shape[0],
        checked("inputs", inputs, (inputs.shape[0], widths[0]), dtype, alignment=16),
        half_inputs,
        [
            checked(f"weight_{layer}", weight, (widths[layer + 1], widths[layer]))
            for layer, weight in enumerate(weights)
        ],
    )
