"""COLMAP reconstructions, text or binary, of any version.

    sparse/0/ (or sparse/, colmap/sparse/0/, the root itself)
        cameras.bin, images.bin, points3D.bin    (or .txt; points3D is optional)
        rigs.bin, frames.bin                     (3.12 and later; not needed, since images hold the pose of every
        picture)
    images/                                      (or input/, image/, rgb/) names as in images.bin, subfolders included
    images_2/, images_4/, images_8/              (optional) taken when just that downscale is asked for
    masks/NAME.png                               (optional) NAME with its suffix (`masks/a.jpg.png`), black is not
    looked at

Poses are world to camera in OpenCV axes, quaternions wxyz; pixel centres are at +0.5, as everywhere here. Every
perspective and fisheye camera model is read (`colmap_cameras`); points come with their colours. No split of its own.
"""

from __future__ import annotations

from pathlib import Path

from kinosplat.errors import InputError
from kinosplat.scenes.capture import Capture, RawPicture, Shot
from kinosplat.scenes.formats.colmap_cameras import read_cameras
from kinosplat.scenes.formats.colmap_images import Pose, read_poses
from kinosplat.scenes.formats.colmap_points import read_points3D
from kinosplat.scenes.formats.folders import first_folder
from kinosplat.scenes.formats.scaled import with_scaled_pictures
from kinosplat.scenes.options import LoadOptions

MODEL_FOLDERS = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", ".")
IMAGE_FOLDERS = ("images", "input", "image", "rgb")


def matches(root: Path) -> bool:
    """Whether there is a model with cameras and images."""
    return _model_folder(root) is not None


def read(root: Path, options: LoadOptions) -> Capture:
    """Read a folder in this layout."""
    model = _model_folder(root)
    if model is None:
        raise InputError(f"{root} has no COLMAP model; put cameras and images (.bin or .txt) into sparse/0.")
    cameras = read_cameras(_file(model, "cameras"))
    images_path = _file(model, "images")
    # As text, which is the order in which INRIA's code holds out every 8th picture.
    poses = sorted(read_poses(images_path), key=lambda pose: pose.name)
    if not poses:
        raise InputError(f"{images_path} has no cameras (no registered images); run the reconstruction again.")
    folder = first_folder(root, IMAGE_FOLDERS)
    shots = []
    for index, pose in enumerate(poses):
        if pose.camera_id not in cameras:
            raise InputError(
                f"{images_path} camera {pose.camera_id} of {pose.name} is not in {_file(model, 'cameras').name}."
            )
        camera = cameras[pose.camera_id]
        shots.append(
            Shot(
                name=pose.name.removesuffix(Path(pose.name).suffix),
                camera_index=index,
                world_to_camera=pose.world_to_camera,
                K=camera.K,
                width=camera.width,
                height=camera.height,
                picture=RawPicture(folder / pose.name),
                mask=_mask(root, pose),
                lens=camera.lens,
            )
        )
    shots, downscaled = with_scaled_pictures(shots, root, folder, options)
    points = _optional_file(model, "points3D")
    return Capture(
        format="colmap",
        shots=tuple(shots),
        points=None if points is None else read_points3D(points),
        downscaled=downscaled,
    )


def _model_folder(root: Path) -> Path | None:
    for name in MODEL_FOLDERS:
        folder = root / name
        if _optional_file(folder, "cameras") is not None and _optional_file(folder, "images") is not None:
            return folder
    return None


def _optional_file(model: Path, name: str) -> Path | None:
    return next((path for path in (model / f"{name}.bin", model / f"{name}.txt") if path.is_file()), None)


def _file(model: Path, name: str) -> Path:
    path = _optional_file(model, name)
    if path is None:
        raise InputError(f"{model} has neither {name}.bin nor {name}.txt; copy the model again.")
    return path


def _mask(root: Path, pose: Pose) -> RawPicture | None:
    path = root / "masks" / f"{pose.name}.png"
    return RawPicture(path) if path.is_file() else None
