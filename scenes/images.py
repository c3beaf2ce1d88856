"""Pictures in image files, and the masks that lenses leave behind.

Gray, palette, 1-bit, 16-bit and CMYK pictures become 8-bit RGB, transparency becomes a fourth channel; orientation
notes (EXIF) are not applied, since calibration tools work on the pixels as stored. A missing, foreign, truncated or
wrongly sized file, and a mask without a single pixel inside, raise InputError when they are loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from kinosplat.errors import InputError
from kinosplat.scenes.lenses import Delivery


@dataclass(frozen=True)
class ImageFile:
    """An image file as an ImageSource."""

    path: Path
    """The file."""
    delivery: Delivery
    """Undistortion, size and channels."""
    may_be_empty: bool = False
    """Whether a mask may have nothing inside, as when the object has left the picture of a clip."""

    @property
    def description(self) -> str:
        """The path as it was given."""
        return str(self.path)

    def load(self) -> NDArray[np.uint8]:
        """(H, W, 3 or 4) uint8, or (H, W) for a mask, as delivered."""
        pixels = read_pixels(self.path)
        delivered = self.delivery.apply(pixels, self.description)
        if self.delivery.role != "picture" and not self.may_be_empty and not delivered.any():
            raise InputError(f"{self.path} is an empty mask, with no pixel inside; remove it or set masks to ignore.")
        return delivered


@dataclass(frozen=True)
class LensGaps:
    """The mask of a picture that has none itself: 0 where undistortion found no source, 255 elsewhere."""

    delivery: Delivery
    """That of the picture."""

    @property
    def description(self) -> str:
        """What it is."""
        return "the area that the lens covers"

    def load(self) -> NDArray[np.uint8]:
        """(H, W) uint8."""
        everywhere = np.full((self.delivery.raw_height, self.delivery.raw_width), 255, np.uint8)
        return self.delivery.as_mask().apply(everywhere)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height from the file's header, without decoding it; InputError when it is missing or no picture."""
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError:
        raise _missing(path) from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def read_pixels(path: Path) -> NDArray[Any]:
    """(H, W) or (H, W, 1 to 4), uint8 or uint16, exactly as stored."""
    try:
        with Image.open(path) as image:
            return _pixels(image)
    except FileNotFoundError:
        raise _missing(path) from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def _pixels(image: Image.Image) -> NDArray[Any]:
    match image.mode:
        case "L" | "LA" | "RGB" | "RGBA":
            pass
        case "1":
            image = image.convert("L")
        case "P" | "PA" | "La" | "RGBa":
            has_alpha = image.mode != "P" or "transparency" in image.info
            image = image.convert("RGBA" if has_alpha else "RGB")
        case "I" | "I;16" | "I;16L" | "I;16B" | "I;16N":
            return np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
        case "CMYK" | "YCbCr" | "LAB" | "HSV":
            image = image.convert("RGB")
        case mode:
            raise UnidentifiedImageError(f"pixels of type {mode} are not supported")
    return np.asarray(image)


def _missing(path: Path) -> InputError:
    return InputError(f"{path} does not exist; put the picture there or correct the path.")


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, UnidentifiedImageError):
        return InputError(f"{path} is not a picture that can be read; convert it to PNG or JPEG.")
    return InputError(f"{path} is truncated or damaged; copy it again.")
