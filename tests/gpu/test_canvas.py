"""What the viewer reads back from the device is what the CPU would have had."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kinosplat.viewer.encode import to_canvas

pytestmark = pytest.mark.gpu


def random_picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Colours that go beyond what can be shown, as pictures of Gaussians do."""
    return 1.4 * torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed)) - 0.2


@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 33), (720, 1280)])
def test_a_canvas_is_that_of_the_cpu(height: int, width: int) -> None:
    picture = random_picture(height, width)
    canvas = to_canvas(picture.cuda())
    assert canvas.shape == (height, width, 4)
    # The same three roundings on both.
    assert np.array_equal(canvas[..., :3], to_canvas(picture)[..., :3])


def test_a_canvas_stays_as_it_is_while_the_next_is_read() -> None:
    pictures = [random_picture(360, 640, seed) for seed in range(4)]
    canvases = [to_canvas(picture.cuda()) for picture in pictures]
    for picture, canvas in zip(pictures, canvases, strict=True):
        assert np.array_equal(canvas[..., :3], to_canvas(picture)[..., :3])


def test_a_canvas_waits_for_the_picture_that_is_still_being_drawn() -> None:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        picture = torch.zeros(720, 1280, 3, device="cuda")
        # Some milliseconds of work between the read-back and what it reads.
        for _ in range(2000):
            picture += 0.0005
        canvas = to_canvas(picture)
    assert (canvas[..., :3] == 255).all()
