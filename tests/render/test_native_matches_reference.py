"""The native backends draw what the plain-torch reference defines, and hand back its gradients, on every corner scene.

The reference always runs in float64 on the CPU, on exactly the numbers that the backend was given.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kinosplat.render.output import RenderOutput
from kinosplat.render.rasterize import rasterize
from kinosplat.render.settings import RasterSettings
from kinosplat.render.statistics import GaussianStatistics
from render.scenes import SCENES, HandMadeScene, leaves

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
SMOOTH = ("rgb", "alpha", "depth", "normal", "features")
# Absolute, for colours and weights of about 1; measured on the CPU at most 2.3e-15 and 6e-7.
VALUE_TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-6}
# Of depths up to 5, divided by an alpha that may be as small as 1/255; measured at most 7e-14 and 2.4e-5.
DEPTH_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}
# Of the largest entry of the same tensor; measured at most 2.3e-13 and 1.1e-4 (the compensation of Mip-Splatting).
GRADIENT_TOLERANCE = {torch.float64: 5e-12, torch.float32: 5e-4}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device")
    return request.param


def render(
    scene: HandMadeScene, rasterizer: str, statistics: GaussianStatistics | None = None, **settings: bool | int
) -> RenderOutput:
    return rasterize(
        scene.gaussians,
        scene.cameras,
        background=scene.background,
        features=scene.features,
        settings=RasterSettings(
            rasterizer=rasterizer,  # type: ignore[arg-type]
            antialiased=scene.antialiased,
            depth=True,
            median_depth=True,
            normal=True,
            **settings,
        ),
        statistics=statistics,
    )


def loss_of(output: RenderOutput) -> Tensor:
    """A weighted sum of all outputs, with weights that are the same for every backend."""
    generator = torch.Generator().manual_seed(0)
    total = output.rgb.new_zeros(())
    for name in SMOOTH:
        value = getattr(output, name)
        weights = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        total = total + (value * weights.to(value)).sum()
    return total


def gradients_of(scene: HandMadeScene, rasterizer: str) -> dict[str, Tensor]:
    scene, inputs = leaves(scene)
    loss_of(render(scene, rasterizer)).backward()
    return {
        name: (torch.zeros_like(tensor) if tensor.grad is None else tensor.grad).double().cpu()
        for name, tensor in inputs.items()
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SCENES)
def test_pictures_agree(name: str, dtype: torch.dtype, device: str) -> None:
    if device == "cuda" and dtype == torch.float64:
        pytest.skip("the CUDA backend renders float32 only")
    scene = SCENES[name](dtype)
    native = render(scene.to(device, dtype), "native")
    expected = render(scene.to("cpu", torch.float64), "reference")
    for output in (*SMOOTH, "median_depth"):
        value = getattr(native, output)
        assert value.dtype == dtype
        error = (value.double().cpu() - getattr(expected, output)).abs().max().item()
        assert error < (DEPTH_TOLERANCE if "depth" in output else VALUE_TOLERANCE)[dtype], output


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SCENES)
def test_gradients_agree(name: str, dtype: torch.dtype, device: str) -> None:
    if device == "cuda" and dtype == torch.float64:
        pytest.skip("the CUDA backend renders float32 only")
    scene = SCENES[name](dtype)
    native = gradients_of(scene.to(device, dtype), "native")
    expected = gradients_of(scene.to("cpu", torch.float64), "reference")
    for input_name, gradient in expected.items():
        scale = max(gradient.abs().max().item(), 1e-3) if gradient.numel() else 1.0
        error = (native[input_name] - gradient).abs().amax().item() if gradient.numel() else 0.0
        assert error < GRADIENT_TOLERANCE[dtype] * scale, input_name


@pytest.mark.parametrize("name", SCENES)
def test_statistics_agree(name: str, device: str) -> None:
    scene = SCENES[name](torch.float32)
    n = len(scene.gaussians)
    collected = {}
    for rasterizer, where, dtype in (("native", device, torch.float32), ("reference", "cpu", torch.float64)):
        statistics = GaussianStatistics.zeros(n, where)
        output = render(leaves(scene.to(where, dtype))[0], rasterizer, statistics)
        loss_of(output).backward()
        collected[rasterizer] = {key: value.double().cpu() for key, value in vars(statistics).items()}
        assert output.n_visible == statistics.n_seen.sum()
    native, expected = collected["native"], collected["reference"]
    # A pixel may end a Gaussian earlier or later by rounding; measured at most 1 of 37 000.
    assert (native["n_pixels"] - expected["n_pixels"]).abs().sum() <= 1e-4 * expected["n_pixels"].sum()
    for key in ("blend_weight", "screen_gradient"):
        scale = max(expected[key].max().item(), 1.0) if n else 1.0
        assert ((native[key] - expected[key]).abs() < 1e-3 * scale).all(), key
    # The native backends look closer at who reaches a pixel, so at the border of the picture they may count fewer.
    assert (native["n_seen"] <= expected["n_seen"]).all()
    assert (native["n_seen"][expected["n_pixels"] > 0] > 0).all()
    seen_alike = native["n_seen"] == expected["n_seen"]
    torch.testing.assert_close(native["max_radius"][seen_alike], expected["max_radius"][seen_alike], rtol=1e-5, atol=0)
    assert (~seen_alike).sum() <= 2  # measured 2 of 60 (antialiased_set), 1 of 4 (opacity_at_the_clip_values), else 0


def test_a_static_set_is_the_same_at_every_time(device: str) -> None:
    scene = SCENES["still_set"](torch.float32).to(device, torch.float32)
    timed = replace(scene, cameras=tuple(camera.at(7.0) for camera in scene.cameras))
    assert (render(scene, "native").rgb == render(timed, "native").rgb).all()


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_a_lower_degree_of_spherical_harmonics_agrees(degree: int, device: str) -> None:
    scene = SCENES["still_set"](torch.float32)
    native = render(scene.to(device, torch.float32), "native", sh_degree=degree)
    expected = render(scene.to("cpu", torch.float64), "reference", sh_degree=degree)
    assert (native.rgb.double().cpu() - expected.rgb).abs().max() < VALUE_TOLERANCE[torch.float32]
