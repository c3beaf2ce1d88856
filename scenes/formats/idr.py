"""IDR, NeuS and 2DGS layout of DTU and BlendedMVS scenes.

    cameras_sphere.npz   (NeuS: the object fills the unit sphere; preferred)
    cameras.npz          (IDR's name for the same)
    cameras_large.npz    (NeuS: a larger region in the unit sphere; used when it is the only one)
    image/000000.png ... (or images/, rgb/; any names, taken in their sorted order)
    mask/000.png ...     (optional; the same number, or the same names)

The i-th picture belongs to `world_mat_i` (4x4, its upper 3x4 is K [R | t] in pixels and the input's unit, millimetres
in DTU) and `scale_mat_i` (4x4, from the unit sphere to the input's frame, a uniform scale and a translation). Scene
coordinates are those of the unit sphere, `to_input` is scale_mat. When there are fewer pictures than matrices, the
number in a picture's name is its index. K is used as published: shifting the principal point by half a pixel changes no
epipolar distance in DTU measurably. Masks are white on the object. Split: none of its own; DTU scenes have customary
sparse splits.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinosplat.errors import InputError
from kinosplat.scenes.capture import Capture, RawPicture, Shot
from kinosplat.scenes.formats.checks import array, checked_K, read_arrays, rigid
from kinosplat.scenes.formats.folders import first_folder, pictures_in
from kinosplat.scenes.images import image_size
from kinosplat.scenes.options import LoadOptions
from kinosplat.scenes.scene import Similarity

CAMERA_FILES = ("cameras_sphere.npz", "cameras.npz", "cameras_large.npz")
IMAGE_FOLDERS = ("image", "images", "rgb")
NO_SKEW = 0.01
"""Pixels; a smaller skew is what float32 left of none."""


def matches(root: Path) -> bool:
    """Whether one of the camera files is there."""
    return any((root / name).is_file() for name in CAMERA_FILES)


def read(root: Path, options: LoadOptions) -> Capture:
    """Read a folder in this layout."""
    path = next(root / name for name in CAMERA_FILES if (root / name).is_file())
    matrices = read_arrays(path)
    folder = first_folder(root, IMAGE_FOLDERS)
    pictures = pictures_in(folder)
    numbers = _numbers(pictures, matrices, path, folder)
    masks = _masks(root, pictures)
    shots = []
    for index, (picture, mask, i) in enumerate(zip(pictures, masks, numbers, strict=True)):
        where = f"{path} world_mat_{i}"
        K, world_to_camera = decompose_projection(matrices[f"world_mat_{i}"], where)
        width, height = image_size(picture)
        shots.append(
            Shot(
                name=picture.stem,
                camera_index=index,
                world_to_camera=world_to_camera,
                K=K,
                width=width,
                height=height,
                picture=RawPicture(picture),
                mask=None if mask is None else RawPicture(mask),
            )
        )
    return Capture(
        format="idr",
        shots=tuple(shots),
        masks_cut_out=True,
        normalisation=_normalisation(matrices, numbers, path),
        is_dtu=re.search(r"scan_?\d+$", root.resolve().name) is not None,
    )


def decompose_projection(
    projection: NDArray[np.float64], where: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """K (3, 3) and the rigid world_to_camera (4, 4) of a projection P = s K [R | t] (at least 3 x 4), by RQ
    decomposition.
    """
    from scipy.linalg import rq  # half a second that most commands need not wait

    P = array(projection, projection.shape, where)[:3]
    if P.shape != (3, 4) or abs(np.linalg.det(P[:, :3])) <= 1e-12 * np.linalg.norm(P[:, :3]) ** 3:
        raise InputError(f"{where} is singular; remove that camera or calibrate it again.")
    P = P * np.sign(np.linalg.det(P[:, :3]))
    K, R = rq(P[:, :3])
    signs = np.diag(np.sign(np.diag(K)))
    K, R = K @ signs, signs @ R
    translation = np.linalg.solve(K, P[:, 3])
    K = K / K[2, 2]
    if abs(K[0, 1]) < NO_SKEW:
        K[0, 1] = 0.0
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = R
    world_to_camera[:3, 3] = translation
    return checked_K(K, where), rigid(world_to_camera, where)


def _numbers(pictures: list[Path], matrices: dict[str, NDArray[np.float64]], path: Path, folder: Path) -> list[int]:
    """Which matrix belongs to each picture."""
    known = sorted(int(name.removeprefix("world_mat_")) for name in matrices if re.fullmatch(r"world_mat_\d+", name))
    if not known:
        raise InputError(f"{path} has no cameras (no world_mat_0); is it the right file?")
    if len(known) == len(pictures):
        return known
    numbers = [int(picture.stem) if picture.stem.isdecimal() else -1 for picture in pictures]
    if not set(numbers) <= set(known):
        raise InputError(
            f"{folder} holds {len(pictures)} pictures but {path.name} has {len(known)} cameras (world_mat_i); "
            "remove what does not belong, or name each picture by its camera's number."
        )
    return numbers


def _masks(root: Path, pictures: list[Path]) -> list[Path] | list[None]:
    folder = next((root / name for name in ("mask", "masks") if (root / name).is_dir()), None)
    if folder is None:
        return [None] * len(pictures)
    masks = pictures_in(folder)
    if len(masks) == len(pictures):
        return masks
    by_stem = {mask.stem.lstrip("0"): mask for mask in masks}
    missing = [picture for picture in pictures if picture.stem.lstrip("0") not in by_stem]
    if missing:
        raise InputError(
            f"{folder} has no mask for {missing[0].name}; add it, or remove the folder to train without masks."
        )
    return [by_stem[picture.stem.lstrip("0")] for picture in pictures]


def _normalisation(matrices: dict[str, NDArray[np.float64]], numbers: list[int], path: Path) -> Similarity | None:
    """scale_mat as a similarity, the same for all cameras."""
    first = matrices.get(f"scale_mat_{numbers[0]}")
    if first is None:
        return None
    where = f"{path} scale_mat_{numbers[0]}"
    scale_mat = array(first, (4, 4), where)
    scale = float(scale_mat[0, 0])
    # float32 archives keep about seven digits.
    tolerance = 1e-5 * abs(scale)
    if scale <= 0 or np.abs(scale_mat[:3, :3] - scale * np.eye(3)).max() > tolerance:
        raise InputError(f"{where} is not a uniform scale with a translation; normalise the scene without rotating it.")
    for i in numbers:
        other = matrices.get(f"scale_mat_{i}", first)
        if np.abs(other[:3] - first[:3]).max() > tolerance:
            raise InputError(
                f"{path} scale_mat_{i} differs from scale_mat_{numbers[0]}; use one normalisation for the scene."
            )
    return Similarity(scale, (float(scale_mat[0, 3]), float(scale_mat[1, 3]), float(scale_mat[2, 3])))
