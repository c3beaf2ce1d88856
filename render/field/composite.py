"""From samples to what rays see, by any backend, differentiable; `reference.composite` says what that is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kinosplat.render.field import native, reference
from kinosplat.render.field.backend import FieldBackend
from kinosplat.render.field.samples import Composited, Samples, runs


def composite(density: Tensor, rgb: Tensor, samples: Samples, backend: FieldBackend) -> Composited:
    """Blend (S,) densities and (S, 3) colours; gradients to both."""
    if backend == "reference":
        return reference.composite(density, rgb, samples.t, samples.dt, samples.offsets)
    return Composited(*_NativeComposite.apply(density, rgb, samples.t, samples.dt, samples.offsets))


class _NativeComposite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, density: Tensor, rgb: Tensor, t: Tensor, dt: Tensor, offsets: Tensor) -> Any:
        inputs = (density.detach(), rgb.detach(), t, dt, offsets)
        seen = native.composite_forward(*inputs)
        outputs = (seen.rgb, seen.alpha, seen.depth, seen.distortion, seen.n_used)
        ctx.save_for_backward(*inputs, *outputs)
        ctx.mark_non_differentiable(seen.n_used)
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        dL_drgb: Tensor | None,
        dL_dalpha: Tensor | None,
        dL_ddepth: Tensor | None,
        dL_ddistortion: Tensor | None,
        _: Any,
    ) -> Any:
        density, rgb, t, dt, offsets, *outputs = ctx.saved_tensors
        upstream = [
            None if part is None else part.contiguous() for part in (dL_drgb, dL_dalpha, dL_ddepth, dL_ddistortion)
        ]
        seen = Composited(*outputs)
        dL_ddensity, dL_dcolours = native.composite_backward(
            upstream[0], upstream[1], upstream[2], upstream[3], density, rgb, t, dt, offsets, seen
        )
        return dL_ddensity, dL_dcolours, None, None, None


@torch.no_grad()
def visible_part(density: Tensor, samples: Samples, backend: FieldBackend) -> Samples:
    """The samples up to the one that ends each ray; waits for their number."""
    seen = composite(density, density[:, None].expand(-1, 3).contiguous(), samples, backend)
    counts = seen.n_used.long()
    kept = runs(samples.offsets[:-1], counts)
    return Samples(torch.nn.functional.pad(counts.cumsum(0), (1, 0)), samples.t[kept], samples.dt[kept])


@torch.no_grad()
def sample_weights(density: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
    """(S,) weight of each sample, and (S,) the transmittance in front of it; never ended early."""
    optical = (density * samples.dt).double()
    total = optical.cumsum(0)
    start = torch.nn.functional.pad(total, (1, 0))[samples.offsets[:-1]]
    before = torch.exp(-(total - optical - start[samples.ray])).to(density.dtype)
    return before * -torch.expm1(-optical).to(density.dtype), before
