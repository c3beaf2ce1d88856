"""The camera: field of view, back to the start, a link that restores the view, a screenshot."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from viser import Icon

from kinosplat.viewer.adaptive import limited_size
from kinosplat.viewer.controls.build import QUIET, PlainPanel, on_visitor, show_value
from kinosplat.viewer.controls.link import to_words
from kinosplat.viewer.draw import draw
from kinosplat.viewer.encode import encode_png, to_pixels

if TYPE_CHECKING:
    from kinosplat.viewer.session import Session

HELP = (
    "Drag to turn; right-drag or two fingers to shift; wheel or pinch to zoom; **W A S D** and **Q E** to fly; "
    "arrow keys to look around."
)
SIZES = {"Page": 1.0, "2× page": 2.0, "4× page": 4.0}
NARROWEST, WIDEST = 10.0, 120.0
"""Degrees of the slider's ends."""
LONGEST = 8192
"""Pixels of a screenshot's longer side at most."""


class CameraPanel(PlainPanel):
    """Moves the page's camera and takes its picture."""

    def __init__(self, session: Session) -> None:
        self.session = session
        gui = session.client.gui
        with gui.add_folder("Camera"):
            fov = round(min(max(math.degrees(session.client.camera.fov), NARROWEST), WIDEST), 1)
            self._shown_fov = fov
            self.fov = gui.add_slider("Field of view", NARROWEST, WIDEST, 0.1, fov, hint="Degrees from top to bottom.")
            self.reset = gui.add_button("Back to the start", icon=Icon.HOME, color=QUIET)
            self.link_button = gui.add_button("Copy a link to this view", icon=Icon.LINK, color=QUIET)
            self.size = gui.add_dropdown("Picture size", list(SIZES), initial_value="Page", hint="Of the screenshot.")
            self.shot = gui.add_button("Screenshot", icon=Icon.CAMERA, color=QUIET)
            gui.add_markdown(HELP)
        on_visitor(self.fov, self._set_fov)
        self.reset.on_click(lambda _: session.look_from(session.cameras[0].at(None)))
        self.link_button.on_click(lambda _: self._copy_link())
        self.shot.on_click(lambda _: self._screenshot())

    def _set_fov(self) -> None:
        self.session.client.camera.fov = math.radians(self.fov.value)
        self.session.wish()

    def tick(self, now: float) -> None:
        """Let the slider follow a camera that something else moved.

        The slider's own value says nothing of that: it may be a visitor's wish that `_set_fov` has not heard of yet.
        """
        fov = math.degrees(self.session.client.camera.fov)
        if NARROWEST <= fov <= WIDEST and abs(fov - self._shown_fov) > 0.1:
            self._shown_fov = round(fov, 1)
            show_value(self.fov, self._shown_fov)

    def _copy_link(self) -> None:
        session = self.session
        held = session.client.camera
        query = {
            "initialCameraPosition": to_words(*held.position),
            "initialCameraLookAt": to_words(*held.look_at),
            "initialCameraUp": to_words(*held.up_direction),
            "initialCameraFov": to_words(held.fov),
        }
        for panel in session.panels:
            query |= panel.link()
        link = f"{session.wire.address()}?{urlencode(query, safe=',')}"
        session.wire.copy(link)
        gui = session.client.gui
        with gui.add_modal("Link to this view") as modal:
            gui.add_markdown(
                "Copied, if the browser allows it. Whoever opens it sees this view; a token is not part of it."
            )
            gui.add_text("Link", link, multiline=True)
            gui.add_button("Close").on_click(lambda _: modal.close())

    def _screenshot(self) -> None:
        session = self.session
        camera = session.camera()
        factor = SIZES[self.size.value]
        size = limited_size(round(camera.width * factor), round(camera.height * factor), LONGEST)
        with session.telling():
            with session.renderer.alone() as subject:
                pixels = to_pixels(draw(subject, camera.resized(*size), session.look).picture)
            moment = "" if camera.time is None else f"_{camera.time:.3f}s"
            name = f"kinosplat_{time.strftime('%H%M%S')}{moment}.png"
            session.client.send_file_download(name, encode_png(pixels), save_immediately=True)
