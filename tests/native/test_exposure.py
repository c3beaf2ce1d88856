"""Colours as cameras show them are what the formula says, written in torch; so are the gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kinosplat.render.exposure import Sensor, expose, gradients_through, shown_by

SATURATED = 0.9


def shown_by_formula(rgb: Tensor, exposures: Tensor | None, target: Tensor | None) -> Tensor:
    if exposures is not None:
        rgb = torch.einsum("cij,chwj->chwi", exposures[:, :, :3], rgb) + exposures[:, None, None, :, 3]
    return rgb if target is None else torch.where((target >= SATURATED) & (rgb > 1.0), 1.0, rgb)


def scene(n: int, height: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Colours of which some are beyond 1, exposures, and targets of which some are saturated."""
    draws = torch.Generator().manual_seed(height)
    rgb = 1.5 * torch.rand(n, height, width, 3, generator=draws, dtype=torch.float64)
    target = torch.rand(n, height, width, 3, generator=draws, dtype=torch.float64).mul(1.5).clamp_max(1.0)
    exposures = torch.eye(3, 4, dtype=torch.float64) + 0.2 * torch.randn(n, 3, 4, generator=draws, dtype=torch.float64)
    return rgb.to(dtype), exposures.to(dtype), target.to(dtype)


@pytest.mark.parametrize("with_exposures", [False, True])
@pytest.mark.parametrize("with_target", [False, True])
def test_values_and_gradients_are_those_of_the_formula(with_exposures: bool, with_target: bool) -> None:
    rgb, maps, pictures = scene(2, 95, 121, torch.float64)  # several runs of pixels
    exposures, target = maps if with_exposures else None, pictures if with_target else None
    leaves = [tensor.requires_grad_() for tensor in (rgb, exposures) if tensor is not None]
    expected, shown = shown_by_formula(rgb, exposures, target), expose(rgb, Sensor(exposures, target, SATURATED))
    torch.testing.assert_close(shown, expected, rtol=1e-14, atol=1e-14)
    dL_dshown = torch.randn(rgb.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # Sums over 11 495 pixels; measured 1e-13 of the largest.
    for gradient, reference in zip(
        torch.autograd.grad(shown, leaves, dL_dshown, allow_unused=True),
        torch.autograd.grad(expected, leaves, dL_dshown, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(gradient, reference, rtol=1e-11, atol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    rgb, exposures, target = scene(2, 3, 4, torch.float64)
    assert torch.autograd.gradcheck(
        lambda colors, maps: expose(colors, Sensor(maps, target, SATURATED)),
        (rgb.requires_grad_(), exposures.requires_grad_()),
    )


def test_without_a_history_the_numbers_are_the_same() -> None:
    rgb, exposures, target = scene(1, 20, 30, torch.float32)
    sensor = Sensor(exposures.requires_grad_(), target, SATURATED)
    shown = expose(rgb.requires_grad_(), sensor)
    dL_dshown = torch.ones_like(rgb)
    shown.backward(dL_dshown)
    with torch.no_grad():
        assert shown_by(sensor, rgb).equal(shown)
        dL_drgb, dL_dexposures = gradients_through(sensor, rgb, dL_dshown)
    assert dL_dexposures is not None
    assert dL_drgb.equal(rgb.grad)
    assert dL_dexposures.equal(exposures.grad)


def test_a_plain_sensor_shows_colours_as_they_are() -> None:
    rgb = torch.rand(1, 2, 2, 3)
    assert expose(rgb, Sensor()) is rgb


def test_what_does_not_belong_to_the_pictures_is_named() -> None:
    rgb = torch.zeros(2, 4, 5, 3)
    with pytest.raises(ValueError, match=r"^rgb must have shape \(C, H, W, 3\), got \(4, 5, 3\)\.$"):
        expose(rgb[0], Sensor())
    with pytest.raises(ValueError, match=r"^exposures must have shape \(2, 3, 4\), got \(1, 3, 4\)\.$"):
        expose(rgb, Sensor(torch.zeros(1, 3, 4)))
    with pytest.raises(ValueError, match=r"^target must have shape \(2, 4, 5, 3\), got \(2, 4, 5\)\.$"):
        expose(rgb, Sensor(target=rgb[..., 0]))
