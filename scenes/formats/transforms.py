"""transforms.json in its dialects: nerfstudio, instant-ngp, Blender's synthetic scenes, D-NeRF.

    transforms.json                          (nerfstudio, instant-ngp; one file), or
    transforms_train.json, transforms_test.json, transforms_val.json   (Blender, D-NeRF; val is not used)
    images/, train/, ... whatever `file_path` names, relative to the file; .png, .jpg, ... when it has no extension
    images_2/, images_4/, images_8/          (optional, nerfstudio) taken when just that downscale is asked for

Each of `frames` has `file_path` and `transform_matrix`, camera to world in OpenGL axes (right, up, backward).
Intrinsics and lens: see `transforms_camera`. Further fields, by dialect:

* nerfstudio: `mask_path` of a frame (black is not looked at), `ply_file_path` (first points, in the frame of the
  poses),
  `train_filenames` and `test_filenames` or `val_filenames` (the split; frames in no list are left out).
  `applied_transform` and `applied_scale` only tell how the poses came about, so they are not applied again: the input's
  frame is that of the poses.
* instant-ngp: `sharpness` marks frames written by colmap2nerf.py, which skips pictures it discarded: those whose file
  is gone are left
  out, as instant-ngp does. `n_frames` keeps the first so many. `dynamic_mask_NAME.png` beside a picture is white on
  what is not looked at. `aabb_scale`, `scale` and `offset` concern instant-ngp's own box and are not needed.
* Blender: RGBA pictures over white, +z is up.
* D-NeRF: `time` of a frame, from 0 to 1 over the clip, is taken as seconds.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from kinosplat.errors import InputError
from kinosplat.scenes.capture import Capture, RawPicture, Shot
from kinosplat.scenes.formats.checks import OPENGL_TO_OPENCV, field, invert_rigid, items, read_json, rigid, text, whole
from kinosplat.scenes.formats.folders import natural_order
from kinosplat.scenes.formats.ply import read_points
from kinosplat.scenes.formats.scaled import with_scaled_pictures
from kinosplat.scenes.formats.transforms_camera import FrameFields, read_camera
from kinosplat.scenes.options import LoadOptions

GUESSED_SUFFIXES = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG", ".bmp", ".webp")
Split = Literal["train", "test"]


def matches(root: Path) -> bool:
    """Whether transforms.json or transforms_train.json is there."""
    return (root / "transforms.json").is_file() or (root / "transforms_train.json").is_file()


def read(root: Path, options: LoadOptions) -> Capture:
    """Read a folder in one of these layouts."""
    path = root / "transforms.json"
    is_single = path.is_file()
    if is_single:
        top = read_json(path)
        shots = _with_listed_split(_frames(path, top, None), top, path)
    else:
        path = root / "transforms_train.json"
        top = read_json(path)
        shots = _frames(path, top, "train")
        if (root / "transforms_test.json").is_file():
            test_path = root / "transforms_test.json"
            shots += _frames(test_path, read_json(test_path), "test")
    if not shots:
        raise InputError(f"{path} has no cameras (frames is empty); check that it is complete.")
    shots, downscaled = with_scaled_pictures(shots, root, root / "images", options)
    points = (
        read_points(root / text(top["ply_file_path"], f"{path} ply_file_path")) if top.get("ply_file_path") else None
    )
    is_blender = "camera_angle_x" in top and "fl_x" not in top
    return Capture(
        format=f"transforms ({_dialect(top, is_single, is_blender, shots)})",
        shots=tuple(_numbered(shots)),
        points=points,
        up=(0.0, 0.0, 1.0) if is_blender else None,
        background=(1.0, 1.0, 1.0) if is_blender else None,
        downscaled=downscaled,
    )


def _dialect(top: dict[str, Any], is_single: bool, is_blender: bool, shots: list[Shot]) -> str:
    if any(shot.time is not None for shot in shots):
        return "D-NeRF"
    if is_blender and not is_single:
        return "Blender"
    return "instant-ngp" if "aabb_scale" in top else "nerfstudio"


def _frames(path: Path, top: dict[str, Any], split: Split | None) -> list[Shot]:
    """The shots of one file, in the order of their names."""
    frames = field(top, "frames", path)
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise InputError(f"{path} frames is not a list of objects; is it a transforms file?")
    numbered = [(i, _file_path(frame, f"{path} frames[{i}]"), frame) for i, frame in enumerate(frames)]
    if "n_frames" in top:
        numbered.sort(key=lambda entry: natural_order(entry[1]))
        numbered = numbered[: whole(top["n_frames"], f"{path} n_frames")]
    # As text, which is the order in which nerfstudio splits.
    numbered.sort(key=lambda entry: entry[1])
    may_be_gone = bool(numbered) and "sharpness" in numbered[0][2]
    shots = []
    for i, file_path, frame in numbered:
        picture = _resolve(path.parent, file_path)
        if may_be_gone and not picture.is_file():
            continue
        shots.append(_shot(path, picture, file_path, FrameFields(frame, top, f"{path} frames[{i}]"), split))
    if numbered and not shots:
        raise InputError(f"None of the pictures that {path} names exists; put them beside it or correct file_path.")
    return shots


def _file_path(frame: dict[str, Any], where: str) -> str:
    """The field, with forward slashes only; it must name a file."""
    file_path = text(field(frame, "file_path", where), f"{where} file_path").replace("\\", "/")
    if Path(file_path).name in ("", ".."):
        raise InputError(f"{where} file_path {file_path!r} does not name a picture; correct it.")
    return file_path


def _shot(path: Path, picture: Path, file_path: str, fields: FrameFields, split: Split | None) -> Shot:
    K, width, height, lens = read_camera(fields, picture)
    matrix = fields.get("transform_matrix")
    if matrix is None:
        raise InputError(f"{fields.where} has no field 'transform_matrix'; add it.")
    camera_to_world = rigid(matrix, f"{fields.where} transform_matrix")
    return Shot(
        name=_name(file_path),
        camera_index=0,
        world_to_camera=invert_rigid(camera_to_world @ OPENGL_TO_OPENCV),
        K=K,
        width=width,
        height=height,
        picture=RawPicture(picture),
        mask=_mask(path.parent, picture, fields),
        lens=lens,
        time=None if "time" not in fields else fields.number("time"),
        split=split,
    )


def _mask(folder: Path, picture: Path, fields: FrameFields) -> RawPicture | None:
    named = fields.get("mask_path")
    if named:
        return RawPicture(_resolve(folder, text(named, f"{fields.where} mask_path")))
    dynamic = picture.with_name(f"dynamic_mask_{picture.stem}.png")
    return RawPicture(dynamic, marks_outside=True) if dynamic.is_file() else None


def _resolve(folder: Path, file_path: str) -> Path:
    """The file that is meant, with the first extension under which it exists when it has none."""
    path = folder / file_path.replace("\\", "/")
    if path.suffix.lower() in GUESSED_SUFFIXES or path.is_file():
        return path
    candidates = [path.with_name(path.name + suffix) for suffix in GUESSED_SUFFIXES]
    return next((candidate for candidate in candidates if candidate.is_file()), candidates[0])


def _name(file_path: str) -> str:
    """`./images/a/0001.jpg` is called a/0001."""
    parts = [part for part in file_path.split("/") if part not in ("", ".", "..")]
    parts = parts[1:] if len(parts) > 1 and parts[0] == "images" else parts
    stem = parts[-1]
    suffix = Path(stem).suffix
    return "/".join([*parts[:-1], stem.removesuffix(suffix) if suffix.lower() in GUESSED_SUFFIXES else stem])


def _with_listed_split(shots: list[Shot], top: dict[str, Any], path: Path) -> list[Shot]:
    """The split of `train_filenames` and `test_filenames` (else `val_filenames`), when the file has them."""
    test_key = "test_filenames" if "test_filenames" in top else "val_filenames"
    if "train_filenames" not in top and test_key not in top:
        return shots
    split_of: dict[Path, Split] = {}
    keys: list[tuple[str, Split]] = [("train_filenames", "train"), (test_key, "test")]
    for key, split in keys:
        for name in items(field(top, key, path), f"{path} {key}"):
            split_of[_resolve(path.parent, text(name, f"{path} {key}"))] = split
    unmatched = set(split_of) - {shot.picture.path for shot in shots}
    if unmatched:
        raise InputError(
            f"{path} lists {min(unmatched).name} in its split but has no frame of that name; correct one of the two."
        )
    return [replace(shot, split=split_of[shot.picture.path]) for shot in shots if shot.picture.path in split_of]


def _numbered(shots: list[Shot]) -> list[Shot]:
    """Shots with camera indices and frames: one camera a picture in a static scene, else one for each pose that
    stays.
    """
    if all(shot.time is None for shot in shots):
        return [replace(shot, camera_index=i) for i, shot in enumerate(shots)]
    moments = {time: i for i, time in enumerate(sorted({shot.time or 0.0 for shot in shots}))}
    cameras: dict[bytes, int] = {}
    numbered = []
    for shot in shots:
        key = shot.world_to_camera.tobytes() + shot.K.tobytes()
        camera = cameras.setdefault(key, len(cameras))
        time = shot.time or 0.0
        numbered.append(replace(shot, camera_index=camera, time=time, frame=moments[time]))
    return sorted(numbered, key=lambda shot: (shot.camera_index, shot.frame))
