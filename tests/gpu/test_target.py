"""Targets from bytes, and the loss of alpha, are on the GPU what they are on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kinosplat.render.losses import alpha_loss
from kinosplat.render.target import compose_target

pytestmark = pytest.mark.gpu


def random_bytes(*shape: int) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.uint8)


@pytest.mark.parametrize("masks_cut_out", [False, True])
# Less than a block's pixels, and several blocks with a rest.
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (121, 201)])
def test_a_target_is_that_of_the_cpu(masks_cut_out: bool, height: int, width: int) -> None:
    pixels = [random_bytes(height, width, 4), random_bytes(height, width, 3)]
    masks, background = [None, random_bytes(height, width)], torch.tensor([0.1, 0.6, 1.0])
    expected = compose_target(pixels, masks, background, masks_cut_out=masks_cut_out)
    target = compose_target(
        [picture.cuda() for picture in pixels],
        [None if mask is None else mask.cuda() for mask in masks],
        background.cuda(),
        masks_cut_out=masks_cut_out,
    )
    for ours, theirs in zip(vars(target).values(), vars(expected).values(), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours.cpu(), theirs, rtol=0, atol=2e-7)


@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (121, 201)])
def test_the_loss_of_alpha_is_that_of_the_cpu(with_mask: bool, height: int, width: int) -> None:
    draws = torch.Generator().manual_seed(height)
    rendered, target, mask = (torch.rand(2, height, width, generator=draws) for _ in range(3))
    results = {}
    for device in ("cpu", "cuda"):
        leaf = rendered.to(device, copy=True).requires_grad_()
        loss = alpha_loss(leaf, target.to(device), mask=mask.to(device) if with_mask else None, weight=0.3)
        (2.0 * loss).backward()
        results[device] = loss.item(), leaf.grad.cpu()
    assert results["cuda"][0] == pytest.approx(results["cpu"][0], rel=1e-5)
    torch.testing.assert_close(results["cuda"][1], results["cpu"][1], rtol=1e-6, atol=0)
