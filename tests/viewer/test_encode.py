"""Pictures survive their coding; a JPEG of several strips is the JPEG of the whole picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from kinosplat.viewer.encode import (
    Coding,
    PictureEncoder,
    encode_depth,
    encode_picture,
    to_canvas,
    to_depth_steps,
    to_pixels,
)
from kinosplat.viewer.jpeg_strips import join_strips, strip_rows


def noisy(width: int, height: int) -> NDArray[np.uint8]:
    """Smooth colours with noise on top, as a canvas."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    picture = np.stack([x, y, 0.5 + 0.5 * np.sin(9 * x + 7 * y)], axis=-1)
    picture += np.random.default_rng(3).normal(scale=0.05, size=picture.shape)
    return to_canvas(torch.from_numpy(picture).float())


def decoded(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("coding", ["jpeg", "webp"])
def test_codings_keep_the_picture(coding: Coding) -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    pixels = np.stack(
        [np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.full((64, 64), 90, np.uint8)], axis=-1
    )
    found = decoded(encode_picture(pixels, coding, 92)).astype(int)
    # 0.9 (JPEG) and 1.1 (WebP) on average.
    assert np.abs(found - pixels).mean() < 2.5


@pytest.mark.parametrize("coding", ["jpeg", "webp"])
def test_a_canvas_is_encoded_as_its_pixels_are(coding: Coding) -> None:
    picture = torch.rand(37, 53, 3)
    assert encode_picture(to_canvas(picture), coding, 80) == encode_picture(to_pixels(picture), coding, 80)


# Neither width nor height fits blocks; 11 strips go once around the eight restart markers.
@pytest.mark.parametrize(("width", "height", "n_strips"), [(640, 480, 2), (1283, 719, 5), (301, 1050, 11), (64, 17, 2)])
@pytest.mark.parametrize("quality", [80, 92])
def test_strips_decode_to_exactly_the_picture_encoded_at_once(
    width: int, height: int, n_strips: int, quality: int
) -> None:
    canvas = noisy(width, height)
    rows = strip_rows(height, n_strips)
    strips = [encode_picture(canvas[first : first + rows], "jpeg", quality) for first in range(0, height, rows)]
    assert len(strips) == n_strips
    whole, joined = encode_picture(canvas, "jpeg", quality), join_strips(strips, width, height)
    assert np.array_equal(decoded(joined), decoded(whole))
    # A marker of two bytes, and less to predict the first block of a strip from.
    assert len(joined) < len(whole) + 6 + 12 * n_strips


def test_strips_that_do_not_belong_together_are_refused() -> None:
    coarse, fine = (encode_picture(noisy(64, 32), "jpeg", quality) for quality in (50, 80))
    with pytest.raises(ValueError, match="must have the same width and the same tables"):
        join_strips([coarse, fine], 64, 64)
    for broken in (b"\xff\xd8", b"\xff\xd8\xff\xe0\xff\xff", fine[:300], encode_picture(noisy(64, 32), "webp", 80)):
        with pytest.raises(ValueError, match="A strip is no"):
            join_strips([fine, broken], 64, 64)


def test_large_pictures_are_encoded_by_several_threads_and_small_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    def noted(pixels: NDArray[np.uint8], coding: Coding, quality: int) -> bytes:
        rows.append(pixels.shape[0])
        return encode_picture(pixels, coding, quality)

    monkeypatch.setattr("kinosplat.viewer.encode.encode_picture", noted)
    encoder = PictureEncoder(4)
    for size, expected in (((1280, 720), [144, 192, 192, 192]), ((480, 360), [360])):
        rows.clear()
        canvas = noisy(*size)
        found = encoder.encode(canvas, "jpeg", 80)
        assert sorted(rows) == expected
        assert np.array_equal(decoded(found), decoded(encode_picture(canvas, "jpeg", 80)))
    encoder.close()


def test_depth_survives_its_coding_as_the_page_reads_it() -> None:
    depth = torch.tensor([[1.0, 2.5], [torch.inf, 0.123456]])
    image = np.asarray(Image.open(io.BytesIO(encode_depth(to_depth_steps(depth, 480))))).astype(float)
    # The formula of viser's page, for channels in [0, 255].
    found = (image[..., 2] * 0.00255 + image[..., 1] * 0.6528 + image[..., 0] * 167.1168) / 255
    assert found[0] == pytest.approx([1.0, 2.5], abs=1e-5)
    assert found[1, 0] > 167
    assert found[1, 1] == pytest.approx(0.123456, abs=1e-5)


def test_depth_is_shrunk_to_the_nearest_of_its_pixels() -> None:
    depth = torch.full((100, 100), 5.0)
    depth[10, 10] = 1.0
    steps = to_depth_steps(depth, 50)
    assert steps.shape == (50, 50, 3)
    values = (steps[..., 0].astype(int) << 16) + (steps[..., 1].astype(int) << 8) + steps[..., 2]
    assert values[5, 5] == 100_000
    assert values[20, 20] == 500_000
