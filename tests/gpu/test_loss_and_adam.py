"""The photometric loss and Adam on the GPU give what the CPU backend gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kinosplat.render.adam import AdamTensor, DroppedRows, RowAdam, adam_step
from kinosplat.render.losses import photometric_comparison, ssim

pytestmark = pytest.mark.gpu


def pictures(n: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height)
    target = torch.rand(n, height, width, 3, generator=generator)
    return (target + 0.2 * torch.randn(target.shape, generator=generator)).clamp(0, 1), target


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (64, 43), (121, 200)])
@pytest.mark.parametrize("masked", [False, True])
def test_the_loss_and_its_gradient_are_those_of_the_cpu(height: int, width: int, masked: bool) -> None:
    rendered, target = pictures(2, height, width)
    mask = (torch.rand(2, height, width, generator=torch.Generator().manual_seed(0)) > 0.3).float() if masked else None
    results = {}
    for device in ("cpu", "cuda"):
        leaf = rendered.to(device, copy=True).requires_grad_()
        loss, error = photometric_comparison(leaf, target.to(device), mask=None if mask is None else mask.to(device))
        loss.backward()
        results[device] = loss.item(), error.item(), leaf.grad.cpu()
    assert results["cuda"][:2] == pytest.approx(results["cpu"][:2], rel=1e-5)
    scale = results["cpu"][2].abs().max()
    assert ((results["cuda"][2] - results["cpu"][2]).abs() < 1e-4 * scale).all()


def test_a_mask_that_hides_everything_gives_zero() -> None:
    rendered, target = pictures(1, 12, 12)
    leaf = rendered.cuda().requires_grad_()
    loss, error = photometric_comparison(leaf, target.cuda(), mask=torch.zeros(1, 12, 12, device="cuda"))
    loss.backward()
    assert loss == error == 0
    assert (leaf.grad == 0).all()


def test_ssim_is_that_of_the_cpu() -> None:
    a, b = pictures(3, 50, 70)
    torch.testing.assert_close(ssim(a.cuda(), b.cuda()).cpu(), ssim(a, b), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1,), (1000,), (1001, 3), (999, 4), (777, 15, 3), (300, 7)])
@pytest.mark.parametrize("sparse", [False, True])
def test_adam_moves_like_torch_and_leaves_the_unseen_alone(shape: tuple[int, ...], sparse: bool) -> None:
    generator = torch.Generator().manual_seed(len(shape))
    parameter = torch.randn(shape, generator=generator)
    visible = torch.rand(shape[0], generator=generator) > 0.5 if sparse else torch.ones(shape[0], dtype=torch.bool)
    expected = parameter.clone().requires_grad_()
    optimizer = torch.optim.Adam([expected], lr=0.01, eps=1e-15)
    ours = parameter.cuda()
    moments = torch.zeros_like(ours), torch.zeros_like(ours)
    for step in range(1, 4):
        gradient = torch.randn(shape, generator=generator)
        expected.grad = gradient.clone()
        optimizer.step()
        adam_step(
            ours,
            gradient.cuda(),
            *moments,
            lr=0.01,
            betas=(0.9, 0.999),
            eps=1e-15,
            step=step,
            visible=visible.cuda() if sparse else None,
        )
    torch.testing.assert_close(ours.cpu()[visible], expected.detach()[visible], rtol=1e-5, atol=1e-6)
    assert torch.equal(ours.cpu()[~visible], parameter[~visible])


def test_rows_with_broken_gradients_lose_the_step_in_all_tensors_as_on_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(1003, 3), (1003,), (1003, 15, 3), (1003, 4)]
    values = [torch.randn(shape, generator=generator) for shape in shapes]
    gradients = [torch.randn(shape, generator=generator) for shape in shapes]
    gradients[0][5, 1] = float("nan")
    gradients[2][1002, 14, 2] = float("inf")
    gradients[3][7, 0] = float("-inf")
    visible = torch.rand(1003, generator=generator) > 0.3
    visible[5], visible[7], visible[1002] = True, False, True
    moved = {}
    for device in ("cpu", "cuda"):
        tensors = [
            AdamTensor(v.to(device, copy=True), *(torch.zeros(v.shape, device=device) for _ in "mv")) for v in values
        ]
        dropped = DroppedRows(device)
        adam = RowAdam(tensors)
        for step in (1, 2):
            adam.step(
                [None if i == 1 else g.to(device) for i, g in enumerate(gradients)],
                [0.01, 0.02, 0.03, 0.04],
                step,
                visible=visible.to(device),
                dropped=dropped,
            )
        assert (int(dropped.n_rows), int(dropped.n_steps)) == (4, 2)
        moved[device] = [tensor.parameter.cpu() for tensor in tensors]
    for value, cpu, cuda in zip(values, moved["cpu"], moved["cuda"], strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-5, atol=1e-6)
        assert torch.equal(cuda[[5, 7, 1002]], value[[5, 7, 1002]])
