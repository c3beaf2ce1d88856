"""What benchmarks/rasterizer.py times: a forward pass, forward and backward, and a training step, on kinosplat and on
gsplat as its users write it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kinosplat.render.adam import AdamTensor, RowAdam
from kinosplat.render.camera import Camera
from kinosplat.render.drawing import GaussianSet, draw
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.losses import compare
from kinosplat.render.rasterize import rasterize
from kinosplat.render.settings import RasterSettings

LEARNING_RATE = 1e-4
SSIM_WEIGHT = 0.2


class Ours:
    """Everything that is timed, on kinosplat."""

    name = "kinosplat"

    def __init__(self, gaussians: Gaussians, camera: Camera, target: Tensor) -> None:
        self.gaussians, self.camera, self.target = gaussians, camera, target
        self.leaves = gaussians.map(lambda tensor: tensor.clone().requires_grad_())
        self.visible = torch.empty(len(gaussians), dtype=torch.bool, device=gaussians.device)
        self.adam: RowAdam | None = None
        self.drawn: Gaussians | None = None

    def forward(self) -> Tensor:
        with torch.no_grad():
            return rasterize(self.gaussians, [self.camera]).rgb

    def forward_for_drawing(self) -> Tensor:
        if self.drawn is None:
            self.drawn = self.gaussians.for_drawing()
        with torch.no_grad():
            return rasterize(self.drawn, [self.camera]).rgb

    def drop_gradients(self) -> None:
        for leaf in self.leaves.parameters().values():
            leaf.grad = None

    def forward_backward(self) -> dict[str, Tensor]:
        self.drop_gradients()
        rgb = rasterize(self.leaves, [self.camera]).rgb
        rgb.backward(self.target)
        return {name: leaf.grad for name, leaf in self.leaves.parameters().items() if leaf.grad is not None}

    def step(self) -> None:
        """As a training run takes it, but of all Gaussians, also those out of view."""
        if self.adam is None:
            parameters = self.leaves.parameters().values()
            self.adam = RowAdam([AdamTensor(p, torch.zeros_like(p), torch.zeros_like(p)) for p in parameters])
        self.drop_gradients()
        drawing = draw(
            GaussianSet(self.leaves),
            [self.camera],
            background=torch.zeros(3, device=self.target.device),
            settings=RasterSettings(),
            statistics=None,
            visible=self.visible,
        )
        compared = compare(drawing.rgb, self.target, mask=None, ssim_weight=SSIM_WEIGHT)
        assert compared.dL_drendered is not None
        gradients = list(drawing.gradients(compared.dL_drendered, None).gaussians.values())
        self.adam.step(gradients, [LEARNING_RATE] * len(gradients), step=10)

    def release(self) -> None:
        self.adam, self.drawn = None, None


class Gsplat:
    """The same on gsplat, as its users write it.

    Opacities and scales come activated and colours joined, but for the training step; a moving set is sliced and
    activated every time.
    """

    name = "gsplat"

    def __init__(self, gaussians: Gaussians, camera: Camera, target: Tensor) -> None:
        self.gaussians, self.camera, self.target = gaussians, camera, target
        self.window: Tensor | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.leaves = gaussians.map(lambda tensor: tensor.clone().requires_grad_())
        self.activated = None
        if not gaussians.is_moving:
            self.activated = [t.detach().requires_grad_() for t in self.activate(gaussians)]

    def activate(self, g: Gaussians) -> tuple[Tensor, ...]:
        if g.is_moving:
            assert self.camera.time is not None
            g = g.at(self.camera.time)
        return (
            g.means,
            g.quats,
            g.log_scales.exp(),
            g.opacity_logits.sigmoid(),
            torch.cat([g.sh_dc[:, None], g.sh_rest], 1),
        )

    def render(self, activated: Any) -> Tensor:
        from gsplat import rasterization

        means, quats, scales, opacities, colours = activated
        picture, _, _ = rasterization(
            means,
            quats,
            scales,
            opacities,
            colours,
            self.camera.world_to_camera[None],
            self.camera.K[None],
            self.camera.width,
            self.camera.height,
            sh_degree=self.gaussians.sh_degree,
            packed=False,
        )
        return picture

    def forward(self) -> Tensor:
        with torch.no_grad():
            if self.activated is None:
                return self.render(self.activate(self.gaussians))
            return self.render([t.detach() for t in self.activated])

    def drop_gradients(self) -> None:
        for tensor in [*(self.activated or ()), *self.leaves.parameters().values()]:
            tensor.grad = None

    def forward_backward(self) -> dict[str, Tensor]:
        self.drop_gradients()
        activated = self.activate(self.leaves) if self.activated is None else self.activated
        self.render(activated).backward(self.target)
        return {}

    def gradients(self) -> dict[str, Tensor]:
        self.drop_gradients()
        self.render(self.activate(self.leaves)).backward(self.target)
        return {name: leaf.grad for name, leaf in self.leaves.parameters().items() if leaf.grad is not None}

    def step(self) -> None:
        if self.optimizer is None:
            self.optimizer = torch.optim.Adam(
                list(self.leaves.parameters().values()), lr=LEARNING_RATE, eps=1e-15, fused=True
            )
            self.window = gaussian_window(self.target.device)
        picture = self.render(self.activate(self.leaves))
        assert self.window is not None
        loss = 0.8 * F.l1_loss(picture, self.target) + 0.2 * (1 - conv_ssim(picture, self.target, self.window))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def release(self) -> None:
        self.optimizer = None


def gaussian_window(device: torch.device) -> Tensor:
    """(3, 1, 11, 11) window of SSIM."""
    x = torch.arange(11, device=device) - 5.0
    line = torch.exp(-x.square() / (2 * 1.5**2))
    line = line / line.sum()
    return (line[:, None] * line).expand(3, 1, 11, 11).contiguous()


def conv_ssim(a: Tensor, b: Tensor, window: Tensor) -> Tensor:
    """Mean SSIM of (C, H, W, 3) pictures by five convolutions, as in the INRIA code."""
    a, b = a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x, window, padding=5, groups=3)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a.square(), blur(b * b) - mean_b.square()
    cov = blur(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + 0.01**2) * (2 * cov + 0.03**2)
    return (top / ((mean_a.square() + mean_b.square() + 0.01**2) * (var_a + var_b + 0.03**2))).mean()
