"""cameras.bin and cameras.txt of COLMAP: intrinsics and lenses.

    text:    CAMERA_ID MODEL WIDTH HEIGHT PARAMS...
    binary:  uint64 count, then int32 id, int32 model, uint64 width, uint64 height, float64 params...

Models, their numbers and the order of their parameters are those of COLMAP's `sensor/models.h`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinosplat.errors import InputError
from kinosplat.scenes.distortion import Lens, LensModel
from kinosplat.scenes.formats.checks import intrinsics
from kinosplat.scenes.formats.colmap_files import BinaryFile, text_rows


@dataclass(frozen=True)
class CameraModel:
    """How COLMAP writes a camera: focal length(s), cx, cy, then the coefficients of the lens."""

    name: str
    """COLMAP's name."""
    n_focal: int
    """One focal length for both axes, or two."""
    lens: LensModel
    """Our name of the formula."""
    n_coefficients: int
    """How many coefficients follow; the first ones of the formula's."""

    @property
    def n_parameters(self) -> int:
        """Length of PARAMS."""
        return self.n_focal + 2 + self.n_coefficients


CAMERA_MODELS = {
    0: CameraModel("SIMPLE_PINHOLE", 1, "pinhole", 0),
    1: CameraModel("PINHOLE", 2, "pinhole", 0),
    2: CameraModel("SIMPLE_RADIAL", 1, "opencv", 1),
    3: CameraModel("RADIAL", 1, "opencv", 2),
    4: CameraModel("OPENCV", 2, "opencv", 4),
    5: CameraModel("OPENCV_FISHEYE", 2, "opencv_fisheye", 4),
    6: CameraModel("FULL_OPENCV", 2, "opencv", 8),
    7: CameraModel("FOV", 2, "fov", 1),
    8: CameraModel("SIMPLE_RADIAL_FISHEYE", 1, "opencv_fisheye", 1),
    9: CameraModel("RADIAL_FISHEYE", 1, "opencv_fisheye", 2),
    10: CameraModel("THIN_PRISM_FISHEYE", 2, "thin_prism_fisheye", 8),
    11: CameraModel("RAD_TAN_THIN_PRISM_FISHEYE", 2, "rad_tan_thin_prism_fisheye", 12),
    12: CameraModel("SIMPLE_DIVISION", 1, "division", 1),
    13: CameraModel("DIVISION", 2, "division", 1),
    14: CameraModel("SIMPLE_FISHEYE", 1, "opencv_fisheye", 0),
    15: CameraModel("FISHEYE", 2, "opencv_fisheye", 0),
    16: CameraModel("EUCM", 2, "eucm", 2),
}
"""By COLMAP's number. 17, EQUIRECTANGULAR, is no pinhole with a lens and is refused."""
MODELS_BY_NAME = {model.name: model for model in CAMERA_MODELS.values()}


@dataclass(frozen=True)
class ColmapCamera:
    """One entry of the file."""

    K: NDArray[np.float64]
    """(3, 3) pixels."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    lens: Lens
    """Distortion."""


def read_cameras(path: Path) -> dict[int, ColmapCamera]:
    """Cameras by their id."""
    return _read_binary(path) if path.suffix == ".bin" else _read_text(path)


def _read_text(path: Path) -> dict[int, ColmapCamera]:
    cameras = {}
    for line_number, words in text_rows(path):
        where = f"{path} line {line_number}"
        if len(words) < 4:
            raise InputError(f"{where} is not a camera (CAMERA_ID MODEL WIDTH HEIGHT PARAMS); correct it.")
        model = MODELS_BY_NAME.get(words[1])
        if model is None:
            raise _unknown_model(words[1], where)
        try:
            camera_id, width, height = int(words[0]), int(words[2]), int(words[3])
            parameters = [float(word) for word in words[4:]]
        except ValueError as error:
            raise InputError(f"{where} holds something other than numbers; correct it.") from error
        cameras[camera_id] = _camera(model, width, height, parameters, where)
    return cameras


def _read_binary(path: Path) -> dict[int, ColmapCamera]:
    file = BinaryFile(path)
    cameras = {}
    (count,) = file.unpack("<Q")
    for _ in range(count):
        camera_id, model_id, width, height = file.unpack("<iiQQ")
        where = f"{path} camera {camera_id}"
        model = CAMERA_MODELS.get(model_id)
        if model is None:
            raise _unknown_model("EQUIRECTANGULAR" if model_id == 17 else str(model_id), where)
        cameras[camera_id] = _camera(model, width, height, list(file.unpack(f"<{model.n_parameters}d")), where)
    return cameras


def _camera(model: CameraModel, width: int, height: int, parameters: list[float], where: str) -> ColmapCamera:
    if len(parameters) != model.n_parameters:
        raise InputError(
            f"{where} has {len(parameters)} parameters, but {model.name} takes {model.n_parameters}; correct it."
        )
    if width < 1 or height < 1:
        raise InputError(f"{where} has the size {width}x{height}; correct it.")
    focal = parameters[: model.n_focal]
    cx, cy = parameters[model.n_focal : model.n_focal + 2]
    K = intrinsics(focal[0], focal[-1], cx, cy, f"{where} intrinsics")
    return ColmapCamera(K, width, height, Lens(model.lens, tuple(parameters[model.n_focal + 2 :])))


def _unknown_model(name: str, where: str) -> InputError:
    return InputError(
        f"{where} has the camera model {name}, which is not known; use one of {', '.join(MODELS_BY_NAME)}."
    )
