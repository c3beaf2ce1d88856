"""A camera path: key frames with the moment of the clip, each of which can be changed, and a flight along them.

Key frames stand in the scene (path_scene.py), come and go as files (path_files.py) and are filmed (path_film.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from viser import Icon

from kinosplat.errors import InputError
from kinosplat.render.paths import CameraPath, Keyframe
from kinosplat.viewer.controls.activity import Activity
from kinosplat.viewer.controls.build import QUIET, PlainPanel, on_visitor, show_value
from kinosplat.viewer.controls.path_files import PathFiles
from kinosplat.viewer.controls.path_film import PathFilm
from kinosplat.viewer.controls.path_scene import PathScene
from kinosplat.viewer.path_edit import PathEdit

if TYPE_CHECKING:
    from kinosplat.viewer.session import Session

PREVIEW_FPS = 30.0
GO, REPLACE, DELETE = "go to", "replace", "delete"
UNDO, CLEAR = "undo", "clear"


class PathPanel(PlainPanel):
    """Edits the path of one visitor."""

    def __init__(self, session: Session) -> None:
        self.session, self.edit, self.flight = session, PathEdit(), Activity()
        self.scene = PathScene(session, self._go_to)
        gui, clock = session.client.gui, session.playback
        with gui.add_folder("Camera path", expand_by_default=False):
            self.list = gui.add_markdown("")
            self.add = gui.add_button("Add this view", icon=Icon.PLUS)
            self.gap = gui.add_number(
                "Seconds later",
                2.0,
                min=0.05,
                step=0.1,
                hint="Of an added view, after the last one; and of the way back, if closed.",
            )
            self.key = gui.add_dropdown("Key frame", ["1"], hint="The one that is changed; a click in the scene, too.")
            self.change = gui.add_button_group(
                "Change it", [GO, REPLACE, DELETE], hint="Replace it by the view, and the moment, that is shown now."
            )
            self.second = gui.add_number("At second", 0.0, min=0.0, step=0.01, hint="When the path is there.")
            self.moment = gui.add_number(
                "Of the clip",
                0.0,
                min=None if clock is None else clock.first,
                max=None if clock is None else clock.last,
                step=0.001,
                hint="Moment of the clip that it shows, in seconds.",
            )
            self.all = gui.add_button_group("Key frames", [UNDO, CLEAR])
            self.loop = gui.add_checkbox("Closed", False, hint="Go on from the last key frame back to the first.")
            self.preview = gui.add_button("Preview", icon=Icon.PLAYER_PLAY, color=QUIET)
            PathFiles(session, self.path, self._open)
            self.film = PathFilm(session, self.path)
        self.add.on_click(lambda _: self._do(lambda edit: edit.add(session.camera(), self.gap.value)))
        on_visitor(self.key, lambda: self._choose(int(self.key.value) - 1))
        on_visitor(self.second, self._move)
        on_visitor(self.moment, self._set_moment)
        self.change.on_click(lambda event: self._change(event.target.value))
        self.all.on_click(lambda event: self._do(PathEdit.undo if event.target.value == UNDO else _clear))
        self.loop.on_update(lambda _: self._show())
        self.preview.on_click(lambda _: self._preview())
        self._show()

    def path(self) -> CameraPath:
        """The path as it stands; InputError while it is empty."""
        return self.edit.path(self.gap.value if self.loop.value else None)

    def _do(self, change: Callable[[PathEdit], object]) -> None:
        with self.session.telling(), self.session.lock:
            change(self.edit)
        self._show()

    def _choose(self, place: int) -> None:
        self._do(lambda edit: edit.choose(place))

    def _go_to(self, place: int) -> None:
        self._choose(place)
        self.session.look_from(self.edit.keys[place].camera(*self.session.page_size()))

    def _move(self) -> None:
        seconds = self.second.value
        self._do(lambda edit: edit.move(seconds))

    def _set_moment(self) -> None:
        moment = self.moment.value
        self._do(lambda edit: edit.set_moment(moment))

    def _change(self, what: str) -> None:
        if what == REPLACE:
            self._do(lambda edit: edit.replace(self.session.camera()))
        elif what == DELETE:
            self._do(PathEdit.delete)
        elif self.edit.chosen is not None:
            self._go_to(self.edit.chosen)

    def _open(self, path: CameraPath) -> None:
        moving = self.session.playback is not None
        if moving and path.keyframes[0].time is None:
            raise InputError("The file has no times, but this scene moves; give every key frame a time.")
        self.edit.become(tuple(key if moving else replace(key, time=None) for key in path.keyframes))
        show_value(self.loop, path.seconds_to_start is not None)
        if path.seconds_to_start is not None:
            show_value(self.gap, path.seconds_to_start)
        self._show()

    def _show(self) -> None:
        """The key frames as a table and in the scene, and the chosen one in the controls that change it."""
        keys, chosen = self.edit.keys, self.edit.chosen
        self.list.content = table_of(keys, chosen)
        for control in (self.key, self.change, self.second, self.moment):
            control.visible = chosen is not None
        self.moment.visible = chosen is not None and self.session.playback is not None
        if chosen is not None:
            names = [str(place + 1) for place in range(len(keys))]
            if tuple(self.key.options) != tuple(names):
                self.key.options = names
            show_value(self.key, names[chosen])
            show_value(self.second, round(keys[chosen].seconds, 2))
            show_value(self.moment, round(keys[chosen].time or 0.0, 3))
        self.scene.show(keys, self.path() if keys else None, chosen)
        self.tick(time.monotonic())

    def tick(self, now: float) -> None:
        """Key frames are there unless the page looks from right there, or flies along the path."""
        self.scene.hide_near(all_of_them=self.flight.is_going)

    def _preview(self) -> None:
        """Fly along the path; a second click stops."""
        with self.session.telling(), self.flight.going() as is_first:
            if not is_first:
                return
            path, session = self.path(), self.session
            self.preview.label, self.preview.icon = "Stop", Icon.PLAYER_STOP
            start, began, second = path.keyframes[0].seconds, time.monotonic(), 0.0
            try:
                while second < path.duration and not self.flight.stop.wait(1 / PREVIEW_FPS):
                    second = min(time.monotonic() - began, path.duration)
                    session.look_from(path.at([start + second])[0].camera(*session.page_size()))
            finally:
                self.preview.label, self.preview.icon = "Preview", Icon.PLAYER_PLAY

    def close(self) -> None:
        """Stop what is going on."""
        self.flight.stop.set()
        self.film.filming.stop.set()


def table_of(keys: tuple[Keyframe, ...], chosen: int | None) -> str:
    """Markdown: a line for each key frame, the chosen one in bold."""
    if not keys:
        return "Move the camera and add views; the path runs smoothly through them."
    moving = keys[0].time is not None
    rows = ["| | second | clip |", "|--:|--:|--:|"] if moving else ["| | second |", "|--:|--:|"]
    for place, key in enumerate(keys):
        cells = [f"{place + 1}", f"{key.seconds:.2f}", *([f"{key.time:.2f} s"] if moving else [])]
        rows.append(f"| {' | '.join(f'**{cell}**' if place == chosen else cell for cell in cells)} |")
    return "\n".join(rows)


def _clear(edit: PathEdit) -> None:
    edit.become(())
