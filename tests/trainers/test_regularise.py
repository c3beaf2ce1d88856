"""Regularisers of the Gaussian methods: what they leave as it was, and where they pull."""

from __future__ import annotations

import math

import pytest
import torch

from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians
from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.methods.config import FourDGS, GaussianConfig
from kinosplat.trainers.methods.presets import resolve
from kinosplat.trainers.methods.regularise import brevity, thinned


def gaussians(opacity_logits: torch.Tensor) -> Gaussians:
    n = len(opacity_logits)
    return Gaussians(
        means=torch.zeros(n, 3),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(n, 1),
        log_scales=torch.zeros(n, 3),
        opacity_logits=opacity_logits,
        sh_dc=torch.zeros(n, 3),
        sh_rest=torch.zeros(n, 0, 3),
    )


def test_leaving_out_keeps_the_mean_optical_density():
    logits = torch.linspace(-5.0, 5.0, 11).repeat_interleave(20_000)
    drawn = thinned(gaussians(logits), 0.2, torch.Generator().manual_seed(0)).opacity_logits
    density = torch.nn.functional.softplus(drawn).reshape(11, -1).mean(dim=1)
    expected = torch.nn.functional.softplus(logits[::20_000])
    # The mean of 20 000 draws of a share of 0.8 is off by 0.35 % (one sigma); measured at most 0.6 %.
    torch.testing.assert_close(density, expected, rtol=0.02, atol=0.0)


def test_what_is_left_out_gets_no_gradient_and_the_rest_a_finite_one():
    logits = torch.tensor([-90.0, -1.0, 0.0, 1.0, 90.0]).repeat(100).requires_grad_()
    drawn = thinned(gaussians(logits), 0.5, torch.Generator().manual_seed(0)).opacity_logits
    drawn.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[drawn < -30.0] == 0.0).all()
    assert (logits.grad[drawn > -2.0] > 0.0).all()


def test_short_lives_are_lengthened_until_they_last_for_the_clip():
    log_durations = torch.tensor([0.1, 1.0, 5.0, 20.0, math.inf]).log().requires_grad_()
    visible = torch.tensor([True, False, True, True, True])
    penalty = brevity(log_durations, visible, 5.0)
    penalty.backward()
    assert penalty.item() == pytest.approx(math.log(50.0) / 5, rel=1e-5)
    # The same pull at every duration, none on what is out of view or outlives the clip.
    assert log_durations.grad is not None
    assert log_durations.grad[[0, 1, 3, 4]].tolist() == pytest.approx([-0.2, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_drop_rate_that_is_no_share_is_refused(rate: float):
    config = TrainConfig(method=FourDGS(gaussians=GaussianConfig(drop_rate=rate)))
    with pytest.raises(InputError, match=f"--drop-rate must be a share from 0 to below 1, got {rate}"):
        resolve(config)
