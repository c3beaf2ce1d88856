"""gsplat draws the same pictures, hands back the same gradients, and can train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trainers.toys import tiny_config, with_options, write_toy

from kinosplat.render import RasterSettings, rasterize
from kinosplat.trainers.methods.config import ThreeDGS
from kinosplat.trainers.recorder import read_metrics
from kinosplat.trainers.run import train

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
    # Where next to nothing is drawn, the mean of its depths is of few numbers.
    seen = ours.alpha > 0.05
    assert seen.float().mean() > 0.2
    assert relative_error(ours.depth[seen], theirs.depth[seen]) < 1e-3
    for name, gradient in their_gradients.items():
        assert relative_error(our_gradients[name], gradient) < 1e-3, name


@pytest.mark.parametrize("densify", ["mcmc", "classic"])
def test_gsplat_takes_the_training_steps_of_our_rasterizer(densify: str, tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "scene", n_train=4, n_test=1)
    curves = {}
    for rasterizer in ("native", "gsplat"):
        config = replace(tiny_config(ThreeDGS(densify=densify), toy, steps=8), device="cuda")
        config = replace(config, method=with_options(config.method, rasterizer=rasterizer))
        report = train(config, toy.scene(), tmp_path / rasterizer)
        assert report.n_dropped_gradients == 0
        lines = read_metrics(tmp_path / rasterizer / "metrics.jsonl")
        curves[rasterizer] = [line["loss"] for line in lines if line["kind"] == "train"]
    assert curves["gsplat"][0] == pytest.approx(curves["native"][0], rel=1e-3)
    # Adam of the first steps goes by signs of gradients, which may differ where they are next to nothing.
    assert curves["gsplat"] == pytest.approx(curves["native"], rel=0.1)
