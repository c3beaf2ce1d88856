"""A made-up scene with pictures, a fine-tuning of a few lines, and its measurement: what the pipeline is given in
these tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from compression.gaussian_sets import random_gaussians
from kinosplat.compression.surroundings import Quality, Surroundings, Tunable, ViewBatch
from kinosplat.render import Camera, Gaussians, rasterize
from kinosplat.render.camera import look_at
from kinosplat.render.gaussians import concatenate
from kinosplat.render.losses import photometric_loss, psnr, ssim

WIDTH, HEIGHT, N_TRAIN, N_TEST = 80, 60, 16, 4


def toy_gaussians(n: int = 300, *, moving: bool = True) -> tuple[Gaussians, Gaussians]:
    """The truth, and what a run would have learned: the truth with noise, and as many Gaussians again that hardly
    matter.
    """
    truth = random_gaussians(n, sh_degree=1, moving=moving, n_still=n // 3 if moving else 0)
    truth = replace(truth, log_scales=truth.log_scales + 1.5, opacity_logits=truth.opacity_logits + 1.0)
    generator = torch.Generator().manual_seed(5)
    noisy = replace(truth, sh_dc=truth.sh_dc + 0.05 * torch.randn(n, 3, generator=generator))
    faint = random_gaussians(n, sh_degree=1, moving=moving, seed=9)
    faint = replace(faint, opacity_logits=torch.full((n,), -4.0), log_scales=faint.log_scales - 1.0)
    return truth, concatenate([noisy, faint])


def toy_surroundings(truth: Gaussians, device: str = "cpu") -> Surroundings:
    """Pictures of `truth` (on the CPU) with noise, from a ring of cameras at different times; nothing can look better
    than 30 dB. `device` is where they are given.
    """
    generator = torch.Generator().manual_seed(2)
    duration = 2.0 if truth.is_moving else 0.0
    K = torch.tensor([[80.0, 0, WIDTH / 2], [0, 80, HEIGHT / 2], [0, 0, 1]])

    def camera(i: int, n: int, height: float) -> Camera:
        angle = torch.tensor(2 * torch.pi * i / n)
        position = torch.stack([7 * torch.cos(angle), 7 * torch.sin(angle), torch.tensor(height)])
        view = look_at(position, torch.zeros(3), torch.tensor([0.0, 0, 1]), K=K, width=WIDTH, height=HEIGHT)
        return view.at(duration * ((7 * i) % n) / (n - 1) if truth.is_moving else None)

    def picture(cameras: tuple[Camera, ...]) -> torch.Tensor:
        with torch.no_grad():
            rgb = rasterize(truth, cameras).rgb
        return (rgb + 0.03 * torch.randn(rgb.shape, generator=generator)).clamp(0.0, 1.0)

    def taken(c: Camera) -> ViewBatch:
        return ViewBatch((c.to(device),), picture((c,)).to(device))

    train = [taken(c) for c in (camera(i, N_TRAIN, 1.0) for i in range(N_TRAIN))]
    test = [taken(c) for c in (camera(i, N_TEST, 2.0) for i in range(N_TEST))]

    def views(n: int | None) -> Iterator[ViewBatch]:
        chosen = torch.linspace(0, N_TRAIN - 1, min(n or N_TRAIN, N_TRAIN)).round().long()
        yield from (train[i] for i in chosen.tolist())

    def fine_tune(tunable: Tunable, steps: int) -> None:
        groups = [{"params": [leaf], "lr": tunable.rates[name]} for name, leaf in tunable.leaves.items()]
        optimizer = torch.optim.Adam(groups, eps=1e-15)
        for step in range(steps):
            view = train[(5 * step) % N_TRAIN]
            photometric_loss(rasterize(tunable.gaussians(), view.cameras).rgb, view.images).backward()
            optimizer.step()
            optimizer.zero_grad()

    def evaluate(gaussians: Gaussians) -> Quality:
        with torch.no_grad():
            pairs = [(rasterize(gaussians, view.cameras).rgb.clamp_max(1.0), view.images) for view in test]
        decibels = torch.stack([psnr(a, b) for a, b in pairs]).mean().item()
        return Quality(decibels, torch.stack([ssim(a, b) for a, b in pairs]).mean().item())

    return Surroundings(views, fine_tune, evaluate, torch.zeros(3, device=device), radius=4.0, duration=duration)
