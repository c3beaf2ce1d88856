"""What is too much for the CUDA rasterizer is refused in a sentence, before memory is taken for it."""

from __future__ import annotations

import pytest
import torch

from kinosplat._native import gpu as native
from kinosplat.errors import InputError
from kinosplat.render import Gaussians, rasterize

from .test_frames import camera, cloud

pytestmark = pytest.mark.gpu


def zeros(n: int) -> Gaussians:
    shapes = {"means": (3,), "quats": (4,), "log_scales": (3,), "opacity_logits": (), "sh_dc": (3,), "sh_rest": (0, 3)}
    return Gaussians(**{name: torch.zeros(n, *shape, device="cuda") for name, shape in shapes.items()})


def test_more_cameras_than_travel_with_a_kernel() -> None:
    with pytest.raises(InputError) as caught:
        rasterize(cloud(10), [camera(16, 12)] * (native.MAX_CAMERAS + 1))
    assert str(caught.value) == "cameras must be at most 64 in one call, got 65."


def test_more_rows_than_an_entry_can_number() -> None:
    n = native.MAX_PAIRS // native.MAX_CAMERAS + 1
    before = torch.cuda.memory_allocated()
    gaussians = zeros(n)
    taken = torch.cuda.memory_allocated() - before
    torch.cuda.reset_peak_memory_stats()
    with pytest.raises(InputError) as caught:
        rasterize(gaussians, [camera(16, 12)] * native.MAX_CAMERAS)
    assert str(caught.value) == (
        f"Gaussians times cameras must be at most {2**28 - 1} in one call, got {n * 64}; draw fewer cameras at once."
    )
    assert torch.cuda.max_memory_allocated() - before < 1.1 * taken


def test_a_picture_wider_than_a_span_of_tiles_can_say() -> None:
    with pytest.raises(InputError) as caught:
        rasterize(cloud(10), [camera(native.MAX_IMAGE_SIZE + 1, 1)])
    assert str(caught.value) == f"cameras must be at most {native.MAX_IMAGE_SIZE} pixels wide and high."


def test_more_entries_than_the_sort_can_count() -> None:
    """Gaussians that cover every block of two by two tiles of a large picture."""
    blocks = (8192 // 32) * (4096 // 32)
    n = native.MAX_ENTRIES // blocks + 2
    gaussians = cloud(1, scale=1.0).map(lambda tensor: tensor.expand(n, *tensor.shape[1:]).clone())
    gaussians.means.zero_()
    gaussians.log_scales.fill_(4.0)
    gaussians.opacity_logits.fill_(3.0)
    with pytest.raises(InputError) as caught:
        rasterize(gaussians, [camera(8192, 4096)])
    assert str(caught.value) == (
        f"the pictures have {n * blocks} pairs of a Gaussian and a block of tiles, more than {2**30 - 1}; render them "
        "smaller, or fewer cameras at once."
    )
