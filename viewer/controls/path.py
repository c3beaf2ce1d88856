"""A camera path: key frames with the moment of the clip, preview, JSON in and out, and a video of it.

Every key frame is a small camera in the scene; a click on it looks from there at its moment. The JSON is what
`kinosplat render --views FILE` takes (render/paths/file.py), in the frame of the input. The page names no place on
this machine's disk: files come and go through the browser, and what is stored beside the run is a plain name in its
folder `paths`.
"""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from viser import Icon

from kinosplat.errors import InputError
from kinosplat.render.media import VideoWriter
from kinosplat.render.paths import CameraPath, Keyframe, load_camera_path, save_camera_path
from kinosplat.viewer.controls.build import QUIET, PlainPanel, show_value
from kinosplat.viewer.draw import draw
from kinosplat.viewer.encode import to_pixels
from kinosplat.viewer.lens import radius_of
from kinosplat.viewer.storage import Storage

if TYPE_CHECKING:
    from viser import CameraFrustumHandle, GuiUploadButtonHandle

    from kinosplat.viewer.session import Session

PREVIEW_FPS = 30.0
SIZES = {"640 × 360": (640, 360), "1280 × 720": (1280, 720), "1920 × 1080": (1920, 1080)}
FORMATS = {"MP4 (H.264)": ".mp4", "WebM (VP9)": ".webm"}
PATH_COLOR = (64, 140, 255)
CHOOSE = "open …"
"""Entry of the list of stored paths that is none of them."""
KEY_SIZE = 0.05
"""Length of a key frame's camera in the scene, in parts of how far the cameras are from their middle."""


class PathPanel(PlainPanel):
    """Holds the key frames of one visitor."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.keys: list[Keyframe] = []
        self.flight, self.video = Job(), Job()
        self.scale = KEY_SIZE * radius_of(session.cameras)
        self.frusta: list[CameraFrustumHandle] = []
        folder = session.subject.folder
        self.storage = None if folder is None else Storage(folder / "paths", ".json")
        gui = session.client.gui
        with gui.add_folder("Camera path", expand_by_default=False):
            self.list = gui.add_markdown("")
            self.add = gui.add_button("Add this view", icon=Icon.PLUS)
            self.gap = gui.add_number("Seconds to it", 2.0, min=0.05, step=0.1, hint="From the key frame before.")
            self.edit = gui.add_button_group("Key frames", ["undo", "clear"])
            self.loop = gui.add_checkbox("Closed", False, hint="Go on from the last key frame back to the first.")
            self.preview = gui.add_button("Preview", icon=Icon.PLAYER_PLAY, color=QUIET)
            self.download = gui.add_button("Save as JSON", icon=Icon.DOWNLOAD, color=QUIET)
            self.upload = gui.add_upload_button(
                "Load JSON", icon=Icon.UPLOAD, color=QUIET, mime_type="application/json"
            )
            if self.storage is not None:
                names = self.storage.names()
                self.stored = gui.add_dropdown(
                    "Stored paths",
                    [CHOOSE, *names],
                    initial_value=CHOOSE,
                    visible=bool(names),
                    hint="Of the folder `paths` of the run.",
                )
                self.stored.on_update(lambda _: self._open_stored())
                self.name = gui.add_text("Name", "path", hint="Of a file in the folder `paths` of the run.")
                self.store = gui.add_button("Store with the run", icon=Icon.DEVICE_FLOPPY, color=QUIET)
                self.store.on_click(lambda _: self._store())
            self.video_size = gui.add_dropdown("Video", list(SIZES), initial_value="1280 × 720")
            self.video_fps = gui.add_number("Video FPS", 30, min=1, max=120, step=1)
            self.format = gui.add_dropdown("Format", list(FORMATS), initial_value="MP4 (H.264)")
            self.render = gui.add_button("Render video", icon=Icon.MOVIE, color=QUIET)
            self.progress = gui.add_progress_bar(0.0, visible=False)
        self.add.on_click(lambda _: self._add())
        self.edit.on_click(lambda event: self._edit(event.target.value))
        self.loop.on_update(lambda _: self._show())
        self.preview.on_click(lambda _: self._preview())
        self.download.on_click(lambda _: self._download())
        self.upload.on_upload(lambda event: self._load(event.target))
        self.render.on_click(lambda _: self._render())
        self._show()

    def path(self) -> CameraPath:
        """The path as it stands; InputError while it is empty."""
        if not self.keys:
            raise InputError("The path has no key frame yet; add views first.")
        closes = self.loop.value and len(self.keys) > 1
        return CameraPath(tuple(self.keys), seconds_to_start=self.gap.value if closes else None)

    def _add(self) -> None:
        seconds = self.keys[-1].seconds + self.gap.value if self.keys else 0.0
        self.keys.append(Keyframe.from_camera(self.session.camera(), seconds))
        self._show()

    def _edit(self, what: str) -> None:
        self.keys = self.keys[:-1] if what == "undo" else []
        self._show()

    def _show(self) -> None:
        """The key frames as a table, and the way in the scene."""
        if not self.keys:
            self.list.content = "Move the camera and add views; the path runs smoothly through them."
        else:
            moving = self.keys[0].time is not None
            rows = ["| | second | clip |", "|--:|--:|--:|"] if moving else ["| | second |", "|--:|--:|"]
            for i, key in enumerate(self.keys):
                rows.append(f"| {i + 1} | {key.seconds:.2f} |" + (f" {key.time:.2f} s |" if moving else ""))
            self.list.content = "\n".join(rows)
        scene = self.session.client.scene
        if len(self.keys) > 1:
            path = self.path()
            places = [key.position for key in path.at(np.linspace(0, path.duration, 20 * len(self.keys)).tolist())]
            points = np.stack([np.array(places[:-1]), np.array(places[1:])], axis=1)
            scene.add_line_segments("/path/way", points, PATH_COLOR, thickness=3.0, thickness_units="screen")
        else:
            scene.add_frame("/path/way", show_axes=False)
        with self.session.lock:
            for frustum in self.frusta:
                frustum.remove()
            self.frusta = [self._frustum(i) for i in range(len(self.keys))]
        self.tick(time.monotonic())
        self.session.set_objects("path", bool(self.keys))

    def _frustum(self, index: int) -> CameraFrustumHandle:
        key = self.keys[index]
        width, height = _page_size(self.session)
        handle = self.session.client.scene.add_camera_frustum(
            f"/path/keys/{index}",
            fov=math.radians(key.fov),
            aspect=width / height,
            scale=self.scale,
            thickness=2.0,
            thickness_units="screen",
            color=PATH_COLOR,
            wxyz=np.array(key.wxyz),
            position=np.array(key.position),
            visible=False,
            cast_shadow=False,
        )
        handle.on_click(lambda _: self.session.look_from(key.camera(*_page_size(self.session))))
        return handle

    def tick(self, now: float) -> None:
        """Key frames are there unless the page looks from right there, or flies along the path."""
        place = self.session.client.camera.position
        with self.session.lock:
            for frustum in self.frusta:
                is_near = float(np.linalg.norm(place - frustum.position)) < 2 * self.scale
                is_seen = not (is_near or self.flight.is_going)
                if frustum.visible != is_seen:
                    frustum.visible = is_seen

    def _preview(self) -> None:
        """Fly along the path; a second click stops."""
        with self.session.telling(), self.flight.going() as is_first:
            if not is_first:
                return
            path, session = self.path(), self.session
            self.preview.label, self.preview.icon = "Stop", Icon.PLAYER_STOP
            began, second = time.monotonic(), 0.0
            try:
                while second < path.duration and not self.flight.stop.wait(1 / PREVIEW_FPS):
                    second = min(time.monotonic() - began, path.duration)
                    session.look_from(path.at([self.keys[0].seconds + second])[0].camera(*_page_size(session)))
            finally:
                self.preview.label, self.preview.icon = "Preview", Icon.PLAYER_PLAY

    def _json(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "path.json"
            save_camera_path(file, self.path(), self.session.subject.to_input)
            return file.read_bytes()

    def _download(self) -> None:
        with self.session.telling():
            self.session.client.send_file_download("path.json", self._json(), save_immediately=True)

    def _store(self) -> None:
        assert self.storage is not None
        with self.session.telling():
            file = self.storage.path(self.name.value)
            path = self.path()
            file.parent.mkdir(parents=True, exist_ok=True)
            save_camera_path(file, path, self.session.subject.to_input)
            self.stored.options = [CHOOSE, *self.storage.names()]
            self.stored.visible = True
            self.session.tell(
                f"Stored as {file.parent.name}/{file.name}", "In the folder of the run, for kinosplat render --views."
            )

    def _load(self, button: GuiUploadButtonHandle) -> None:
        with self.session.telling(), tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "path.json"
            file.write_bytes(button.value.content)
            self._open(file)

    def _open_stored(self) -> None:
        assert self.storage is not None
        name = self.stored.value
        if name == CHOOSE:
            return
        with self.session.telling():
            self._open(self.storage.path(name))
            show_value(self.name, name)
        show_value(self.stored, CHOOSE)

    def _open(self, file: Path) -> None:
        """Take the path of a file; InputError, which does not say where the file is, if it cannot be used."""
        try:
            path = load_camera_path(file, self.session.subject.to_input)
        except InputError as error:
            raise InputError(str(error).replace(str(file), "The file")) from None
        moving = self.session.playback is not None
        if moving and path.keyframes[0].time is None:
            raise InputError("The file has no times, but this scene moves; give every key frame a time.")
        self.keys = [key if moving else replace(key, time=None) for key in path.keyframes]
        show_value(self.loop, path.seconds_to_start is not None)
        if path.seconds_to_start is not None:
            show_value(self.gap, path.seconds_to_start)
        self._show()

    def _render(self) -> None:
        """Render every frame at full quality and hand the video to the browser; a second click stops."""
        session = self.session
        with session.telling(), self.video.going() as is_first, tempfile.TemporaryDirectory() as folder:
            if not is_first:
                return
            width, height = SIZES[self.video_size.value]
            fps = float(self.video_fps.value)
            cameras = self.path().cameras(width, height, fps)
            if len(cameras) < 2:
                raise InputError("A video needs a way to go; add another view.")
            file = Path(folder) / f"path{FORMATS[self.format.value]}"
            look = session.look
            self.progress.visible = True
            show_value(self.progress, 0.0)
            self.render.label, self.render.icon = "Stop", Icon.PLAYER_STOP
            try:
                with VideoWriter(file, fps) as video:
                    for i, camera in enumerate(cameras):
                        if self.video.stop.is_set():
                            return
                        # Given back after every frame, so that everybody else goes on meanwhile.
                        with session.renderer.alone() as subject:
                            pixels = to_pixels(draw(subject, camera, look).picture)
                        video.write(pixels)
                        show_value(self.progress, 100.0 * (i + 1) / len(cameras))
                session.client.send_file_download(file.name, file.read_bytes(), save_immediately=True)
            finally:
                self.progress.visible = False
                self.render.label, self.render.icon = "Render video", Icon.MOVIE

    def close(self) -> None:
        """Stop what is going on."""
        self.flight.stop.set()
        self.video.stop.set()


class Job:
    """Something that goes on until it is done, or until it is asked for a second time."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._lock = threading.Lock()

    @property
    def is_going(self) -> bool:
        """Whether it goes on."""
        return self._lock.locked()

    @contextmanager
    def going(self) -> Iterator[bool]:
        """True where it may begin; False, after `stop` was set, where it goes on already."""
        if not self._lock.acquire(blocking=False):
            self.stop.set()
            yield False
            return
        try:
            self.stop.clear()
            yield True
        finally:
            self._lock.release()


def _page_size(session: Session) -> tuple[int, int]:
    camera = session.client.camera
    return max(camera.image_width, 16), max(camera.image_height, 16)
