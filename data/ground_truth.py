"""The exact geometry of the shipped scene: points on the true surfaces at every frame, and depth maps.

Layout of an `evaluation/` folder (numpy archives without pickle; lengths in metres, world frame of cameras.json):

`points.npz`, for n points on n_objects objects over n_frames frames
    object_names     (n_objects,) text
    object_index     (n,) uint8, the object that each point lies on; points of an object are neighbours
    rest_points      (n, 3) float32, in the object's own frame, undeformed
    colours          (n, 3) uint8, unlit sRGB colour of the surface
    transforms       (n_objects, n_frames, 4, 4) float64, object to world; affine, not always rigid
    present          (n_objects, n_frames) bool, whether the object is in the scene yet
    deformed_object  () uint8, the one object whose points do not keep their place in its own frame
    deformed_points  (n_frames, n_deformed, 3) int16, its points in its own frame, in steps of
    deformed_unit    () float64
    visible          (n_frames, ceil(n / 8)) uint8, bits (numpy.packbits): seen by at least two training cameras

`depth.npz`, for each test camera by name
    (n_frames, height, width) uint16: depth along the camera's axis at the pixel centres, in millimetres, 0 where
    nothing is hit; every frame after the first as the difference from the one before, modulo 65536.

A missing or foreign file raises InputError.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kinosplat.errors import InputError

DEPTH_UNIT = 1e-3
"""Metres a step of depth.npz."""
POINTS_SPACING, POINTS_CAP = 0.01, 0.2
"""Metres: a mesh is compared with points.npz at points so far apart, by distances below the cap."""


@dataclass(frozen=True)
class GroundTruth:
    """Points bound to the true surfaces; see the head of this file for the fields."""

    object_names: tuple[str, ...]
    object_index: np.ndarray
    colours: np.ndarray
    present: np.ndarray
    """(n_objects, n_frames) bool."""
    _rest_points: np.ndarray
    _transforms: np.ndarray
    _deformed_object: int
    _deformed_points: np.ndarray
    """(n_frames, n_deformed, 3) float64, metres."""
    _visible: np.ndarray

    @property
    def n_frames(self) -> int:
        return self.present.shape[1]

    def points(self, frame: int) -> np.ndarray:
        """World positions (n, 3) float64 of all points; of objects that are not there yet, where they would be."""
        local = self._rest_points.astype(np.float64)
        local[self.object_index == self._deformed_object] = self._deformed_points[frame]
        matrices = self._transforms[self.object_index, frame]
        return np.einsum("nij,nj->ni", matrices[:, :3, :3], local) + matrices[:, :3, 3]

    def is_present(self, frame: int) -> np.ndarray:
        """Whether each point's object is in the scene, (n,) bool."""
        return self.present[self.object_index, frame]

    def is_visible(self, frame: int) -> np.ndarray:
        """Whether at least two training cameras see each point, (n,) bool: what a reconstruction can know of."""
        return np.unpackbits(self._visible[frame], count=len(self.object_index)).astype(bool)


def load_ground_truth(folder: str | Path) -> GroundTruth:
    """Reads `points.npz` of an `evaluation/` folder."""
    path = Path(folder) / "points.npz"
    with _open(path) as archive:

        def field(name: str) -> np.ndarray:
            if name not in archive:
                raise InputError(f"{path}: has no array '{name}'; restore it from the repository.")
            return archive[name]

        return GroundTruth(
            object_names=tuple(str(name) for name in field("object_names")),
            object_index=field("object_index"),
            colours=field("colours"),
            present=field("present"),
            _rest_points=field("rest_points"),
            _transforms=field("transforms"),
            _deformed_object=int(field("deformed_object")),
            _deformed_points=field("deformed_points") * float(field("deformed_unit")),
            _visible=field("visible"),
        )


def load_depth(folder: str | Path, camera: str) -> np.ndarray:
    """Depth (n_frames, height, width) float32 of a test camera, metres along its axis, 0 where nothing is hit."""
    path = Path(folder) / "depth.npz"
    with _open(path) as archive:
        if camera not in archive:
            raise InputError(f"{path}: no depth of camera '{camera}'; there is {', '.join(archive)}.")
        steps = np.cumsum(archive[camera], axis=0, dtype=np.uint16)
    return steps.astype(np.float32) * np.float32(DEPTH_UNIT)


def _open(path: Path) -> np.lib.npyio.NpzFile:
    try:
        archive = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a numpy archive; restore it from the repository.") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InputError(f"{path}: holds one array and no archive; restore it from the repository.")
    return archive
