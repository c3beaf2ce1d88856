"""Adam moves like torch.optim.Adam and leaves alone what was not visible."""

from __future__ import annotations

import pytest
import torch

from kinosplat.render.adam import AdamTensor, DroppedRows, RowAdam, adam_step

SETTINGS = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-15}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1,), (1000,), (1001, 3), (999, 4), (700, 15, 3)])
def test_ten_steps_are_those_of_torch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator, dtype=dtype)
    expected = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([expected], **SETTINGS)
    parameter, exp_avg, exp_avg_sq = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, 11):
        gradient = torch.randn(shape, generator=generator, dtype=dtype)
        expected.grad = gradient.clone()
        optimizer.step()
        adam_step(parameter, gradient, exp_avg, exp_avg_sq, step=step, **SETTINGS)
    tolerance = 1e-14 if dtype == torch.float64 else 1e-6  # measured 4e-16 and 2.4e-7 beside moves of up to 0.1
    torch.testing.assert_close(parameter, expected.detach(), rtol=0, atol=tolerance)


def test_rows_nobody_saw_keep_parameter_and_moments() -> None:
    torch.manual_seed(0)
    parameter, gradient = torch.randn(5000, 3), torch.randn(5000, 3)
    exp_avg, exp_avg_sq = torch.randn(5000, 3), torch.rand(5000, 3)
    visible = torch.rand(5000) > 0.7
    before = [tensor.clone() for tensor in (parameter, exp_avg, exp_avg_sq)]
    everywhere = [tensor.clone() for tensor in before]
    adam_step(parameter, gradient, exp_avg, exp_avg_sq, step=4, visible=visible, **SETTINGS)
    adam_step(everywhere[0], gradient, everywhere[1], everywhere[2], step=4, **SETTINGS)
    for now, untouched, full in zip((parameter, exp_avg, exp_avg_sq), before, everywhere, strict=True):
        assert torch.equal(now[~visible], untouched[~visible])
        assert torch.equal(now[visible], full[visible])
        assert not torch.equal(now[visible], untouched[visible])


def test_leaves_that_want_gradients_and_empty_tensors_are_fine() -> None:
    parameter = torch.zeros(3, 2, requires_grad=True)
    adam_step(parameter, torch.ones(3, 2), torch.zeros(3, 2), torch.zeros(3, 2), step=1, **SETTINGS)
    torch.testing.assert_close(parameter.detach(), torch.full((3, 2), -0.01))
    empty = torch.zeros(4, 0, 3)
    adam_step(empty, empty, empty, empty, step=1, **SETTINGS)


def test_rows_without_a_gradient_stay_where_rows_are_sparse() -> None:
    torch.manual_seed(0)
    shape = (5000, 4)
    parameter, gradient = torch.randn(shape), torch.randn(shape)
    reached = torch.rand(5000) > 0.7
    gradient[~reached] = 0.0
    gradient[10], reached[10] = torch.tensor([0.0, 0.0, 0.0, 1e-30]), True
    gradient[11], reached[11] = torch.tensor([0.0, torch.nan, 0.0, 0.0]), False
    moments = torch.randn(shape), torch.rand(shape)
    tensors = [
        [tensor.clone() for tensor in (parameter, *moments)],
        [tensor.clone() for tensor in (parameter, *moments)],
    ]
    dropped = DroppedRows("cpu")
    RowAdam([AdamTensor(*tensors[0])], sparse=True).step([gradient], [0.01], 3, dropped=dropped)
    RowAdam([AdamTensor(*tensors[1])]).step([gradient], [0.01], 3, visible=reached)
    assert int(dropped.n_rows) == 1
    for now, expected in zip(*tensors, strict=True):
        assert torch.equal(now, expected)
    with pytest.raises(ValueError, match=r"^tensors must be a single one where rows are sparse, got 2\.$"):
        RowAdam([AdamTensor(*tensors[0]), AdamTensor(*tensors[1])], sparse=True)
