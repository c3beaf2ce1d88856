"""Arguments that do not fit are named in one sentence; the texts are part of the interface."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from render.scenes import random_gaussians, ring_cameras

from kinosplat.errors import BackendError, InputError
from kinosplat.render import Gaussians, GaussianStatistics, RasterSettings, backend, rasterize
from kinosplat.render.adam import adam_step
from kinosplat.render.losses import photometric_loss, psnr

CAMERAS = ring_cameras(2, 12, 10, torch.float32)
GAUSSIANS = random_gaussians(4, torch.float32)
MOVING = random_gaussians(4, torch.float32, moving=True)


def changed(**tensors: Any) -> Gaussians:
    return replace(GAUSSIANS, **tensors)


@pytest.mark.parametrize(
    ("gaussians", "cameras", "arguments", "text"),
    [
        (GAUSSIANS, [], {}, "cameras must be at least one camera, all of one width and height."),
        (
            GAUSSIANS,
            [CAMERAS[0], CAMERAS[1].resized(6, 5)],
            {},
            "cameras must be at least one camera, all of one width and height.",
        ),
        (
            MOVING,
            CAMERAS,
            {},
            "cameras must have a time when the Gaussians move; give one with Camera.at(seconds).",
        ),
        (
            GAUSSIANS.map(lambda tensor: tensor.half()),
            CAMERAS,
            {},
            "means must be float32 or float64, got torch.float16; convert the Gaussians first.",
        ),
        (
            changed(quats=GAUSSIANS.quats.double()),
            CAMERAS,
            {},
            "quats must be float32, got float64; convert it first.",
        ),
        (
            changed(log_scales=torch.zeros(3, 4).T),
            CAMERAS,
            {},
            "log_scales must be contiguous; call .contiguous() on it first.",
        ),
        (
            GAUSSIANS,
            CAMERAS,
            {"background": torch.zeros(4)},
            "background must have shape (3,) or (2, 3), got (4,).",
        ),
        (
            GAUSSIANS,
            CAMERAS,
            {"features": torch.zeros(5, 2)},
            "features must have shape (4, F), got (5, 2).",
        ),
        (
            GAUSSIANS,
            CAMERAS,
            {"features": torch.zeros(4, 2, dtype=torch.float64)},
            "features must be float32, got float64; convert it first.",
        ),
        (
            GAUSSIANS,
            CAMERAS,
            {"settings": RasterSettings(near=0.0)},
            "near must be above 0 and below far, got near 0.0 and far 10000000000.0.",
        ),
        (
            GAUSSIANS,
            CAMERAS,
            {"statistics": GaussianStatistics.zeros(5)},
            "statistics must be those of 4 Gaussians, got 5.",
        ),
    ],
)
def test_rasterize_names_what_does_not_fit(gaussians: Any, cameras: Any, arguments: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        rasterize(gaussians, cameras, **arguments)


def test_what_a_user_got_wrong_is_an_input_error() -> None:
    with pytest.raises(InputError):
        rasterize(MOVING, CAMERAS)


def test_a_device_without_a_backend_is_named() -> None:
    gaussians = GAUSSIANS.to("meta")
    text = "Tensors on 'meta' cannot be rendered; move them to the CPU or a CUDA device."
    with pytest.raises(BackendError, match=f"^{re.escape(text)}$"):
        rasterize(gaussians, [camera.to("meta") for camera in CAMERAS])


def test_a_missing_native_module_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kinosplat._native", None)
    monkeypatch.delattr("kinosplat._native", raising=False)
    text = (
        "The native module kinosplat._native is not built; "
        "run 'pip install .' in the checkout with a C++ compiler installed."
    )
    backend.passes_for.cache_clear()
    with pytest.raises(BackendError, match=f"^{re.escape(text)}$"):
        backend.passes_for(torch.device("cpu"))
    assert backend.render_backends()["native-cpu"] == text
    assert rasterize(GAUSSIANS, CAMERAS, settings=RasterSettings(rasterizer="reference")).rgb.shape == (2, 10, 12, 3)


@pytest.mark.parametrize(
    ("shapes", "mask", "text"),
    [
        (((10, 12, 3), (10, 12, 3)), None, "pictures must have shape (C, H, W, 3), got (10, 12, 3)."),
        (
            ((1, 10, 12, 3), (2, 10, 12, 3)),
            None,
            "pictures must have equal shapes, got (1, 10, 12, 3) and (2, 10, 12, 3).",
        ),
        (
            ((2, 10, 12, 3), (2, 10, 12, 3)),
            torch.ones(10, 12),
            "mask must have shape (2, 10, 12), got (10, 12).",
        ),
    ],
)
def test_losses_name_what_does_not_fit(shapes: Any, mask: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        photometric_loss(torch.zeros(shapes[0]), torch.zeros(shapes[1]), mask=mask)


def test_a_target_of_another_type_is_named() -> None:
    with pytest.raises(ValueError, match=r"^target must be float32, got uint8; convert it first\.$"):
        photometric_loss(torch.zeros(1, 5, 5, 3), torch.zeros(1, 5, 5, 3, dtype=torch.uint8))


def test_psnr_of_pictures_of_two_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^pictures must have equal shapes, got \(1, 5, 5, 3\) and \(1, 5, 4, 3\)\.$"):
        psnr(torch.zeros(1, 5, 5, 3), torch.zeros(1, 5, 4, 3))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"step": 0}, "step must be at least 1, got 0."),
        ({"gradient": torch.zeros(4, 2)}, "gradient must have shape (4, 3), got (4, 2)."),
        ({"exp_avg": torch.zeros(3, 4).T}, "exp_avg must be contiguous; call .contiguous() on it first."),
        (
            {"exp_avg_sq": torch.zeros(4, 3, dtype=torch.float64)},
            "exp_avg_sq must be float32, got float64; convert it first.",
        ),
        ({"visible": torch.ones(5, dtype=torch.bool)}, "visible must have shape (4,), got (5,)."),
        ({"visible": torch.ones(4)}, "visible must be bool, got float32; convert it first."),
    ],
)
def test_adam_names_what_does_not_fit(change: dict[str, Any], text: str) -> None:
    arguments = {
        **{name: torch.zeros(4, 3) for name in ("parameter", "gradient", "exp_avg", "exp_avg_sq")},
        "step": 1,
        **change,
    }
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        adam_step(**arguments, lr=0.1, betas=(0.9, 0.999), eps=1e-8)


def test_the_boundary_refuses_names_it_does_not_know() -> None:
    native = backend.load_native().cpu
    with pytest.raises(TypeError, match=r"^missing argument scratch\.$"):
        native.photometric(
            rendered=torch.zeros(1, 5, 5, 3), target=torch.zeros(1, 5, 5, 3), mask=None, ssim_weight=0.2,
            inverse_count=1.0, n_threads=1,
        )  # fmt: skip
    numbers = {name: torch.zeros(2, 2) for name in ("parameter", "gradient", "exp_avg", "exp_avg_sq")}
    settings = dict.fromkeys(("beta1", "beta2", "eps", "step_size", "inverse_sqrt_second_correction"), 0.5)
    with pytest.raises(TypeError, match=r"^missing argument n_threads\.$"):
        native.adam_step(**numbers, **settings, visible=None)
    with pytest.raises(TypeError, match=r"^unknown argument momentum\.$"):
        native.adam_step(**numbers, **settings, visible=None, n_threads=1, momentum=0.9)
