"""The training loop a user writes on gsplat and torch, to measure ours against: same first points, cap and test views.

    python benchmarks/train_gsplat.py --scene dtu_scan24 --resolution 800 600 --steps 5000 --max-gaussians 300000

gsplat's rasterizer and MCMC strategy, torch's fused Adam, a convolution SSIM, all pictures kept on the device. Masks
that outline an object are used as one does with such photos: pictures are put on a random colour, and so is the
rendering. Moving Gaussians are cut at the picture's time by torch, with the formulas of `docs/mathematics.md`.

Prints one JSON line: seconds of training (loading pictures included, first points not), steps a second, held-out PSNR
and SSIM by our evaluation, peak memory. Needs a CUDA device and `pip install kinosplat[gsplat]`.
`benchmarks/training.py` runs it beside ours.
"""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from kinosplat.render.gaussians import Gaussians
from kinosplat.scenes import FrameLoader, LoadOptions, PointCloud, Scene, first_points, load_scene

MOTION = ("displacements", "time_centres", "log_durations")
"""Parameters that only moving Gaussians have."""
FIRST_DURATION = 0.75
"""Of the time between those at which there are first points, as ours (TimeConfig)."""


@dataclass(frozen=True)
class Options:
    """What to train."""

    scene: str
    """Path or name of the scene."""
    resolution: tuple[int, int] | None = None
    """Width and height of the pictures."""
    steps: int = 5000
    """Optimisation steps, one picture each."""
    max_gaussians: int = 300_000
    """Cap of the MCMC strategy."""
    n_first_points: int = 300_000
    """First Gaussians."""
    seed: int = 0
    """Seed of the order of pictures and of the first points."""


@dataclass(frozen=True)
class Trained:
    """What the loop made."""

    gaussians: Gaussians
    """On the device."""
    seconds: float
    """Of training, loading pictures included."""
    loading_seconds: float
    """Of these, loading pictures."""
    peak_mib: float
    """Of the device's memory."""


def main(options: Options) -> None:
    """Train, measure, print."""
    from training import evaluate_set

    scene = load_scene(options.scene, LoadOptions(resolution=options.resolution))
    points, _ = first_points(scene, options.n_first_points, seed=options.seed, device="cuda")
    trained = train(scene, points, options)
    evaluation = evaluate_set(trained.gaussians, scene, rasterizer="gsplat")
    result = {
        **dataclasses.asdict(options),
        "seconds": trained.seconds,
        "steps_per_second": options.steps / trained.seconds,
        "psnr": evaluation.psnr,
        "ssim": evaluation.ssim,
        "n_gaussians": len(trained.gaussians),
        "peak_mib": trained.peak_mib,
        "device": torch.cuda.get_device_name(),
    }
    print(json.dumps(result))


def train(scene: Scene, points: PointCloud, options: Options) -> Trained:
    """The loop."""
    from gsplat import rasterization
    from gsplat.strategy import MCMCStrategy

    torch.manual_seed(options.seed)
    device = torch.device("cuda")
    params, optimizers = initial_parameters(scene, points, device)
    strategy = MCMCStrategy(cap_max=options.max_gaussians, refine_stop_iter=int(options.steps * 0.8))
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    start = time.perf_counter()
    targets, masks, world_to_camera, K = pictures(scene, device)
    torch.cuda.synchronize()
    loading_seconds = time.perf_counter() - start
    height, width = targets.shape[1:3]
    window = gaussian_window(device)
    decay = 0.01 ** (1 / options.steps)
    order = torch.cat([torch.randperm(len(targets)) for _ in range(options.steps // len(targets) + 1)]).tolist()
    for step in range(options.steps):
        i = order[step]
        target, background = targets[i : i + 1].float() / 255, None
        if masks is not None:
            mask, background = masks[i : i + 1, ..., None].float() / 255, torch.rand(1, 3, device=device)
            target = target * mask + background * (1 - mask)
        means, opacities = at_time(params, scene.train[i].camera.time)
        colors, _, info = rasterization(
            means,
            params["quats"],
            params["scales"].exp(),
            opacities,
            torch.cat([params["sh0"], params["shN"]], 1),
            world_to_camera[i : i + 1],
            K[i : i + 1],
            width,
            height,
            sh_degree=min(3, int(step / (0.06 * options.steps))),
            packed=False,
            backgrounds=background,
        )
        loss = 0.8 * F.l1_loss(colors, target) + 0.2 * (1 - conv_ssim(colors, target, window))
        loss = loss + 0.01 * params["opacities"].sigmoid().mean() + 0.01 * params["scales"].exp().mean() / scene.radius
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        means_lr = optimizers["means"].param_groups[0]["lr"] * decay
        optimizers["means"].param_groups[0]["lr"] = means_lr
        strategy.step_post_backward(params, optimizers, state, step, info, lr=means_lr)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    motion = {name: params[name].detach() for name in MOTION if name in params}
    gaussians = Gaussians(
        **motion,
        means=params["means"].detach(),
        quats=params["quats"].detach(),
        log_scales=params["scales"].detach(),
        opacity_logits=params["opacities"].detach(),
        sh_dc=params["sh0"].detach()[:, 0].contiguous(),
        sh_rest=params["shN"].detach(),
    )
    return Trained(gaussians, seconds, loading_seconds, torch.cuda.max_memory_allocated() / 2**20)


def at_time(params: dict[str, torch.nn.Parameter], time: float | None) -> tuple[Tensor, Tensor]:
    """Means (N, 3) and opacities (N,) at `time` in seconds, None where nothing moves."""
    means, opacities = params["means"], params["opacities"].sigmoid()
    if time is None:
        return means, opacities
    phase = (time - params["time_centres"]) * torch.exp(-params["log_durations"])
    return means + params["displacements"] * phase[:, None], opacities * torch.exp(-0.5 * phase**2)


def initial_parameters(
    scene: Scene, points: PointCloud, device: torch.device
) -> tuple[dict[str, torch.nn.Parameter], dict[str, torch.optim.Optimizer]]:
    """Parameters from the same first points as ours, each with torch's fused Adam at the usual learning rates."""
    positions = points.positions.to(device)
    n = len(positions)
    nearest = torch.cat(
        [torch.cdist(block, positions).topk(4, largest=False)[0][:, 1:] for block in positions.split(2048)]
    )
    params = {
        "means": positions,
        "quats": F.normalize(torch.randn(n, 4, device=device), dim=1),
        "scales": nearest.square().mean(1).sqrt().clamp_min(1e-6).log()[:, None].repeat(1, 3),
        "opacities": torch.full((n,), 0.1, device=device).logit(),
        "sh0": ((points.colors.to(device).float() / 255 - 0.5) / 0.28209479177387814)[:, None],
        "shN": torch.zeros(n, 15, 3, device=device),
    }
    rates = {
        "means": 1.6e-4 * scene.radius,
        "quats": 1e-3,
        "scales": 5e-3,
        "opacities": 5e-2,
        "sh0": 2.5e-3,
        "shN": 2.5e-3 / 20,
    }
    if scene.is_moving:
        assert points.times is not None
        length = scene.times[-1] - scene.times[0]
        params |= {
            "displacements": torch.zeros(n, 3, device=device),
            "time_centres": points.times.to(device),
            "log_durations": torch.full(
                (n,), FIRST_DURATION * length / len(points.times.unique()), device=device
            ).log(),
        }
        rates |= {
            "displacements": rates["means"],
            "time_centres": 4e-4 * length,
            "log_durations": 3e-3,
        }
    parameters = {name: torch.nn.Parameter(value) for name, value in params.items()}
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.Adam([{"params": value, "lr": rates[name], "name": name}], eps=1e-15, fused=True)
        for name, value in parameters.items()
    }
    return parameters, optimizers


def pictures(scene: Scene, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """All training pictures on the device: (V, H, W, 3) uint8, (V, H, W) masks where they outline the object,
    world_to_camera (V, 4, 4), K (V, 3, 3).
    """
    images, masks = [], []
    n = len(scene.train)
    with FrameLoader(scene.train, n_workers=8, device=device) as loader:
        for i in range(n):
            loader.prefetch(range(i, min(i + 16, n)))
            frame = loader.get(i)
            images.append((frame.image * 255).round().to(torch.uint8))
            if scene.masks_cut_out and frame.mask is not None:
                masks.append((frame.mask * 255).round().to(torch.uint8))
    cameras = [view.camera.to(device, torch.float32) for view in scene.train]
    return (
        torch.stack(images),
        torch.stack(masks) if len(masks) == n else None,
        torch.stack([camera.world_to_camera for camera in cameras]),
        torch.stack([camera.K for camera in cameras]),
    )


def gaussian_window(device: torch.device) -> Tensor:
    """(3, 1, 11, 11) SSIM window, sigma 1.5, for a depthwise convolution."""
    line = torch.exp(-((torch.arange(11, device=device) - 5.0) ** 2) / (2 * 1.5**2))
    line = line / line.sum()
    return (line[:, None] * line)[None, None].repeat(3, 1, 1, 1)


def conv_ssim(a: Tensor, b: Tensor, window: Tensor) -> Tensor:
    """Mean SSIM of (1, H, W, 3) pictures as users write it, with five depthwise convolutions."""
    a, b = a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x, window, padding=5, groups=3)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    values = ((2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)) / (
        (mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)
    )
    return values.mean()


if __name__ == "__main__":
    main(tyro.cli(Options))
