"""A path as JSON, which is what `kinosplat render --views FILE` takes (render/paths/file.py), in the input's frame.

The page names no place on this machine's disk: files come and go through the browser, and what is stored beside the
run is a plain name in its folder `paths`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from viser import Icon

from kinosplat.errors import InputError
from kinosplat.render.paths import CameraPath, load_camera_path, save_camera_path
from kinosplat.viewer.controls.build import QUIET, show_value
from kinosplat.viewer.storage import Storage

if TYPE_CHECKING:
    from viser import GuiUploadButtonHandle

    from kinosplat.viewer.session import Session

CHOOSE = "open …"
"""Entry of the list of stored paths that is none of them."""


class PathFiles:
    """Controls that save the path `path` gives (InputError where there is none) and hand `opened` those of files."""

    def __init__(self, session: Session, path: Callable[[], CameraPath], opened: Callable[[CameraPath], None]) -> None:
        self.session, self._path, self._opened = session, path, opened
        folder = session.subject.folder
        self.storage = None if folder is None else Storage(folder / "paths", ".json")
        gui = session.client.gui
        self.download = gui.add_button("Save as JSON", icon=Icon.DOWNLOAD, color=QUIET)
        self.upload = gui.add_upload_button("Load JSON", icon=Icon.UPLOAD, color=QUIET, mime_type="application/json")
        if self.storage is not None:
            names = self.storage.names()
            self.stored = gui.add_dropdown(
                "Stored paths",
                [CHOOSE, *names],
                initial_value=CHOOSE,
                visible=bool(names),
                hint="Of the folder `paths` of the run.",
            )
            self.name = gui.add_text("Name", "path", hint="Of a file in the folder `paths` of the run.")
            self.store = gui.add_button("Store with the run", icon=Icon.DEVICE_FLOPPY, color=QUIET)
            self.stored.on_update(lambda _: self._open_stored())
            self.store.on_click(lambda _: self._store())
        self.download.on_click(lambda _: self._download())
        self.upload.on_upload(lambda event: self._load(event.target))

    def _download(self) -> None:
        with self.session.telling(), tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "path.json"
            save_camera_path(file, self._path(), self.session.subject.to_input)
            self.session.client.send_file_download(file.name, file.read_bytes(), save_immediately=True)

    def _store(self) -> None:
        assert self.storage is not None
        with self.session.telling():
            file = self.storage.path(self.name.value)
            path = self._path()
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
        """Hand over the path of a file; InputError, which does not say where the file is, if it cannot be used."""
        try:
            path = load_camera_path(file, self.session.subject.to_input)
        except InputError as error:
            raise InputError(str(error).replace(str(file), "The file")) from None
        self._opened(path)
