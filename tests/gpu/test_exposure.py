"""Colours as cameras show them, and their gradients, are on the GPU what they are on the CPU."""

from __future__ import annotations

import pytest
import torch

from kinosplat.render.exposure import Sensor, expose

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("with_exposures", [False, True])
@pytest.mark.parametrize("with_target", [False, True])
# Less than a block's pixels, and several blocks with a rest.
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (121, 200)])
def test_values_and_gradients_are_those_of_the_cpu(
    with_exposures: bool, with_target: bool, height: int, width: int
) -> None:
    draws = torch.Generator().manual_seed(height)
    rgb, pictures = (1.5 * torch.rand(3, height, width, 3, generator=draws) for _ in range(2))
    maps = torch.eye(3, 4) + 0.2 * torch.randn(3, 3, 4, generator=draws)
    dL_dshown = torch.randn(rgb.shape, generator=draws)
    results = {}
    for device in ("cpu", "cuda"):
        colors, exposures = rgb.to(device, copy=True).requires_grad_(), maps.to(device, copy=True).requires_grad_()
        sensor = Sensor(exposures if with_exposures else None, pictures.to(device) if with_target else None, 0.9)
        shown = expose(colors, sensor)
        shown.backward(dL_dshown.to(device))
        results[device] = [
            tensor.detach().cpu() for tensor in (shown, colors.grad, exposures.grad) if tensor is not None
        ]
    # A colour that is cut off on one side only would differ by more.
    for ours, expected in zip(results["cuda"], results["cpu"], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
