"""A step of Gaussians by the native passes one by one is the step that torch's autograd would do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kinosplat.render import rasterize
from kinosplat.render.gaussians import Gaussians
from kinosplat.trainers.batch import Batch
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.config import ImageConfig
from kinosplat.trainers.losses import image_loss
from kinosplat.trainers.method import Losses
from kinosplat.trainers.methods.config import FourDGS, GaussianConfig, GaussianRates, ThreeDGS
from kinosplat.trainers.methods.gaussians import GaussianMethod

from .toys import HEIGHT, WIDTH, blobs, ring

MOMENT = Moment(0, 0.5, 0.51)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class Learned:
    """What may be learned beside the Gaussians, as leaves, and a batch of pictures that depends on them."""

    def __init__(
        self, n_cameras: int, time: float | None, with_mask: bool, with_alpha: bool, device: str = "cpu"
    ) -> None:
        draws = torch.Generator().manual_seed(1)
        shape = (n_cameras, HEIGHT, WIDTH)
        self.cameras = [camera.to(device) for camera in ring(n_cameras, time=time)]
        self.exposures = (0.1 * torch.randn(n_cameras, 3, 4, generator=draws)).to(device).requires_grad_()
        self.background = torch.rand(3, generator=draws).to(device).requires_grad_()
        self.shifts = torch.zeros(n_cameras, 4, 4, device=device).requires_grad_()
        self.target = torch.rand(*shape, 3, generator=draws).mul(1.3).clamp_max(1.0).to(device)
        self.mask = torch.rand(shape, generator=draws).to(device) if with_mask else None
        self.alpha = torch.rand(shape, generator=draws).to(device) if with_alpha else None

    def batch(self) -> Batch:
        cameras = tuple(
            replace(camera, world_to_camera=camera.world_to_camera + shift)
            for camera, shift in zip(self.cameras, self.shifts, strict=True)
        )
        exposures = torch.eye(3, 4, device=self.exposures.device) + self.exposures
        return Batch(cameras, self.target, self.background * 1.0, self.mask, self.alpha, exposures)

    def gradients(self, method: GaussianMethod) -> dict[str, Tensor]:
        """Of the Gaussians and of these, after a backward pass; they are taken away."""
        leaves = {group.name: group.parameter for group in method.groups()}
        leaves |= {"exposures": self.exposures, "background": self.background, "shifts": self.shifts}
        found = {name: leaf.grad for name, leaf in leaves.items()}
        for leaf in leaves.values():
            leaf.grad = None
        assert all(gradient is not None for gradient in found.values())
        return {name: gradient for name, gradient in found.items() if gradient is not None}


def method_of(image: ImageConfig, moving: bool, device: str = "cpu") -> GaussianMethod:
    draws, clip = torch.Generator().manual_seed(2), None
    gaussians = blobs()
    gaussians = replace(
        gaussians,
        log_scales=gaussians.log_scales + 0.5 * torch.randn(40, 3, generator=draws),
        sh_rest=0.1 * torch.randn(40, 3, 3, generator=draws),
    )
    options, rates = GaussianConfig(max_gaussians=100, near=0.1, sh_warm_up=0.0), GaussianRates(rates_end=0.01)
    config: ThreeDGS | FourDGS = ThreeDGS(gaussians=options, rates=rates)
    if moving:
        n, clip = len(gaussians), (0.0, 1.0)
        gaussians = Gaussians(
            **gaussians.parameters(),
            displacements=0.1 * torch.randn(n, 3, generator=draws),
            time_centres=torch.rand(n, generator=draws),
            log_durations=torch.full((n,), -0.5),
        )
        config = FourDGS(gaussians=options, rates=rates)
    return GaussianMethod(config, image, gaussians.to(device), radius=1.0, clip=clip, seed=0)


def torchs_own(method: GaussianMethod, batch: Batch) -> Losses:
    visible = torch.empty(len(method.rows), dtype=torch.bool, device=method.rows.device)
    output = rasterize(
        method.rows.gaussians(),
        batch.cameras,
        background=batch.background,
        settings=method.settings,
        visible=visible,
    )
    terms, squared_error = image_loss(output, batch, method.image)
    return Losses(terms | method.strategy.penalties(method.rows, visible, batch.cameras), squared_error)


def check_step(method: GaussianMethod, learned: Learned) -> None:
    """Terms and gradients of the next step are those of autograd."""
    expected = torchs_own(method, learned.batch())
    expected.backward()
    expected_gradients = learned.gradients(method)
    losses = method.loss(learned.batch(), MOMENT)
    losses.backward()
    gradients = learned.gradients(method)
    assert losses.terms.keys() == expected.terms.keys()
    on_cpu = method.rows.device.type == "cpu"
    for name, term in {**expected.terms, "error": expected.squared_error}.items():
        found = losses.squared_error if name == "error" else losses.terms[name]
        torch.testing.assert_close(found, term.detach(), rtol=0 if on_cpu else 1e-5, atol=0)
    # The same passes in the same order, on the CPU to the last bit, but that penalties are added where they are worked
    # out, which rounds once less: of the largest gradient, measured 8e-8. On a GPU atomics add up in any order.
    for name, gradient in expected_gradients.items():
        share = 4e-7 if name in ("opacity_logits", "log_scales") else 0.0
        tolerance = (share if on_cpu else 1e-4) * gradient.abs().max().item()
        torch.testing.assert_close(gradients[name], gradient, rtol=0, atol=tolerance)
        assert (gradient != 0).any(), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize(
    ("n_cameras", "with_mask", "with_alpha"), [(1, False, False), (1, True, True), (2, True, True)]
)
def test_terms_and_gradients_are_those_of_autograd(
    moving: bool, n_cameras: int, with_mask: bool, with_alpha: bool, device: str
) -> None:
    learned = Learned(n_cameras, 0.4 if moving else None, with_mask, with_alpha, device)
    check_step(method_of(ImageConfig(saturation=True), moving, device), learned)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("moving", [False, True])
def test_rows_that_come_and_go_between_steps_are_drawn_where_they_are_now(moving: bool, device: str) -> None:
    """What a step knows of the tensors from the one before must not outlive them."""
    learned = Learned(1, 0.4 if moving else None, True, True, device)
    method = method_of(ImageConfig(saturation=True), moving, device)
    check_step(method, learned)
    more = method.rows.gaussians().detach().map(lambda tensor: tensor[:25].clone())
    method.rows.append(replace(more, means=more.means + 0.3))
    check_step(method, learned)
    method.rows.keep(torch.arange(60, 5, -1, device=device))
    check_step(method, learned)
    assert len(method.rows) == 55
    index = torch.arange(10, device=device)
    method.rows.assign(index, {"means": method.rows["means"].detach()[index] + 0.2})
    check_step(method, learned)


def test_a_rasterizer_that_only_torch_can_differentiate_takes_the_same_step() -> None:
    learned, image = Learned(1, 0.4, with_mask=True, with_alpha=True), ImageConfig(saturation=True)
    by_hand = method_of(image, moving=True)
    by_torch = method_of(image, moving=True)
    by_torch.config = replace(by_torch.config, gaussians=replace(by_torch.config.gaussians, rasterizer="reference"))
    gradients = []
    for method in (by_hand, by_torch):
        method.loss(learned.batch(), MOMENT).backward()
        gradients.append(learned.gradients(method))
    # Two float32 renderings; of the largest gradient, measured 9e-7.
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=0, atol=1e-5 * gradient.abs().max().item())


def test_no_history_is_built_for_gaussians() -> None:
    learned = Learned(1, None, with_mask=True, with_alpha=True)
    losses = method_of(ImageConfig(saturation=True), moving=False).loss(learned.batch(), MOMENT)
    assert not any(term.requires_grad for term in losses.terms.values())


def test_what_only_torch_can_differentiate_comes_on_top() -> None:
    leaf = torch.ones(3).requires_grad_()
    inner = 2.0 * leaf
    known, torchs = torch.tensor(1.0), (5.0 * leaf).sum()
    Losses(
        {"known": known, "torchs": torchs}, known, [(leaf, torch.full((3,), 7.0)), (inner, torch.ones(3))]
    ).backward()
    assert leaf.grad.tolist() == [7.0 + 2.0 + 5.0] * 3
