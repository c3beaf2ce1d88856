"""gsplat draws the same pictures and hands back the same gradients."""

from __future__ import annotations

import pytest
import torch

from kinosplat.render import RasterSettings, rasterize

from .test_frames import camera, cloud, relative_error

pytestmark = pytest.mark.gpu
pytest.importorskip("gsplat", reason="gsplat is not installed.")


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("antialiased", [False, True])
def test_gsplat_agrees(moving: bool, antialiased: bool) -> None:
    gaussians = cloud(20_000, moving=moving)
    view = camera(320, 240, time=0.4 if moving else None)
    weights = torch.randn(1, 240, 320, 3, device="cuda")
    results = {}
    for rasterizer in ("native", "gsplat"):
        leaves = gaussians.map(lambda t: t.clone().requires_grad_())
        settings = RasterSettings(rasterizer=rasterizer, antialiased=antialiased, depth=True, normal=True)
        output = rasterize(leaves, [view], settings=settings, background=torch.tensor([0.2, 0.4, 0.6], device="cuda"))
        (output.rgb * weights).sum().backward()
        results[rasterizer] = output, {name: leaf.grad for name, leaf in leaves.parameters().items()}
    (ours, our_gradients), (theirs, their_gradients) = results["native"], results["gsplat"]
    for name in ("rgb", "alpha", "normal"):
        assert -10 * torch.log10((getattr(ours, name) - getattr(theirs, name)).square().mean()) > 50, name
    for name, gradient in their_gradients.items():
        assert relative_error(our_gradients[name], gradient) < 1e-3, name
