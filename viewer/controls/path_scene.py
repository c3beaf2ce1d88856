"""A path in the scene: the way as a line, and a small camera for every key frame that is chosen by a click."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kinosplat.render.paths import CameraPath, Keyframe
from kinosplat.viewer.lens import radius_of

if TYPE_CHECKING:
    from viser import CameraFrustumHandle

    from kinosplat.viewer.session import Session

PATH_COLOR, CHOSEN_COLOR = (64, 140, 255), (255, 255, 255)
KEY_SIZE = 0.05
"""Length of a key frame's camera in the scene, in parts of how far the cameras are from their middle."""
POINTS_A_KEY = 20
"""Corners of the line for every key frame."""


class PathScene:
    """Shows one path of one session."""

    def __init__(self, session: Session, clicked: Callable[[int], None]) -> None:
        """`clicked` hears which key frame's camera was clicked on."""
        self.session, self._clicked = session, clicked
        self._scale = KEY_SIZE * radius_of(session.cameras)
        self._frusta: list[CameraFrustumHandle] = []

    def show(self, keys: Sequence[Keyframe], path: CameraPath | None, chosen: int | None) -> None:
        """These key frames, and the way of `path` if it goes anywhere."""
        scene = self.session.client.scene
        if path is None or len(keys) < 2:
            scene.add_frame("/path/way", show_axes=False)
        else:
            moments = np.linspace(0, path.duration, POINTS_A_KEY * len(keys)) + keys[0].seconds
            places = [key.position for key in path.at(moments.tolist())]
            points = np.stack([np.array(places[:-1]), np.array(places[1:])], axis=1)
            scene.add_line_segments("/path/way", points, PATH_COLOR, thickness=3.0, thickness_units="screen")
        with self.session.lock:
            for frustum in self._frusta:
                frustum.remove()
            self._frusta = [self._frustum(place, key, place == chosen) for place, key in enumerate(keys)]
        self.session.set_objects("path", bool(keys))

    def hide_near(self, *, all_of_them: bool) -> None:
        """Without the cameras that the page looks from right there, or without any."""
        here = self.session.client.camera.position
        with self.session.lock:
            for frustum in self._frusta:
                is_near = float(np.linalg.norm(here - frustum.position)) < 2 * self._scale
                is_seen = not (is_near or all_of_them)
                if frustum.visible != is_seen:
                    frustum.visible = is_seen

    def _frustum(self, place: int, key: Keyframe, is_chosen: bool) -> CameraFrustumHandle:
        width, height = self.session.page_size()
        handle = self.session.client.scene.add_camera_frustum(
            f"/path/keys/{place}",
            fov=math.radians(key.fov),
            aspect=width / height,
            scale=self._scale,
            thickness=2.0,
            thickness_units="screen",
            color=CHOSEN_COLOR if is_chosen else PATH_COLOR,
            wxyz=np.array(key.wxyz),
            position=np.array(key.position),
            visible=False,
            cast_shadow=False,
        )
        handle.on_click(lambda _: self._clicked(place))
        return handle
