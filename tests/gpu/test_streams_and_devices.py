"""Loss, Adam, MCMC and fields work on the stream that is current and on the device that their tensors are on, as
test_frames.py has it of whole frames.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from trainers.test_field_step import SPACES, field_of

from kinosplat.render.adam import adam_step
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.losses import compare
from kinosplat.render.mcmc import shake, view_penalties

from .test_loss_and_adam import pictures
from .test_mcmc import cloud

pytestmark = pytest.mark.gpu

Tensors = dict[str, Tensor]
Work = Callable[[Tensors], Tensors]
CYCLES = 50_000_000
"""Some hundredths of a second, in which work on another stream would be done long since."""


def loss(inputs: Tensors) -> Tensors:
    compared = compare(inputs["rendered"], inputs["target"], mask=None, ssim_weight=0.2)
    assert compared.dL_drendered is not None
    return {"loss": compared.loss, "error": compared.squared_error, "gradient": compared.dL_drendered}


def adam(inputs: Tensors) -> Tensors:
    moments = inputs["exp_avg"], inputs["exp_avg_sq"]
    adam_step(inputs["parameter"], inputs["gradient"], *moments, lr=0.01, betas=(0.9, 0.999), eps=1e-15, step=3)
    return inputs


def mcmc(inputs: Tensors) -> Tensors:
    gaussians = Gaussians(**inputs)
    visible = gaussians.opacity_logits > -3.0
    opacity, scale = view_penalties(gaussians, visible, [0.2, 0.7], opacity_weight=0.3, scale_weight=0.6)
    shake(gaussians, 0.5, key=11)
    return {"opacity": opacity, "scale": scale, "means": gaussians.means}


def field(inputs: Tensors) -> Tensors:
    shape = field_of(SPACES["bounded"], False, torch.float32)
    leaves = {name: inputs[name].detach().requires_grad_() for name in shape.parameters()}
    learned = shape.with_parameters(leaves)
    density, outputs = learned.density(inputs["positions"])
    colour = learned.colour(outputs, inputs["directions"])
    (density.mean() + colour.sum()).backward()
    return {"density": density.detach(), "colour": colour.detach()} | {
        name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None
    }


def case(name: str) -> tuple[Tensors, Work]:
    """Inputs on the CPU, and what is done with them."""
    draws = torch.Generator().manual_seed(0)
    if name == "loss":
        rendered, target = pictures(2, 121, 200)
        return {"rendered": rendered, "target": target}, loss
    if name == "adam":
        names = ("parameter", "gradient", "exp_avg", "exp_avg_sq")
        return {name: torch.rand(5003, 3, generator=draws) for name in names}, adam
    if name == "mcmc":
        return cloud(3001).parameters(), mcmc
    directions = torch.nn.functional.normalize(torch.randn(4096, 3, generator=draws), dim=1)
    parameters = field_of(SPACES["bounded"], False, torch.float32).parameters()
    inputs = {name: value.detach() for name, value in parameters.items()}
    return inputs | {"positions": torch.rand(4096, 3, generator=draws), "directions": directions}, field


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # Atomics add up in another order, and tables learn in 16 bits.
        tolerance = 1e-3 * float(value.abs().max())
        torch.testing.assert_close(found[name].cpu(), value.cpu(), rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("name", ["loss", "adam", "mcmc", "field"])
def test_work_goes_to_the_current_stream(name: str, cuda_device: torch.device) -> None:
    inputs, work = case(name)
    ready = {name: value.to(cuda_device) for name, value in inputs.items()}
    expected = work({name: value.clone() for name, value in ready.items()})
    torch.cuda.synchronize(cuda_device)
    stream = torch.cuda.Stream(cuda_device)
    with torch.cuda.stream(stream):
        late = {name: torch.zeros_like(value) for name, value in ready.items()}
        torch.cuda._sleep(CYCLES)
        for name, value in ready.items():
            late[name].copy_(value)
        found = work(late)
    stream.synchronize()
    assert_same(found, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="This machine has one CUDA device.")
@pytest.mark.parametrize("name", ["loss", "adam", "mcmc", "field"])
def test_work_is_done_where_the_tensors_are(name: str) -> None:
    inputs, work = case(name)
    expected = work({name: value.to("cuda:0", copy=True) for name, value in inputs.items()})
    assert torch.cuda.current_device() == 0
    found = work({name: value.to("cuda:1") for name, value in inputs.items()})
    assert {value.device for value in found.values()} == {torch.device("cuda:1")}
    assert torch.cuda.current_device() == 0
    assert_same(found, expected)
