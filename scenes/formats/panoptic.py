"""CMU Panoptic in the layout of Dynamic 3D Gaussians (Luiten et al. 2024).

    train_meta.json, test_meta.json
    ims/CAM/FRAME.jpg           CAM a number, FRAME six digits
    seg/CAM/FRAME.png           (optional) 1 on people and objects, 0 on the stage around
    init_pt_cld.npz             (optional) `data` (P, 7): x y z, red green blue in [0, 1], segment

Each JSON file has `w`, `h` (pixels, the same for all), and by frame and camera `k` (3x3, pixels), `w2c` (4x4, OpenCV
axes, metres), `fn` ("CAM/FRAME.jpg" under ims/) and `cam_id`. Without test_meta.json there is no split of its own. 30
frames a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kinosplat.errors import InputError
from kinosplat.scenes.capture import Capture, RawPicture, RawPoints, Shot
from kinosplat.scenes.formats.checks import (
    array,
    check_points,
    checked_K,
    field,
    items,
    read_arrays,
    read_json,
    rigid,
    text,
    whole,
)
from kinosplat.scenes.options import LoadOptions

FPS = 30.0
NEAR = 1.0
"""Metres; Dynamic 3D Gaussians draws nothing nearer to a camera, where no other camera of the dome looks."""


def matches(root: Path) -> bool:
    """Whether train_meta.json is there."""
    return (root / "train_meta.json").is_file()


def read(root: Path, options: LoadOptions) -> Capture:
    """Read a folder in this layout."""
    parts: list[tuple[Literal["train", "test"], Path]] = [("train", root / "train_meta.json")]
    if (root / "test_meta.json").is_file():
        parts.append(("test", root / "test_meta.json"))
    metas = [(split, path, read_json(path)) for split, path in parts]
    ids = {camera for _, path, meta in metas for of_frame in _camera_ids(path, meta) for camera in of_frame}
    index_of = {camera: index for index, camera in enumerate(sorted(ids))}
    shots = [shot for split, path, meta in metas for shot in _shots(root, path, meta, split, index_of)]
    if not shots:
        raise InputError(f"{root / 'train_meta.json'} has no cameras (cam_id is empty); check that it is complete.")
    shots.sort(key=lambda shot: (shot.camera_index, shot.frame))
    return Capture(format="panoptic", shots=tuple(shots), points=_points(root), fps=FPS, near=NEAR, colors_differ=True)


def _shots(
    root: Path, path: Path, meta: dict[str, Any], split: Literal["train", "test"], index_of: dict[int, int]
) -> list[Shot]:
    width, height = (whole(field(meta, key, path), f"{path} {key}") for key in ("w", "h"))
    cameras = _camera_ids(path, meta)
    files, all_K, all_poses = (items(field(meta, key, path), f"{path} {key}") for key in ("fn", "k", "w2c"))
    for key, values in (("fn", files), ("k", all_K), ("w2c", all_poses)):
        lengths = [len(items(of_frame, f"{path} {key}[{t}]")) for t, of_frame in enumerate(values)]
        if lengths != [len(of_frame) for of_frame in cameras]:
            raise InputError(f"{path} {key} and cam_id are of different length; both list every camera of every frame.")
    pictures, segments = root / "ims", root / "seg"
    has_masks = segments.is_dir()
    calibration = _Calibration(path)
    shots = []
    for t, of_frame in enumerate(cameras):
        for c, camera in enumerate(of_frame):
            name = text(files[t][c], f"{path} fn[{t}][{c}]")
            pose, K = calibration.of(camera, all_poses[t][c], all_K[t][c], f"[{t}][{c}]")
            mask = RawPicture((segments / name).with_suffix(".png")) if has_masks else None
            shots.append(
                Shot(
                    name=f"cam{camera:02d}/{t:06d}",
                    camera_index=index_of[camera],
                    world_to_camera=pose,
                    K=K,
                    width=width,
                    height=height,
                    picture=RawPicture(pictures / name),
                    mask=mask,
                    time=t / FPS,
                    frame=t,
                    split=split,
                )
            )
    return shots


class _Calibration:
    """Checked matrices; those of a camera that stands still are checked once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: dict[int, tuple[Any, Any, NDArray[np.float64], NDArray[np.float64]]] = {}

    def of(self, camera: int, pose: Any, K: Any, index: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """world_to_camera (4, 4) and K (3, 3) out of JSON lists."""
        last = self._last.get(camera)
        if last is None or last[0] != pose or last[1] != K:
            checked = rigid(pose, f"{self._path} w2c{index}"), checked_K(K, f"{self._path} k{index}")
            self._last[camera] = last = (pose, K, *checked)
        return last[2], last[3]


def _camera_ids(path: Path, meta: dict[str, Any]) -> list[list[int]]:
    """`cam_id`, by frame and camera."""
    where = f"{path} cam_id"
    frames = items(field(meta, "cam_id", path), where)
    return [[whole(camera, where) for camera in items(of_frame, f"{where}[{t}]")] for t, of_frame in enumerate(frames)]


def _points(root: Path) -> RawPoints | None:
    path = root / "init_pt_cld.npz"
    if not path.is_file():
        return None
    data = array(field(read_arrays(path), "data", path), (-1, 7), f"{path} data")
    check_points(data[:, :3], path)
    return RawPoints(data[:, :3], np.rint(np.clip(data[:, 3:6], 0, 1) * 255).astype(np.uint8))
