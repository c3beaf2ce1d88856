"""Noise and penalties of Markov chain Monte Carlo are what their formulas say, written in torch."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kinosplat.render.gaussians import Gaussians
from kinosplat.render.mcmc import shake, view_penalties
from kinosplat.render.rotations import matrix_from_quaternion

F64 = torch.float64


def transparent(n: int, dtype: torch.dtype = F64) -> Gaussians:
    """Round Gaussians of scale 1 at the origin, with hardly any opacity."""
    quats = torch.zeros(n, 4, dtype=dtype)
    quats[:, 0] = 1.0
    return Gaussians(
        means=torch.zeros(n, 3, dtype=dtype),
        quats=quats,
        log_scales=torch.zeros(n, 3, dtype=dtype),
        opacity_logits=torch.full((n,), -100.0, dtype=dtype),
        sh_dc=torch.zeros(n, 3, dtype=dtype),
        sh_rest=torch.zeros(n, 0, 3, dtype=dtype),
    )


def moving(n: int) -> Gaussians:
    draws = torch.Generator().manual_seed(n)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws, dtype=F64)

    return Gaussians(
        **replace(transparent(n), opacity_logits=normal(n), log_scales=normal(n, 3)).parameters(),
        displacements=normal(n, 3),
        time_centres=normal(n),
        log_durations=normal(n),
    )


def full_strength() -> float:
    """What the sigmoid leaves of the noise of a Gaussian without opacity."""
    return 1.0 / (1.0 + math.exp(-100.0 * 0.005))


def test_the_noise_is_standard_normal_and_follows_from_the_key_alone() -> None:
    n = 40_000
    once, again, other = transparent(n), transparent(n), transparent(n)
    shake(once, 2.0 / full_strength(), key=7)
    shake(again, 2.0 / full_strength(), key=7)
    shake(other, 2.0 / full_strength(), key=8)
    assert torch.equal(once.means, again.means)
    normal = once.means / 2.0
    # Of 40 000 draws: mean 0 +- 0.005, variance and fourth moment 1 +- 0.007 and 3 +- 0.05, correlations 0 +- 0.005.
    # Measured at most 0.009, 0.006, 0.06 and 0.007.
    assert normal.mean(dim=0).abs().max() < 0.02
    assert (normal.var(dim=0) - 1).abs().max() < 0.03
    assert (normal.pow(4).mean(dim=0) - 3).abs().max() < 0.2
    covariance = normal.T @ normal / n
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 0.02
    assert (once.means * other.means).mean().abs() / 4.0 < 0.02


def test_the_noise_is_stretched_by_the_covariance_and_faded_by_opacity() -> None:
    n, strength = 200, 0.3
    draws = torch.Generator().manual_seed(0)
    plain = transparent(n)
    shake(plain, 1.0 / full_strength(), key=123)
    logits = torch.linspace(-8.0, -1.0, n, dtype=F64)
    gaussians = replace(
        transparent(n),
        quats=torch.randn(n, 4, generator=draws, dtype=F64),
        log_scales=torch.randn(n, 3, generator=draws, dtype=F64),
        opacity_logits=logits,
    )
    shake(gaussians, strength, key=123)
    factor = matrix_from_quaternion(gaussians.quats) * gaussians.log_scales.exp()[:, None, :]
    fading = torch.sigmoid(-100.0 * (torch.sigmoid(logits) - 0.005))
    expected = strength * fading[:, None] * (factor @ factor.mT @ plain.means[..., None])[..., 0]
    expected[torch.sigmoid(logits) >= 0.1] = 0.0
    torch.testing.assert_close(gaussians.means, expected, rtol=1e-9, atol=1e-12)
    assert (gaussians.means[torch.sigmoid(logits) >= 0.1] == 0).all()
    assert (gaussians.means[0] != 0).all()


def test_what_has_no_finite_shape_is_not_moved() -> None:
    gaussians = transparent(3, torch.float32)
    gaussians.log_scales[0, 1] = float("inf")
    gaussians.quats[1] = 0.0
    shake(gaussians, 1.0, key=0)
    assert (gaussians.means[:2] == 0).all()
    assert (gaussians.means[2] != 0).any()


@pytest.mark.parametrize("times", [(0.3,), (-1.0, 0.2, 2.0)])
def test_penalties_are_means_of_what_is_in_view_as_far_as_it_is_there(times: tuple[float, ...]) -> None:
    n = 9000  # several chunks
    gaussians = moving(n)
    gaussians.log_durations[:10] = float("inf")
    visible = torch.rand(n, generator=torch.Generator().manual_seed(1)) > 0.5
    opacity, scale = view_penalties(gaussians, visible, times, opacity_weight=0.1, scale_weight=0.2)
    phase = (torch.tensor(times, dtype=F64)[:, None] - gaussians.time_centres) * torch.exp(-gaussians.log_durations)
    fade = torch.exp(-0.5 * phase**2).amax(dim=0) * visible
    torch.testing.assert_close(opacity, 0.1 * (torch.sigmoid(gaussians.opacity_logits) * fade).mean())
    torch.testing.assert_close(scale, 0.2 * (torch.exp(gaussians.log_scales) * fade[:, None]).mean())


@pytest.mark.parametrize("is_moving", [False, True])
def test_the_gradient_of_the_penalties_is_that_of_finite_differences(is_moving: bool) -> None:
    gaussians = moving(7)
    if not is_moving:
        gaussians = replace(gaussians, displacements=None, time_centres=None, log_durations=None)
    visible = torch.tensor([True] * 5 + [False] * 2)

    def weighted(opacity_logits: Tensor, log_scales: Tensor) -> Tensor:
        changed = replace(gaussians, opacity_logits=opacity_logits, log_scales=log_scales)
        terms = view_penalties(changed, visible, [0.3, 0.5], opacity_weight=0.7, scale_weight=0.4)
        return 2.0 * terms[0] + 3.0 * terms[1]

    assert torch.autograd.gradcheck(
        weighted, (gaussians.opacity_logits.requires_grad_(), gaussians.log_scales.requires_grad_())
    )


def test_arguments_that_do_not_fit_are_named() -> None:
    gaussians = moving(3)
    weights = {"opacity_weight": 1.0, "scale_weight": 1.0}
    with pytest.raises(ValueError, match=r"^visible must have shape \(3,\), got \(4,\)\.$"):
        view_penalties(gaussians, torch.ones(4, dtype=torch.bool), [0.0], **weights)
    with pytest.raises(ValueError, match=r"^times must hold at least one time when the Gaussians move\.$"):
        view_penalties(gaussians, torch.ones(3, dtype=torch.bool), [None], **weights)
