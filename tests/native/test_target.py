"""What renderings are compared with is what alpha, masks and background say, and so is the loss of alpha."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kinosplat.render.losses import alpha_difference, alpha_loss
from kinosplat.render.target import compose_target

H, W = 150, 121  # several runs of pixels


def random_bytes(*shape: int) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.uint8)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("masks_cut_out", [False, True])
def test_a_target_is_composited_cut_out_or_weighted(channels: int, with_mask: bool, masks_cut_out: bool) -> None:
    pixels, mask = random_bytes(H, W, channels), random_bytes(H, W) if with_mask else None
    background = torch.tensor([0.1, 0.6, 1.0])
    target = compose_target([pixels], [mask], background, masks_cut_out=masks_cut_out)
    floats, inside = pixels.double() / 255, None if mask is None else mask.double() / 255
    alpha = floats[..., 3] if channels == 4 else torch.ones(H, W, dtype=torch.float64)
    if inside is not None and masks_cut_out:
        alpha = alpha * inside
    expected = floats[..., :3] * alpha[..., None] + background.double() * (1 - alpha[..., None])
    # float32; measured 6e-8.
    torch.testing.assert_close(target.rgb[0].double(), expected, rtol=0, atol=2e-7)
    assert (target.alpha is not None) == (channels == 4 or (with_mask and masks_cut_out))
    assert (target.weight is not None) == (with_mask and not masks_cut_out)
    if target.alpha is not None:
        torch.testing.assert_close(target.alpha[0].double(), alpha, rtol=0, atol=1e-7)
    if target.weight is not None:
        torch.testing.assert_close(target.weight[0].double(), inside, rtol=0, atol=1e-7)


def test_a_picture_without_alpha_or_mask_counts_whole_beside_others_that_have_one() -> None:
    pixels = [random_bytes(4, 5, 3), random_bytes(4, 5, 4)]
    target = compose_target(pixels, [random_bytes(4, 5), None], torch.zeros(3), masks_cut_out=False)
    assert target.alpha is not None
    assert target.weight is not None
    assert (target.alpha[0] == 1).all()
    assert (target.weight[1] == 1).all()
    assert target.rgb[0].equal(pixels[0] / 255)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"^pixels must have shape \(4, 5, 3 or 4\), got \(4, 6, 3\)\.$"):
        compose_target([random_bytes(4, 5, 3), random_bytes(4, 6, 3)], [None] * 2, torch.zeros(3), masks_cut_out=True)
    with pytest.raises(ValueError, match=r"^masks must have shape \(4, 5\), got \(5, 4\)\.$"):
        compose_target([random_bytes(4, 5, 3)], [random_bytes(5, 4)], torch.zeros(3), masks_cut_out=True)
    with pytest.raises(ValueError, match=r"^mask must have shape \(1, 4, 5\), got \(4, 5\)\.$"):
        alpha_difference(torch.zeros(1, 4, 5), torch.zeros(1, 4, 5), mask=torch.zeros(4, 5), weight=1.0)


@pytest.mark.parametrize("with_mask", [False, True])
def test_the_loss_of_alpha_is_the_weighted_mean_difference(with_mask: bool) -> None:
    draws = torch.Generator().manual_seed(0)
    rendered, target, mask = (torch.rand(2, H, W, generator=draws, dtype=torch.float64) for _ in range(3))
    target[0, :3] = rendered[0, :3]
    leaf, exact = rendered.clone().requires_grad_(), rendered.clone().requires_grad_()
    loss = alpha_loss(leaf, target, mask=mask if with_mask else None, weight=0.3)
    expected = 0.3 * ((exact - target).abs() * (mask if with_mask else 1.0)).mean()
    torch.testing.assert_close(loss, expected)
    (2.0 * loss).backward()
    (2.0 * expected).backward()
    torch.testing.assert_close(leaf.grad, exact.grad)
    assert (leaf.grad[0, :3] == 0).all()


def test_the_gradient_of_the_loss_of_alpha_is_that_of_finite_differences() -> None:
    draws = torch.Generator().manual_seed(0)
    rendered, target, mask = (torch.rand(1, 3, 4, generator=draws, dtype=torch.float64) for _ in range(3))
    assert torch.autograd.gradcheck(
        lambda alpha: alpha_loss(alpha, target, mask=mask, weight=2.0), (rendered.requires_grad_(),)
    )
