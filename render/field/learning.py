"""The gradients of a field by hand: what a training step does with the native passes, without torch's autograd.

`Field` and torch's autograd give the same numbers; here the host builds no history, and gradients lie where they were
written.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinosplat.render.field import native, native_mlp, native_step
from kinosplat.render.field.field import SALIENCY, Field
from kinosplat.render.field.layout import GridLayout
from kinosplat.render.field.samples import Composited
from kinosplat.render.field.sight import Sight


@dataclass(frozen=True)
class Vision:
    """A field as R rays see it, and what its gradients need."""

    field: Field
    """Without gradients."""
    sight: Sight
    """What can be seen."""
    density: Tensor
    """(S,) in 1 / world units."""
    rgb: Tensor
    """(S, 3) in [0, 1]."""
    seen: Composited
    """What the rays see."""

    @torch.no_grad()
    def sample_gradients(
        self, dL_drgb: Tensor, dL_dalpha: Tensor, dL_ddistortion: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Gradients (S,) of the densities and (S, 3) of the colours from those of what the rays see."""
        samples = self.sight.samples
        return native.composite_backward(
            dL_drgb,
            dL_dalpha,
            None,
            dL_ddistortion,
            self.density,
            self.rgb,
            samples.t,
            samples.dt,
            samples.offsets,
            self.seen,
        )

    @torch.no_grad()
    def gradients(self, dL_ddensity: Tensor, dL_drgb: Tensor) -> dict[str, Tensor]:
        """Gradients of the field's tensors, by name, from those of the samples' densities (S,) and colours (S, 3)."""
        field, sight, told, count = self.field, self.sight, self.sight.told, self.sight.count
        dL_dlogits = native_step.colour_gradients(self.rgb, dL_drgb, count)
        dL_dcolour_inputs, of_colour = native_mlp.mlp_backward(
            dL_dlogits, sight.colour_inputs, field.colour_weights, count=count
        )
        assert dL_dcolour_inputs is not None
        dL_doutputs, dL_dgate = native_step.output_gradients(
            sight.colour_inputs,
            dL_dcolour_inputs,
            dL_ddensity,
            field.shape.density_scale,
            told.gate,
            field.shape.n_outputs,
            count,
        )
        dL_dfeatures, of_density = native_mlp.mlp_backward(dL_doutputs, told.inputs, field.density_weights, count=count)
        assert dL_dfeatures is not None
        gradients = {f"density.{i}": gradient for i, gradient in enumerate(of_density)}
        gradients |= {f"colour.{i}": gradient for i, gradient in enumerate(of_colour)}
        if field.saliency is not None:
            assert told.logits is not None
            assert dL_dgate is not None
            dL_dfeatures, dL_dsaliency = native_step.gate_gradients(
                told.features, told.logits, field.sharpness, dL_dfeatures, dL_dgate, count
            )
            gradients["saliency"] = _table_gradient(dL_dsaliency[:, None], sight, field.saliency, SALIENCY)
        gradients["table"] = _table_gradient(dL_dfeatures, sight, field.table, field.shape.layout)
        return gradients


@torch.no_grad()
def see(field: Field, sight: Sight) -> Vision:
    """What rays see of the samples in sight."""
    field = field.mapped(lambda tensor: tensor.detach())
    samples, count = sight.samples, sight.count
    logits = native_mlp.mlp_forward(sight.colour_inputs, field.colour_weights, count)
    density, rgb = native_step.activate(sight.colour_inputs, logits, field.shape.density_scale, sight.told.gate, count)
    seen = native.composite_forward(density, rgb, samples.t, samples.dt, samples.offsets)
    return Vision(field, sight, density, rgb, seen)


def _table_gradient(dL_dfeatures: Tensor, sight: Sight, table: Tensor, layout: GridLayout) -> Tensor:
    gradient, _ = native.encode_backward(dL_dfeatures, sight.positions, table, layout, count=sight.count)
    assert gradient is not None
    return gradient
