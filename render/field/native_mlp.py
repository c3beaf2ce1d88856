"""The native multilayer perceptron: raw calls, no autograd (cuda/cpu/mlp.h and cuda/gpu/mlp.h have the contracts).

A network is a list of weights (widths[l + 1], widths[l]) as torch.nn.Linear keeps them, without biases, with ReLU
between layers and a linear end. Nothing is kept for the backward pass, which computes the hidden layers again. Wrong
shapes, dtypes, devices or layouts raise ValueError naming the argument.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kinosplat.render.backend import call_native, load_native


def mlp_forward(inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Outputs (S, n_out) of `inputs` (S, n_in); both float32 or float64, like the weights."""
    network = _cpu_arguments(inputs, weights)
    packed, block, _ = call_native(load_native().cpu.mlp_sizes, **network)
    outputs = inputs.new_empty(inputs.shape[0], weights[-1].shape[0])
    n_threads = torch.get_num_threads()
    call_native(
        load_native().cpu.mlp_forward,
        **network,
        packed=inputs.new_empty(packed),
        scratch=inputs.new_empty(n_threads, block),
        outputs=outputs,
        n_threads=n_threads,
    )
    return outputs


def mlp_backward(
    dL_doutputs: Tensor, inputs: Tensor, weights: Sequence[Tensor], *, inputs_gradient: bool = True
) -> tuple[Tensor | None, list[Tensor]]:
    """Gradients of the inputs (None unless wanted) and of each of the weights, from those of the outputs."""
    network = _cpu_arguments(inputs, weights)
    packed, block, partial = call_native(load_native().cpu.mlp_sizes, **network)
    dL_dinputs = torch.empty_like(inputs) if inputs_gradient else None
    dL_dweights = [torch.empty_like(weight) for weight in weights]
    n_threads = torch.get_num_threads()
    call_native(
        load_native().cpu.mlp_backward,
        **network,
        packed=inputs.new_empty(packed),
        scratch=inputs.new_empty(n_threads, block),
        dL_doutputs=dL_doutputs.detach(),
        dL_dinputs=dL_dinputs,
        **{f"dL_dweight_{layer}": gradient for layer, gradient in enumerate(dL_dweights)},
        partial=inputs.new_empty(partial),
        n_threads=n_threads,
    )
    return dL_dinputs, dL_dweights


def _cpu_arguments(inputs: Tensor, weights: Sequence[Tensor]) -> dict[str, Tensor | int]:
    return {
        "inputs": inputs.detach(),
        "n_layers": len(weights),
        **{f"weight_{layer}": weight.detach() for layer, weight in enumerate(weights)},
    }
