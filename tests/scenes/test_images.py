"""Image files of every kind, and those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinosplat.errors import InputError
from kinosplat.scenes.images import ImageFile, image_size
from kinosplat.scenes.lenses import Delivery
from scenes.builders import HEIGHT, WIDTH, picture, save

WHOLE = Delivery(WIDTH, HEIGHT, WIDTH, HEIGHT)


def message(source: ImageFile) -> str:
    """The message with which a picture is refused, without its folder."""
    with pytest.raises(InputError) as error:
        source.load()
    return str(error.value).replace(f"{source.path.parent}/", "")


def test_png_pixels_are_delivered_as_stored(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", picture(1))
    source = ImageFile(path, WHOLE)
    np.testing.assert_array_equal(source.load(), picture(1))
    assert source.description == str(path)
    assert hash(source) == hash(ImageFile(path, WHOLE))
    assert image_size(path) == (WIDTH, HEIGHT)


def test_16_bit_1_bit_palette_and_cmyk_pictures_become_8_bit_rgb(tmp_path: Path) -> None:
    gray = picture(0)[..., 0]
    save(tmp_path / "deep.png", gray.astype(np.uint16) * 257)
    np.testing.assert_array_equal(ImageFile(tmp_path / "deep.png", WHOLE).load()[..., 1], gray)
    Image.fromarray(gray > 100).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(ImageFile(tmp_path / "bits.png", WHOLE).load()[..., 2], np.where(gray > 100, 255, 0))
    Image.fromarray(gray).convert("P").save(tmp_path / "palette.png")
    assert ImageFile(tmp_path / "palette.png", WHOLE).load().shape == (HEIGHT, WIDTH, 3)
    Image.fromarray(picture(0)).convert("CMYK").save(tmp_path / "print.tif")
    assert ImageFile(tmp_path / "print.tif", WHOLE).load().shape == (HEIGHT, WIDTH, 3)


def test_transparent_palettes_keep_their_alpha(tmp_path: Path) -> None:
    image = Image.new("P", (WIDTH, HEIGHT), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((0, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    delivered = ImageFile(tmp_path / "a.png", WHOLE).load()
    assert delivered[0, 0].tolist() == [40, 50, 60, 255]
    assert delivered[1, 1, 3] == 0


def test_orientation_notes_of_phones_are_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(0)).save(tmp_path / "a.jpg", exif=exif)
    assert ImageFile(tmp_path / "a.jpg", WHOLE).load().shape == (HEIGHT, WIDTH, 3)


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    assert message(ImageFile(tmp_path / "a.png", WHOLE)) == (
        "a.png does not exist; put the picture there or correct the path."
    )


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_picture_is_named(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    path = save(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert message(ImageFile(path, WHOLE)) == f"a.{suffix} is truncated or damaged; copy it again."


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("hello")
    assert message(ImageFile(path, WHOLE)) == "a.png is not a picture that can be read; convert it to PNG or JPEG."
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.float32)).save(tmp_path / "b.tif")
    assert message(ImageFile(tmp_path / "b.tif", WHOLE)) == (
        "b.tif is not a picture that can be read; convert it to PNG or JPEG."
    )


def test_a_picture_of_another_size_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", picture(0, 0, 32, 24))
    assert message(ImageFile(path, WHOLE)) == (
        "a.png is 32x24 pixels but its intrinsics are for 64x48; scale one of the two so that they agree."
    )


def test_an_empty_mask_is_named_unless_it_may_be_empty(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    assert message(ImageFile(path, WHOLE.as_mask())) == (
        "a.png is an empty mask, with no pixel inside; remove it or set masks to ignore."
    )
    assert not ImageFile(path, WHOLE.as_mask(), may_be_empty=True).load().any()
