"""The fused photometric loss is what its formula says, written with torch's convolutions; so are PSNR and SSIM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from kinosplat.render.losses import photometric_loss, psnr, quantize8, ssim


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """(C, H, W, 3) similarity of every pixel, the way the INRIA code computes it."""
    taps = torch.exp(-((torch.arange(11, dtype=a.dtype) - 5) ** 2) / (2 * 1.5**2))
    window = torch.outer(taps, taps) / taps.sum() ** 2

    def blur(picture: Tensor) -> Tensor:
        channels = picture.permute(0, 3, 1, 2)
        return conv2d(channels, window.expand(3, 1, 11, 11), padding=5, groups=3).permute(0, 2, 3, 1)

    mean_a, mean_b = blur(a), blur(b)
    variance_a, variance_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    numerator = (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
    return numerator / ((mean_a**2 + mean_b**2 + 0.01**2) * (variance_a + variance_b + 0.03**2))


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch's small convolutions wait for their threads longer than they compute, where other programs run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def expected_loss(rendered: Tensor, target: Tensor, mask: Tensor | None, ssim_weight: float) -> Tensor:
    weight = torch.ones_like(rendered) if mask is None else mask[..., None].expand_as(rendered)
    a, b = rendered * weight, target * weight
    difference = (a - b).abs().sum() / weight.sum()
    similarity = (ssim_map(a, b) * weight).sum() / weight.sum()
    return (1 - ssim_weight) * difference + ssim_weight * (1 - similarity)


def pictures(n: int, height: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(width)
    target = torch.rand(n, height, width, 3, generator=generator, dtype=torch.float64)
    rendered = (target + 0.2 * torch.randn(target.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    return rendered.to(dtype), target.to(dtype)


def soft_mask(n: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Some pixels hidden, some seen, some in between."""
    values = torch.rand(n, height, width, generator=torch.Generator().manual_seed(0))
    return (1.5 * values - 0.25).clamp(0, 1).to(dtype)


# Sizes below the window, between bands of 64 lines, over several of them.
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 20), (64, 9), (65, 33), (150, 40)])
@pytest.mark.parametrize("masked", [False, True])
def test_loss_and_gradient_are_those_of_the_formula(height: int, width: int, masked: bool) -> None:
    # Measured at most: float64 6e-17 and, of the largest gradient, 2e-15; float32 2e-8 and 4e-7.
    for dtype, loss_tolerance, gradient_tolerance in ((torch.float64, 1e-14, 1e-13), (torch.float32, 2e-7, 5e-6)):
        rendered, target = pictures(2, height, width, dtype)
        mask = soft_mask(2, height, width, torch.float64) if masked else None
        exact = rendered.double().clone().requires_grad_()
        with one_thread():
            expected = expected_loss(exact, target.double(), mask, 0.2)
            expected.backward()
        leaf = rendered.clone().requires_grad_()
        loss = photometric_loss(leaf, target, mask=None if mask is None else mask.to(dtype))
        (3 * loss).backward()
        assert abs(loss.item() - expected.item()) < loss_tolerance
        scale = exact.grad.abs().max()
        assert ((leaf.grad.double() / 3 - exact.grad).abs() < gradient_tolerance * scale).all()


@pytest.mark.parametrize("ssim_weight", [0.0, 0.2, 1.0])
def test_the_gradient_is_that_of_finite_differences(ssim_weight: float) -> None:
    rendered, target = pictures(1, 7, 6, torch.float64)
    mask = soft_mask(1, 7, 6, torch.float64)
    assert torch.autograd.gradcheck(
        lambda a: photometric_loss(a, target, mask=mask, ssim_weight=ssim_weight), (rendered.requires_grad_(),)
    )


def test_a_second_backward_pass_finds_the_gradient_unharmed() -> None:
    rendered, target = pictures(1, 20, 20, torch.float32)
    leaf = rendered.requires_grad_()
    loss = photometric_loss(leaf, target)
    loss.backward(retain_graph=True)
    once = leaf.grad.clone()
    loss.backward()
    assert torch.equal(leaf.grad, 2 * once)


def test_what_the_mask_hides_has_no_influence() -> None:
    rendered, target = pictures(1, 40, 50, torch.float32)
    mask = torch.ones(1, 40, 50)
    mask[:, 10:30, 20:] = 0
    other = rendered.clone()
    other[:, 10:30, 20:] = torch.rand(1, 20, 30, 3)
    assert photometric_loss(rendered, target, mask=mask) == photometric_loss(other, target, mask=mask)
    leaf = rendered.clone().requires_grad_()
    photometric_loss(leaf, target, mask=mask).backward()
    assert (leaf.grad[:, 10:30, 20:] == 0).all()
    assert (leaf.grad[:, :10] != 0).all()


def test_a_mask_that_hides_everything_gives_zero() -> None:
    rendered, target = pictures(1, 12, 12, torch.float32)
    leaf = rendered.requires_grad_()
    loss = photometric_loss(leaf, target, mask=torch.zeros(1, 12, 12))
    loss.backward()
    assert loss == 0
    assert (leaf.grad == 0).all()


def test_equal_pictures_are_perfect() -> None:
    _, picture = pictures(2, 30, 30, torch.float32)
    assert photometric_loss(picture, picture) == pytest.approx(0, abs=1e-7)
    assert (psnr(picture, picture) == torch.inf).all()
    torch.testing.assert_close(ssim(picture, picture), torch.ones(2), rtol=0, atol=1e-6)


def test_metrics_see_what_an_eight_bit_file_holds() -> None:
    rendered, target = pictures(3, 40, 30, torch.float32)
    outside = rendered + (rendered == 1) * 0.5  # above white: a file cannot tell
    assert torch.equal(psnr(outside, target), psnr(rendered, target))
    a, b = quantize8(rendered).double(), quantize8(target).double()
    expected = -10 * torch.log10((a - b).square().mean(dim=(1, 2, 3)))
    torch.testing.assert_close(psnr(rendered, target).double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        ssim(rendered, target).double(), ssim_map(a, b).mean(dim=(1, 2, 3)), rtol=0, atol=1e-6
    )  # measured 3e-8


def test_psnr_of_a_step_is_the_number_everybody_knows() -> None:
    black, grey = torch.zeros(1, 8, 8, 3), torch.full((1, 8, 8, 3), 25.5 / 255)
    assert psnr(black, grey).item() == pytest.approx(-20 * torch.log10(torch.tensor(26 / 255)).item(), abs=1e-4)


def test_ssim_inside_a_mask_is_that_of_the_loss_for_each_picture() -> None:
    a, b = torch.rand(3, 20, 24, 3), torch.rand(3, 20, 24, 3)
    mask = (torch.rand(3, 20, 24) > 0.5).float()
    mask[2] = 0.0
    expected = [
        1.0 - photometric_loss(quantize8(a[i : i + 1]), quantize8(b[i : i + 1]), mask=mask[i : i + 1], ssim_weight=1.0)
        for i in range(3)
    ]
    torch.testing.assert_close(ssim(a, b, mask=mask), torch.stack(expected), rtol=0, atol=1e-6)  # measured 3e-8
    assert ssim(a, b, mask=mask)[2] == 1.0
