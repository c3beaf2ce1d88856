"""`kinosplat render`: views of a run or a file as pictures or video.

`--views` says from where: held-out or training cameras of a run, an orbit, or the JSON of a camera path
(render/paths/file.py).
`--out` says as what: a name with a video ending is one video, a name with a picture ending one sheet of all the views,
anything else a folder of pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from kinosplat.commands.marching import marching_by
from kinosplat.display import rendering
from kinosplat.errors import InputError
from kinosplat.opening import check_time, open_subject
from kinosplat.render.camera import Camera
from kinosplat.render.field.march import MarchBy
from kinosplat.render.media import (
    IMAGE_ENDINGS,
    VIDEO_CODECS,
    PictureWriter,
    VideoWriter,
    colorize,
    depth_range,
    to_uint8,
    write_image,
)
from kinosplat.render.output import RenderOutput
from kinosplat.render.paths import load_camera_path, orbit
from kinosplat.scenes import FrameLoader, View
from kinosplat.trainers.evaluate import spread
from kinosplat.trainers.methods.option_checks import at_least
from kinosplat.viewer.subject import Subject

Channel = Literal["rgb", "depth", "alpha", "normal"]
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class RenderCommand:
    """Render a run or a file: test or training views, an orbit, or a camera path, as pictures, a sheet, or video."""

    what: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, or a file (.kino, .ply, .spz, .sog, .splat, .glb, .4dgs)."""
    views: str | None = None
    """test or train (of a run), orbit, or the JSON file of a camera path; by default test of a run, orbit of a file."""
    out: Path | None = None
    """A video (.mp4, .webm), one sheet of all views (.png, .jpg, .webp), or a folder of pictures; by default the folder
    renders/<views> of the run, or NAME_renders/<views> beside the file."""
    channels: tuple[Channel, ...] = ("rgb",)
    """What to draw, side by side: rgb, depth (near blue, far red), alpha, normal (world axes as colours)."""
    side_by_side: bool = False
    """Put the photo to the left of each test or train view."""
    max_views: int | None = None
    """At most this many test or train views, spread evenly."""
    n_frames: int = 120
    """Frames of an orbit."""
    fps: float = 30.0
    """Frames a second of a video; a camera path is sampled at this rate."""
    time: float | None = None
    """Hold a moving scene at this moment, in seconds."""
    resolution: tuple[int, int] | None = None
    """Width and height; by default those of the run's pictures, or 960 720 of a file that names no camera."""
    checkpoint: Literal["last", "best"] = "last"
    """Which checkpoint of the run."""
    march: MarchBy = "rays"
    """How pictures of a field find their samples: along each ray, or by the occupied blocks of cells (of objects),
    pass by pass and not in one go."""
    device: str = "auto"
    """cpu, cuda, cuda:1, or auto."""


def run(arguments: Sequence[str], program: str) -> int:
    """Render and write; prints where to."""
    command = tyro.cli(RenderCommand, args=arguments, prog=program)
    if command.max_views is not None:
        at_least("--max-views", command.max_views, 1)
    if command.resolution is not None:
        at_least("--resolution", min(command.resolution), 1)
    subject = open_subject(command.what, checkpoint=command.checkpoint, device=command.device)
    check_time(subject, command.time)
    subject = marching_by(subject, command.march)
    where = command.views or ("orbit" if subject.photos is None else "test")
    views = photos_of(command, subject, where) if where in ("test", "train") else ()
    cameras = [view.camera for view in views] if views else path_cameras(command, subject, where)
    if command.time is not None:
        cameras = [camera.at(command.time if is_moving(subject) else None) for camera in cameras]
    if command.resolution is not None:
        cameras = [camera.resized(*command.resolution) for camera in cameras]
    if command.side_by_side and not views:
        raise InputError("--side-by-side needs photos; use it with --views test or --views train.")
    names = [view.name for view in views] or [f"{i:05d}" for i in range(len(cameras))]
    out = command.out or default_folder(command.what, subject) / (where if views or where == "orbit" else "path")
    write = write_video if out.suffix in VIDEO_CODECS else write_sheet if out.suffix in IMAGE_ENDINGS else write_folder
    n_written = write(out, command, names, pictures(command, subject, cameras, views))
    print(f"{n_written} views in {out}")
    return 0


def default_folder(what: Path, subject: Subject) -> Path:
    """Where pictures go that nobody says a place for."""
    return what.with_name(f"{what.stem}_renders") if subject.folder is None else subject.folder / "renders"


def is_moving(subject: Subject) -> bool:
    """Whether pictures of it need a moment."""
    return len(subject.times) > 1


def photos_of(command: RenderCommand, subject: Subject, where: str) -> tuple[View, ...]:
    """The test or train views that are asked for; at least one."""
    photos = subject.photos
    if photos is None:
        raise InputError(
            f"{command.what} is a file, which has no {where} views; choose --views orbit or the JSON of a camera path."
        )
    views = photos.views[photos.n_train :] if where == "test" else photos.views[: photos.n_train]
    if not views:
        raise InputError(f"{subject.label} has no {where} views; choose --views train or --views orbit.")
    return tuple(spread(views, command.max_views))


def path_cameras(command: RenderCommand, subject: Subject, where: str) -> list[Camera]:
    """Cameras of an orbit around the scene, or of the path in a file; at the size of the run's pictures."""
    photos, moves = subject.photos, is_moving(subject)
    around = subject.cameras if photos is None else [view.camera for view in photos.views[: photos.n_train]]
    if where == "orbit":
        if command.n_frames < 1:
            raise InputError(f"--n-frames must be at least 1, got {command.n_frames}.")
        return orbit(around, command.n_frames, times=(subject.times[0], subject.times[-1]) if moves else None)
    width, height = command.resolution or (around[0].width, around[0].height)
    cameras = load_camera_path(where, subject.to_input).cameras(width, height, command.fps)
    if moves and cameras[0].time is None and command.time is None:
        raise InputError(f"{where} has no times, but {subject.label} moves; add --time to hold it at a moment.")
    return [camera if moves else camera.at(None) for camera in cameras]


@torch.no_grad()
def pictures(
    command: RenderCommand, subject: Subject, cameras: Sequence[Camera], views: Sequence[View]
) -> Iterator[Picture]:
    """One picture a camera: the photo, if asked for, and the channels, from left to right."""
    painters: dict[Channel, Callable[[RenderOutput], Picture]] = {
        "rgb": lambda output: to_uint8(output.rgb[0]),
        "alpha": lambda output: to_uint8(output.alpha[0, ..., None].expand(-1, -1, 3)),
        "normal": lambda output: to_uint8(0.5 + 0.5 * _given(output.normal)[0]),
        "depth": DepthPainter(),
    }
    geometry = not set(command.channels) <= {"rgb", "alpha"}
    background = subject.background
    with ExitStack() as stack:
        photos = stack.enter_context(FrameLoader(views)) if command.side_by_side else None
        for i, camera in enumerate(rendering(cameras)):
            output = subject.render(camera.to(background.device), background, geometry=geometry)
            row = [painters[channel](output) for channel in command.channels]
            if photos is not None:
                photos.prefetch(range(i, min(i + 4, len(views))))
                row.insert(0, _photo(photos.get(i).image, camera))
            yield np.concatenate(row, axis=1)


class DepthPainter:
    """Depth as colours, with the range of the first picture for all, so that a video does not flicker."""

    def __init__(self) -> None:
        self._range: tuple[float, float] | None = None

    def __call__(self, output: RenderOutput) -> Picture:
        """(H, W, 3) colours of the expected depth; black where less than half is covered."""
        depth = _given(output.depth)[0]
        if self._range is None:
            self._range = depth_range(depth, output.alpha[0])
        return colorize(depth, *self._range, valid=output.alpha[0] > 0.5)


def _given(channel: Tensor | None) -> Tensor:
    assert channel is not None
    return channel


def _photo(image: Tensor, camera: Camera) -> Picture:
    """The photo at the size of the rendering beside it."""
    if image.shape[:2] != (camera.height, camera.width):
        size = (camera.height, camera.width)
        planes = image.permute(2, 0, 1)[None]
        image = torch.nn.functional.interpolate(planes, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    return to_uint8(image)


def write_video(out: Path, command: RenderCommand, names: Sequence[str], frames: Iterator[Picture]) -> int:
    """All pictures as one video; returns how many."""
    with VideoWriter(out, command.fps) as video:
        for frame in frames:
            video.write(frame)
    return video.n_frames


def write_sheet(out: Path, command: RenderCommand, names: Sequence[str], frames: Iterator[Picture]) -> int:
    """All pictures below and beside one another in one; returns how many. They must be of one size."""
    rows = list(frames)
    if len({row.shape for row in rows}) != 1:
        raise InputError(f"{out}: the views differ in size; add --resolution, or give a folder.")
    height, width = rows[0].shape[:2]
    # As many columns as make the sheet about as wide as a screen is, 16 : 9.
    n_columns = max(1, min(len(rows), round((len(rows) * height * 16 / (width * 9)) ** 0.5)))
    n_lines = -(-len(rows) // n_columns)
    sheet = np.zeros((n_lines * height, n_columns * width, 3), dtype=np.uint8)
    for i, row in enumerate(rows):
        line, column = divmod(i, n_columns)
        sheet[line * height : (line + 1) * height, column * width : (column + 1) * width] = row
    write_image(out, sheet)
    return len(rows)


def write_folder(out: Path, command: RenderCommand, names: Sequence[str], frames: Iterator[Picture]) -> int:
    """One .png a view, named as it is; returns how many."""
    with PictureWriter() as writer:
        for name, frame in zip(names, frames, strict=True):
            writer.write(out / f"{name}.png", frame)
    return len(names)
