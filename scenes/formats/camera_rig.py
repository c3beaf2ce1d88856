"""The project's own layout for multi-view video: `cameras.json` and one video (or one folder of pictures) a camera.

The schema is written down in docs/camera_rig.md. All videos start at the same moment, up to each camera's
`time_offset`, and show `n_frames` frames at `fps`. A video that is shorter, of another size, or missing is refused when
the scene is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kinosplat.errors import InputError
from kinosplat.scenes.capture import Capture, RawPicture, Shot
from kinosplat.scenes.distortion import COEFFICIENTS, Lens
from kinosplat.scenes.formats.checks import array, checked_K, field, items, number, read_json, rigid, text, whole
from kinosplat.scenes.formats.folders import natural_order, pictures_in
from kinosplat.scenes.formats.ply import read_points
from kinosplat.scenes.options import LoadOptions
from kinosplat.scenes.video import index_video

FORMAT = "kinosplat-camera-rig"
VERSION = 1


def matches(root: Path) -> bool:
    """Whether cameras.json is there and says that it is one of ours."""
    path = root / "cameras.json"
    # Other tools write files of this name too; ours names its format near the beginning.
    return path.is_file() and FORMAT.encode() in path.open("rb").read(4096)


def read(root: Path, options: LoadOptions) -> Capture:
    """Read a folder in this layout."""
    path = root / "cameras.json"
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise InputError(f"{path} has format {content.get('format')!r} instead of {FORMAT!r}; is it the right file?")
    if content.get("version") != VERSION:
        raise InputError(
            f"{path} has version {content.get('version')!r}, but only {VERSION} can be read; update kinosplat."
        )
    fps = number(field(content, "fps", path), f"{path} fps")
    n_frames = whole(field(content, "n_frames", path), f"{path} n_frames")
    if fps <= 0 or n_frames < 1:
        raise InputError(f"{path} has fps {fps:g} and n_frames {n_frames}; both must be positive.")
    cameras = items(field(content, "cameras", path), f"{path} cameras")
    if not cameras:
        raise InputError(f"{path} has no cameras; list at least one under 'cameras'.")
    wheres = [f"{path} cameras[{i}]" for i in range(len(cameras))]
    names = [text(field(camera, "name", w), f"{w} name") for camera, w in zip(cameras, wheres, strict=True)]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"{path} has two cameras named {repeated!r}; give each its own name.")
    shots = [
        shot
        for index, camera in enumerate(cameras)
        for shot in _shots(root, camera, index, fps, n_frames, wheres[index])
    ]
    up = array(content["up"], (3,), f"{path} up") if "up" in content else None
    return Capture(
        format="camera_rig",
        shots=tuple(shots),
        points=read_points(root / text(content["points"], f"{path} points")) if content.get("points") else None,
        fps=fps,
        up=None if up is None else (float(up[0]), float(up[1]), float(up[2])),
    )


def _shots(root: Path, camera: dict[str, Any], index: int, fps: float, n_frames: int, where: str) -> list[Shot]:
    """All frames of one camera."""
    name = camera["name"]
    width, height = (whole(field(camera, key, where), f"{where} {key}") for key in ("width", "height"))
    K = checked_K(field(camera, "K", where), f"{where} K")
    world_to_camera = rigid(field(camera, "world_to_camera", where), f"{where} world_to_camera")
    lens = _lens(camera.get("distortion"), f"{where} distortion")
    split = camera.get("split")
    if split not in (None, "train", "test"):
        raise InputError(f"{where} split is {split!r}; use 'train' or 'test', or leave it out.")
    offset = number(camera.get("time_offset", 0.0), f"{where} time_offset")
    pictures = _frames(root / text(field(camera, "video", where), f"{where} video"), width, height, n_frames, where)
    masks = (
        _frames(root / text(camera["mask_video"], f"{where} mask_video"), width, height, n_frames, where)
        if camera.get("mask_video")
        else [None] * n_frames
    )
    return [
        Shot(
            name=f"{name}/{t:06d}",
            camera_index=index,
            world_to_camera=world_to_camera,
            K=K,
            width=width,
            height=height,
            picture=pictures[t],
            mask=masks[t],
            lens=lens,
            time=t / fps + offset,
            frame=t,
            split=split,
        )
        for t in range(n_frames)
    ]


def _frames(path: Path, width: int, height: int, n_frames: int, where: str) -> list[RawPicture]:
    """The frames of a video file, or the pictures of a folder in the order of their names."""
    if path.is_dir():
        pictures = sorted(pictures_in(path), key=lambda picture: natural_order(picture.name))
        frames = [RawPicture(picture) for picture in pictures]
    else:
        video = index_video(path)
        if (video.width, video.height) != (width, height):
            raise InputError(
                f"{path} is {video.width}x{video.height} pixels but {where} says {width}x{height}; "
                "scale one of the two so that they agree."
            )
        frames = [RawPicture(path, i) for i in range(video.n_frames)]
    if len(frames) < n_frames:
        raise InputError(
            f"{path} has {len(frames)} frames but n_frames is {n_frames}; record the missing frames or lower n_frames."
        )
    return frames[:n_frames]


def _lens(distortion: Any, where: str) -> Lens:
    if distortion is None:
        return Lens()
    model = field(distortion, "model", where)
    if not isinstance(model, str) or model not in COEFFICIENTS:
        raise InputError(f"{where} model {model!r} is not known; use one of {', '.join(COEFFICIENTS)}.")
    unknown = sorted(set(distortion) - {"model", *COEFFICIENTS[model]})
    if unknown:
        known = ", ".join(COEFFICIENTS[model]) or "none"
        raise InputError(f"{where} has {unknown[0]!r}, which the model {model} does not have; it has {known}.")
    values = {key: number(value, f"{where} {key}") for key, value in distortion.items() if key != "model"}
    return Lens.from_names(model, values)
