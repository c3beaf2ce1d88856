"""Intrinsics and lens of one frame of a transforms.json, in the spellings of nerfstudio, instant-ngp and Blender.

Each field is looked up in the frame first, then at the top of the file:

    w, h                          pixels; the picture's own size without them
    fl_x, fl_y                    focal lengths in pixels; or
    x_fov, y_fov                  fields of view in degrees (instant-ngp); or
    camera_angle_x, _y            fields of view in radians (Blender); a missing y means square pixels
    cx, cy                        principal point in pixels; the middle without it
    camera_model                  OPENCV (also SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL) or OPENCV_FISHEYE; OPENCV
    without it is_fisheye                    instant-ngp's word for OPENCV_FISHEYE k1, k2, k3, p1, p2
    distortion of OPENCV k1, k2, k3, k4                distortion of OPENCV_FISHEYE

Panoramas and f-theta lenses are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinosplat.errors import InputError
from kinosplat.scenes.distortion import Lens
from kinosplat.scenes.formats.checks import intrinsics, number
from kinosplat.scenes.images import image_size

PERSPECTIVE_MODELS = ("OPENCV", "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL")
FISHEYE_MODEL = "OPENCV_FISHEYE"
FOREIGN_LENSES = ("equirectangular", "latlong", "ftheta_p0")


class FrameFields:
    """The fields of a frame, with the top of the file as fallback."""

    def __init__(self, frame: Mapping[str, Any], top: Mapping[str, Any], where: str) -> None:
        self._frame, self._top, self.where = frame, top, where

    def __contains__(self, key: str) -> bool:
        return key in self._frame or key in self._top

    def get(self, key: str, default: Any = None) -> Any:
        """The field as it is."""
        return self._frame.get(key, self._top.get(key, default))

    def number(self, key: str, default: float = 0.0) -> float:
        """The field as a finite number."""
        return number(self.get(key, default), f"{self.where} {key}")


def read_camera(fields: FrameFields, picture: Path) -> tuple[NDArray[np.float64], int, int, Lens]:
    """K (3, 3), width, height and lens of a frame."""
    if "w" in fields and "h" in fields:
        width, height = int(fields.number("w")), int(fields.number("h"))
    else:
        width, height = image_size(picture)
    fx, fy = _focal_length(fields, "x", width), _focal_length(fields, "y", height)
    if fx is None and fy is None:
        raise InputError(f"{fields.where} has no focal length; add fl_x, x_fov or camera_angle_x, to it or to the top.")
    K = intrinsics(
        fx or fy or 0.0,
        fy or fx or 0.0,
        fields.number("cx", width / 2),
        fields.number("cy", height / 2),
        f"{fields.where} intrinsics",
    )
    return K, width, height, _lens(fields)


def _focal_length(fields: FrameFields, axis: str, resolution: int) -> float | None:
    """In pixels; the first spelling that is there and not 0, in instant-ngp's order."""
    if f"{axis}_fov" in fields:
        return _from_angle(math.radians(fields.number(f"{axis}_fov")), resolution, f"{fields.where} {axis}_fov")
    if fields.number(f"fl_{axis}") != 0:
        return fields.number(f"fl_{axis}")
    if f"camera_angle_{axis}" in fields:
        key = f"camera_angle_{axis}"
        return _from_angle(fields.number(key), resolution, f"{fields.where} {key}")
    return None


def _from_angle(angle: float, resolution: int, where: str) -> float:
    """The focal length in pixels of a field of view in radians."""
    if not 0 < angle < math.pi:
        raise InputError(f"{where} is {math.degrees(angle):g} degrees; a field of view is between 0 and 180.")
    return resolution / (2 * math.tan(angle / 2))


def _lens(fields: FrameFields) -> Lens:
    foreign = next((key for key in FOREIGN_LENSES if fields.get(key)), None)
    if foreign is not None:
        raise InputError(f"{fields.where} is taken with a lens of type {foreign}; cut it into pinhole pictures first.")
    model = fields.get("camera_model", FISHEYE_MODEL if fields.get("is_fisheye") else "OPENCV")
    if model == FISHEYE_MODEL:
        return Lens.from_names("opencv_fisheye", {name: fields.number(name) for name in ("k1", "k2", "k3", "k4")})
    if model in PERSPECTIVE_MODELS:
        if fields.number("k4") != 0:
            raise InputError(
                f"{fields.where} k4 belongs to camera_model OPENCV_FISHEYE, not {model}; correct one of the two."
            )
        return Lens.from_names("opencv", {name: fields.number(name) for name in ("k1", "k2", "k3", "p1", "p2")})
    known = ", ".join((*PERSPECTIVE_MODELS, FISHEYE_MODEL))
    raise InputError(f"{fields.where} camera_model {model!r} is not known; use one of {known}.")
