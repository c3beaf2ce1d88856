"""Noise and penalties on the GPU are those of the CPU backend."""

from __future__ import annotations

import pytest
import torch

from kinosplat.render.gaussians import Gaussians
from kinosplat.render.mcmc import shake, view_penalties

pytestmark = pytest.mark.gpu


def cloud(n: int) -> Gaussians:
    draws = torch.Generator().manual_seed(n)
    return Gaussians(
        means=torch.randn(n, 3, generator=draws),
        quats=torch.randn(n, 4, generator=draws),
        log_scales=torch.randn(n, 3, generator=draws) - 2.0,
        opacity_logits=2.0 * torch.randn(n, generator=draws) - 3.0,
        sh_dc=torch.zeros(n, 3),
        sh_rest=torch.zeros(n, 0, 3),
        displacements=torch.randn(n, 3, generator=draws),
        time_centres=torch.rand(n, generator=draws),
        log_durations=torch.randn(n, generator=draws),
    )


def test_the_noise_is_that_of_the_cpu() -> None:
    cpu = cloud(3001)
    gpu, before = cpu.to("cuda"), cpu.means.clone()
    shake(cpu, 0.5, key=2**62 + 11)
    shake(gpu, 0.5, key=2**62 + 11)
    moved = (cpu.means != before).any(dim=1)
    assert 0.2 < moved.float().mean() < 0.9
    torch.testing.assert_close(gpu.means.cpu(), cpu.means, rtol=1e-4, atol=1e-5)
    assert torch.equal(gpu.means.cpu()[~moved], before[~moved])


def test_the_penalties_and_their_gradients_are_those_of_the_cpu() -> None:
    visible = torch.rand(3001, generator=torch.Generator().manual_seed(0)) > 0.5
    results = {}
    for device in ("cpu", "cuda"):
        gaussians = cloud(3001).to(device).map(lambda t: t.clone().requires_grad_())
        terms = view_penalties(gaussians, visible.to(device), [0.2, 0.7], opacity_weight=0.3, scale_weight=0.6)
        (terms[0] + 2.0 * terms[1]).backward()
        results[device] = (
            torch.stack(terms).detach().cpu(),
            gaussians.opacity_logits.grad.cpu(),
            gaussians.log_scales.grad.cpu(),
        )
    for ours, expected in zip(results["cuda"], results["cpu"], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)
