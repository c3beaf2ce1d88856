"""What one may rely on when calling `rasterize`: the same to the bit, batches, channels, nothing kept for inference."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import pytest
import torch
from render.scenes import SCENES, HandMadeScene, leaves, random_gaussians, ring_cameras
from torch import Tensor

from kinosplat.render import (
    Gaussians,
    GaussianStatistics,
    RasterSettings,
    RenderOutput,
    native_cpu,
    rasterize,
    render_backends,
)
from kinosplat.render.pass_times import PassTimes

EVERYTHING = RasterSettings(depth=True, median_depth=True, normal=True)


@pytest.fixture
def many_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def render(scene: HandMadeScene, settings: RasterSettings = EVERYTHING, **arguments: Tensor) -> RenderOutput:
    given = {"background": scene.background, "features": scene.features, **arguments}
    return rasterize(scene.gaussians, scene.cameras, settings=settings, **given)


def pictures_and_gradients(scene: HandMadeScene) -> list[Tensor]:
    scene, inputs = leaves(scene)
    statistics = GaussianStatistics.zeros(len(scene.gaussians))
    out = rasterize(
        scene.gaussians,
        scene.cameras,
        background=scene.background,
        features=scene.features,
        settings=EVERYTHING,
        statistics=statistics,
    )
    pictures = [out.rgb, out.alpha, out.depth, out.normal, out.features]
    torch.manual_seed(0)
    sum((picture * torch.randn_like(picture)).sum() for picture in pictures).backward()
    return [*pictures, out.median_depth, *(leaf.grad for leaf in inputs.values()), *vars(statistics).values()]


@pytest.mark.parametrize("name", ["moving_set", "crowded", "huge"])
def test_results_are_the_same_to_the_bit_for_any_number_of_threads(name: str, many_threads: None) -> None:
    """Training resumes to the same loss curve, on another machine too."""
    results = []
    for n_threads in (1, 2, 3, 7, 2):
        torch.set_num_threads(n_threads)
        results.append(pictures_and_gradients(SCENES[name](torch.float32)))
    for result in results[1:]:
        for value, expected in zip(result, results[0], strict=True):
            assert torch.equal(value, expected)


def test_a_batch_is_its_cameras_one_by_one() -> None:
    scene = SCENES["moving_set"](torch.float32)
    backgrounds = torch.rand(3, 3)
    batch = render(scene, background=backgrounds)
    n_visible = n_hits = 0
    for i, camera in enumerate(scene.cameras):
        alone = render(replace(scene, cameras=(camera,)), background=backgrounds[i])
        for name in ("rgb", "alpha", "depth", "median_depth", "normal", "features"):
            assert torch.equal(getattr(batch, name)[i], getattr(alone, name)[0])
        n_visible += alone.n_visible
        n_hits += alone.n_hits
    assert (batch.n_visible, batch.n_hits) == (n_visible, n_hits)


@pytest.mark.parametrize("n_features", [1, 5, 6, 13, 32])
def test_any_number_of_features_is_blended_with_the_weights_of_the_colour(n_features: int) -> None:
    """Channels go in groups of up to eight; every group must see the same weights and add its part of the gradients."""
    scene = SCENES["still_set"](torch.float64)
    features = torch.randn(len(scene.gaussians), n_features, dtype=torch.float64, requires_grad=True)
    opacity_logits = scene.gaussians.opacity_logits.clone().requires_grad_()
    scene = replace(scene, gaussians=replace(scene.gaussians, opacity_logits=opacity_logits))
    weights = torch.randn(3, 30, 40, n_features, dtype=torch.float64)

    def gradients(loss: Tensor) -> tuple[Tensor, Tensor]:
        return torch.autograd.grad(loss, (features, opacity_logits))

    together = render(scene, features=features)
    one_by_one = [render(scene, features=features[:, [k]].contiguous()).features for k in range(n_features)]
    separate = torch.cat(one_by_one, dim=-1)
    torch.testing.assert_close(together.features, separate, rtol=0, atol=1e-14)
    for value, expected in zip(
        gradients((together.features * weights).sum()), gradients((separate * weights).sum()), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-13)  # measured 1e-15


def test_optional_pictures_do_not_change_the_others() -> None:
    scene = SCENES["still_set"](torch.float32)
    everything = render(scene)
    plain = rasterize(scene.gaussians, scene.cameras, background=scene.background)
    assert torch.equal(everything.rgb, plain.rgb)
    assert torch.equal(everything.alpha, plain.alpha)
    for name in ("depth", "median_depth", "normal", "features"):
        assert getattr(plain, name) is None


def test_without_gradients_nothing_is_kept_and_the_picture_is_the_same() -> None:
    scene, _ = leaves(SCENES["still_set"](torch.float32))
    training = render(scene)
    assert training.rgb.grad_fn is not None
    with torch.no_grad():
        inference = render(scene)
    assert inference.rgb.grad_fn is None
    assert torch.equal(training.rgb, inference.rgb)


def test_what_changed_before_the_backward_pass_is_noticed() -> None:
    scene, inputs = leaves(SCENES["crowded"](torch.float32))
    loss = rasterize(scene.gaussians, scene.cameras).rgb.sum()
    with torch.no_grad():
        inputs["sh_rest"].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_of_gradients_are_refused() -> None:
    scene, inputs = leaves(SCENES["crowded"](torch.float32))
    loss = rasterize(scene.gaussians, scene.cameras).rgb.square().sum()
    (gradient,) = torch.autograd.grad(loss, inputs["means"], create_graph=True)
    with pytest.raises(RuntimeError, match="marked with @once_differentiable"):
        gradient.sum().backward()


def test_a_set_is_checked_again_once_a_tensor_lies_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = SCENES["crowded"](torch.float32)
    gaussians, n_checks = scene.gaussians, 0

    def check(parameters: object) -> None:
        nonlocal n_checks
        n_checks += 1

    monkeypatch.setattr(native_cpu, "check_gaussians", check)
    for data, expected in ((None, 1), (None, 1), (gaussians.quats.clone(), 2), (gaussians.quats[:5].clone(), 3)):
        if data is not None:
            gaussians.quats.data = data
        if expected < 3:
            rasterize(gaussians, scene.cameras)
        else:
            with pytest.raises(ValueError, match="quats"):
                rasterize(gaussians, scene.cameras)
        assert n_checks == expected


def test_broken_gaussians_are_left_out_and_harm_nobody() -> None:
    scene = SCENES["not_finite"](torch.float32)
    finite = torch.ones(len(scene.gaussians), dtype=torch.bool)
    finite[:14] = False
    healthy = replace(scene, gaussians=scene.gaussians.select(finite), features=scene.features[finite])
    with_broken, inputs = leaves(scene)
    without, expected_inputs = leaves(healthy)
    a, b = render(with_broken), render(without)
    assert torch.equal(a.rgb, b.rgb)
    a.rgb.sum().backward()
    b.rgb.sum().backward()
    for name in scene.gaussians.parameters():
        assert torch.equal(inputs[name].grad[finite], expected_inputs[name].grad), name
        assert (inputs[name].grad[~finite] == 0).all(), name


def test_a_feature_that_is_not_finite_takes_its_gaussian_out() -> None:
    scene = SCENES["still_set"](torch.float32)
    features = scene.features.clone()
    features[3, 1] = torch.nan
    keep = torch.arange(len(scene.gaussians)) != 3
    broken = render(replace(scene, features=features))
    without = render(replace(scene, gaussians=scene.gaussians.select(keep), features=scene.features[keep]))
    assert torch.equal(broken.rgb, without.rgb)


def test_screen_gradients_wait_for_the_backward_pass_and_add_up() -> None:
    scene = SCENES["still_set"](torch.float32)
    gaussians = Gaussians(**{k: v.clone().requires_grad_() for k, v in scene.gaussians.parameters().items()})
    statistics = GaussianStatistics.zeros(len(gaussians))
    loss = rasterize(gaussians, scene.cameras, statistics=statistics).rgb.square().sum()
    assert (statistics.screen_gradient == 0).all()
    loss.backward()
    once = statistics.screen_gradient.clone()
    assert (once[statistics.n_pixels > 0] > 0).all()
    rasterize(gaussians, scene.cameras, statistics=statistics).rgb.square().sum().backward()
    torch.testing.assert_close(statistics.screen_gradient, 2 * once)
    statistics.reset()
    assert all((value == 0).all() for value in vars(statistics).values())


@pytest.mark.parametrize("rasterizer", ["native", "reference"])
def test_visible_speaks_of_the_last_call_only(rasterizer: Literal["native", "reference"]) -> None:
    scene = SCENES["still_set"](torch.float32)
    settings = RasterSettings(rasterizer=rasterizer)
    visible = torch.zeros(len(scene.gaussians), dtype=torch.bool)
    statistics = GaussianStatistics.zeros(len(scene.gaussians))
    rasterize(scene.gaussians, scene.cameras, statistics=statistics, visible=visible, settings=settings)
    assert visible.any()
    assert torch.equal(visible, statistics.n_seen > 0)
    away = replace(
        scene.cameras[0], world_to_camera=torch.diag(torch.tensor([-1.0, 1, -1, 1])) @ scene.cameras[0].world_to_camera
    )
    rasterize(scene.gaussians, [away], visible=visible, settings=settings)
    assert not visible.any()


def test_huge_pictures_of_one_gaussian_fit() -> None:
    """8192 x 4096 pixels; tiles nobody touches cost nothing but their pixels."""
    camera = ring_cameras(1, 8192, 4096, torch.float32)[0]
    with torch.no_grad():
        out = rasterize(random_gaussians(1, torch.float32, scale=0.01), [camera])
    assert out.rgb.shape == (1, 4096, 8192, 3)
    assert out.alpha.max() > 0.1


def _render_in_child(queue: multiprocessing.Queue) -> None:
    torch.set_num_threads(2)
    scene = SCENES["crowded"](torch.float32)
    with torch.no_grad():
        queue.put(render(scene).rgb.sum().item())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python warns of fork beside threads; that is what is tested
def test_a_forked_process_renders_with_threads_of_its_own(many_threads: None) -> None:
    torch.set_num_threads(2)
    with torch.no_grad():
        expected = render(SCENES["crowded"](torch.float32)).rgb.sum().item()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_render_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join()


def test_the_cpu_and_the_reference_are_always_there() -> None:
    backends = render_backends()
    assert backends["native-cpu"] is None
    assert backends["reference"] is None
    assert set(backends) == {"native-cpu", "native-cuda", "reference", "gsplat"}


def test_pass_times_are_those_of_the_passes_and_change_nothing() -> None:
    scene = SCENES["moving_set"](torch.float32)
    times = PassTimes()
    begin = time.perf_counter()
    out = rasterize(scene.gaussians, scene.cameras, background=scene.background, times=times)
    elapsed = time.perf_counter() - begin
    seconds = times.seconds()
    assert list(seconds) == ["project", "bin", "blend"]
    assert all(value > 0 for value in seconds.values())
    assert sum(seconds.values()) < elapsed
    assert torch.equal(out.rgb, rasterize(scene.gaussians, scene.cameras, background=scene.background).rgb)
    assert not PassTimes().seconds()
