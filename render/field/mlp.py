"""Small networks without biases, by any backend, differentiable; `reference.mlp` says what they compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import assert_never

from kinosplat.render.field import native_mlp, reference
from kinosplat.render.field.backend import FieldBackend


def mlp(inputs: Tensor, weights: Sequence[Tensor], backend: FieldBackend) -> Tensor:
    """(S, n_outputs) float of (S, n_inputs); weights (n_outputs, n_inputs) a layer, ReLU between, none at the end."""
    match backend:
        case "native":
            return _NativeNetwork.apply(inputs, *weights)
        case "reference":
            return reference.mlp(inputs, weights)
        case "tcnn":
            from kinosplat.render.field.tcnn import tcnn_network

            widths = (weights[0].shape[1], *(weight.shape[0] for weight in weights))
            return tcnn_network(widths)(inputs, weights)
        case _:
            assert_never(backend)


class _NativeNetwork(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, *weights)
        return native_mlp.mlp_forward(inputs.detach(), [weight.detach() for weight in weights])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dL_doutputs: Tensor) -> Any:
        inputs, *weights = ctx.saved_tensors
        dL_dinputs, dL_dweights = native_mlp.mlp_backward(
            dL_doutputs.contiguous(), inputs, weights, inputs_gradient=ctx.needs_input_grad[0]
        )
        return dL_dinputs, *dL_dweights
