"""Compositing natively is what the reference says; its backward pass needs only what the forward pass returned."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kinosplat.render.field import native, reference
from kinosplat.render.field.samples import Composited, Samples
from native.field.rays import ragged_samples

COUNTS = [0, 1, 5, 200, 0, 64, 65, 17]
PICTURES = ("rgb", "alpha", "depth", "distortion")


def sampled(samples: Samples, scale: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    density = scale * torch.rand(len(samples), generator=generator, dtype=torch.float64)
    rgb = torch.rand(len(samples), 3, generator=generator, dtype=torch.float64)
    return density.to(samples.t).requires_grad_(), rgb.to(samples.t).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("stop", "scale"), [(0.0, 1.0), (1e-4, 5.0)])
def test_rays_and_gradients_are_those_of_the_reference(dtype: torch.dtype, stop: float, scale: float) -> None:
    samples = ragged_samples(COUNTS, dtype)
    density, rgb = sampled(samples, scale)
    arguments = (density, rgb, samples.t, samples.dt, samples.offsets)
    expected = reference.composite(*arguments, stop)
    out = native.composite_forward(*arguments, stop)
    # Measured of the largest value: float64 1e-15, float32 4e-7.
    tolerance = 1e-14 if dtype == torch.float64 else 2e-6
    for name in PICTURES:
        value = getattr(expected, name)
        torch.testing.assert_close(
            getattr(out, name), value, rtol=0, atol=tolerance * float(value.detach().abs().max())
        )
    assert torch.equal(out.n_used, expected.n_used)
    assert (int(out.n_used[3]) < 200) == (stop > 0)

    generator = torch.Generator().manual_seed(6)
    gradients = [
        torch.randn(getattr(out, name).shape, generator=generator, dtype=torch.float64).to(dtype) for name in PICTURES
    ]
    torch.autograd.backward([getattr(expected, name) for name in PICTURES], gradients)
    dL_ddensity, dL_drgb = native.composite_backward(*gradients, *arguments, out)
    # Measured of the largest: float64 2e-14, float32 8e-7.
    for gradient, leaf in ((dL_ddensity, density), (dL_drgb, rgb)):
        torch.testing.assert_close(gradient, leaf.grad, rtol=0, atol=5 * tolerance * float(leaf.grad.abs().max()))


def test_the_gradients_are_those_of_finite_differences() -> None:
    samples = ragged_samples([3, 0, 5], torch.float64)
    density, rgb = sampled(samples, 2.0)

    class Composite(torch.autograd.Function):
        @staticmethod
        def forward(ctx, density: Tensor, rgb: Tensor) -> tuple[Tensor, ...]:
            ctx.out = native.composite_forward(density, rgb, samples.t, samples.dt, samples.offsets, 0.0)
            ctx.save_for_backward(density, rgb)
            return ctx.out.rgb, ctx.out.alpha, ctx.out.depth, ctx.out.distortion

        @staticmethod
        def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor]:
            contiguous = [gradient.contiguous() for gradient in gradients]
            return native.composite_backward(
                *contiguous, *ctx.saved_tensors, samples.t, samples.dt, samples.offsets, ctx.out
            )

    assert torch.autograd.gradcheck(Composite.apply, (density, rgb))


def test_gradients_not_given_are_zero() -> None:
    samples = ragged_samples(COUNTS, torch.float64)
    density, rgb = sampled(samples, 1.0)
    arguments = (density, rgb, samples.t, samples.dt, samples.offsets)
    out = native.composite_forward(*arguments)
    dL_drgb = torch.randn_like(out.rgb)
    zeros = torch.zeros_like(out.alpha)
    given = native.composite_backward(dL_drgb, zeros, zeros, zeros, *arguments, out)
    left_out = native.composite_backward(dL_drgb, None, None, None, *arguments, out)
    for a, b in zip(given, left_out, strict=True):
        assert torch.equal(a, b)


def test_an_opaque_sample_hides_what_is_behind() -> None:
    samples = ragged_samples([3], torch.float32)
    density = torch.tensor([0.0, torch.inf, 1.0])
    rgb = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    out = native.composite_forward(density, rgb, samples.t, samples.dt, samples.offsets)
    assert out.rgb.tolist() == [[0.0, 1.0, 0.0]]
    assert out.alpha.tolist() == [1.0]
    assert out.n_used.tolist() == [2]
    dL_ddensity, dL_drgb = native.composite_backward(
        torch.ones(1, 3), None, None, None, density, rgb, samples.t, samples.dt, samples.offsets, out
    )
    assert dL_ddensity[2] == 0
    assert dL_drgb.tolist() == [[0.0] * 3, [1.0] * 3, [0.0] * 3]


def test_no_samples_leave_rays_black_and_no_rays_leave_nothing() -> None:
    nothing = torch.empty(0)
    out: Composited = native.composite_forward(
        nothing, torch.empty(0, 3), nothing, nothing, torch.zeros(4, dtype=torch.int64)
    )
    assert (out.rgb == 0).all()
    assert (out.n_used == 0).all()
    none = native.composite_forward(nothing, torch.empty(0, 3), nothing, nothing, torch.zeros(1, dtype=torch.int64))
    assert none.rgb.shape == (0, 3)
