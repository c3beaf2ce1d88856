"""The video of a path: every frame at full quality, handed to the browser as a file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from viser import Icon

from kinosplat.errors import InputError
from kinosplat.render.media import VideoWriter
from kinosplat.render.paths import CameraPath
from kinosplat.viewer.controls.activity import Activity
from kinosplat.viewer.controls.build import QUIET, show_value
from kinosplat.viewer.draw import draw
from kinosplat.viewer.encode import to_pixels

if TYPE_CHECKING:
    from kinosplat.viewer.session import Session

SIZES = {"640 × 360": (640, 360), "1280 × 720": (1280, 720), "1920 × 1080": (1920, 1080)}
FORMATS = {"MP4 (H.264)": ".mp4", "WebM (VP9)": ".webm"}


class PathFilm:
    """Controls of the video of the path that `path` gives; InputError where there is none."""

    def __init__(self, session: Session, path: Callable[[], CameraPath]) -> None:
        self.session, self._path = session, path
        self.filming = Activity()
        gui = session.client.gui
        self.size = gui.add_dropdown("Video", list(SIZES), initial_value="1280 × 720")
        self.fps = gui.add_number("Video FPS", 30, min=1, max=120, step=1)
        self.format = gui.add_dropdown("Format", list(FORMATS), initial_value="MP4 (H.264)")
        self.render = gui.add_button("Render video", icon=Icon.MOVIE, color=QUIET)
        self.progress = gui.add_progress_bar(0.0, visible=False)
        self.render.on_click(lambda _: self._render())

    def _render(self) -> None:
        """Render every frame; a second click stops."""
        session = self.session
        with session.telling(), self.filming.going() as is_first, tempfile.TemporaryDirectory() as folder:
            if not is_first:
                return
            cameras = self._path().cameras(*SIZES[self.size.value], float(self.fps.value))
            if len(cameras) < 2:
                raise InputError("A video needs a way to go; add another view.")
            file = Path(folder) / f"path{FORMATS[self.format.value]}"
            look = session.look
            self.progress.visible = True
            show_value(self.progress, 0.0)
            self.render.label, self.render.icon = "Stop", Icon.PLAYER_STOP
            try:
                with VideoWriter(file, float(self.fps.value)) as video:
                    for i, camera in enumerate(cameras):
                        if self.filming.stop.is_set():
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
