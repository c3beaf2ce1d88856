"""The photos, where they were taken: frusta in the scene; a click shows the photo, the difference to the render, PSNR.

Every physical camera has one frustum; of a clip it stands for the photo nearest in time. Photos are loaded when they
are asked for, by the scene's own readers; the page can only name them by their place in the scene's list.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from viser import Icon

from kinosplat.scenes.scene import View
from kinosplat.viewer.controls.build import QUIET, PlainPanel, show_value
from kinosplat.viewer.lens import pose_of, radius_of, vertical_fov
from kinosplat.viewer.subject import Photos

if TYPE_CHECKING:
    from viser import CameraFrustumHandle

    from kinosplat.viewer.session import Session

TRAIN_COLOR, TEST_COLOR, CHOSEN_COLOR = (120, 160, 220), (240, 170, 70), (255, 255, 255)
PHOTO_SIZE = 0.08
"""Length of a camera in the scene, in parts of how far the cameras are from their middle."""
LONGEST = 640
"""Pixels of a photo's longer side in the panel, which small photos are enlarged to: they all are as wide as it."""
GAIN = 4.0
"""Differences are shown this many times brighter."""


class PhotosPanel(PlainPanel):
    """Frusta of all cameras, and one photo."""

    def __init__(self, session: Session, photos: Photos) -> None:
        self.session = session
        self.photos = photos
        self.of_camera: dict[int, list[int]] = {}
        for i, view in enumerate(photos.views):
            self.of_camera.setdefault(view.camera_index, []).append(i)
        self.names = camera_names(photos.views)
        self.scale = PHOTO_SIZE * radius_of(session.cameras)
        self.chosen: int | None = None
        self.photo_in_scene: np.ndarray | None = None
        gui = session.client.gui
        with gui.add_folder("Photos"):
            self.shown = gui.add_checkbox("Show cameras", False, hint="Blue were learned from, orange were held out.")
            self.camera = gui.add_dropdown("Camera", list(self.names), initial_value=next(iter(self.names)))
            self.compare = gui.add_button("Compare with the photo", icon=Icon.PHOTO, color=QUIET)
            self.jump = gui.add_button("Look from there", icon=Icon.EYE, color=QUIET)
            self.facts = gui.add_markdown("", visible=False)
            empty = np.zeros((2, 2, 3), np.uint8)
            self.photo = gui.add_image(empty, label="Photo", format="jpeg", visible=False)
            self.rendered = gui.add_image(empty, label="Rendered", format="jpeg", visible=False)
            self.difference = gui.add_image(empty, label=f"Difference, {GAIN:.0f}×", format="jpeg", visible=False)
        self.frusta = {index: self._frustum(index) for index in self.of_camera}
        self.shown.on_update(lambda _: self._show(self.shown.value))
        self.compare.on_click(lambda _: self._compare_chosen())
        self.jump.on_click(lambda _: session.look_from(self._view(self.names[self.camera.value]).camera))

    def _frustum(self, index: int) -> CameraFrustumHandle:
        view = self.photos.views[self.of_camera[index][0]]
        wxyz, position = pose_of(view.camera)
        handle = self.session.client.scene.add_camera_frustum(
            f"/photos/{index}",
            fov=vertical_fov(view.camera),
            aspect=view.camera.width / view.camera.height,
            scale=self.scale,
            thickness=1.5,
            thickness_units="screen",
            color=self._color(index),
            wxyz=np.array(wxyz),
            position=np.array(position),
            visible=False,
            cast_shadow=False,
        )
        handle.on_click(lambda _: self._click(index))
        return handle

    def _color(self, index: int) -> tuple[int, int, int]:
        return TRAIN_COLOR if self.of_camera[index][0] < self.photos.n_train else TEST_COLOR

    def _show(self, shown: bool) -> None:
        for handle in self.frusta.values():
            handle.visible = shown
        self.session.set_objects("photos", shown)

    def _compare_chosen(self) -> None:
        self._compare(self.names[self.camera.value])

    def _click(self, index: int) -> None:
        for name, other in self.names.items():
            if other == index:
                show_value(self.camera, name)
        facts = self._compare(index)
        if facts is not None:
            # The panel may show another tab.
            self.session.tell(self.camera.value, f"{facts.replace('**', '')} More in Camera, Photos.")

    def _view(self, index: int) -> View:
        """The photo of a camera that is nearest in time to what is shown."""
        views = [self.photos.views[i] for i in self.of_camera[index]]
        moment = self.session.moment(time.monotonic())
        if moment is None:
            return views[0]
        return min(views, key=lambda view: math.inf if view.camera.time is None else abs(view.camera.time - moment))

    def _compare(self, index: int) -> str | None:
        """Show photo, render and difference; what it says of them, None where the photo cannot be read."""
        with self.session.telling():
            view = self._view(index)
            if self.chosen is not None:
                self.frusta[self.chosen].color = self._color(self.chosen)
                self.frusta[self.chosen].image = None
            self.chosen = index
            self.frusta[index].color = CHOSEN_COLOR
            with self.session.renderer.alone():
                compared = self.photos.compare(view)
            photo, rendered = compared.photo, compared.rendered
            held_out = self.of_camera[index][0] >= self.photos.n_train
            moment = "" if view.camera.time is None else f", {view.camera.time:.2f} s"
            size = f"{view.camera.width}×{view.camera.height}"
            self.facts.content = (
                f"**PSNR {compared.psnr:.2f} dB** ({compared.region}), {size}{moment}; "
                f"{'held out' if held_out else 'learned from'}."
            )
            pictures = (
                (self.photo, photo),
                (self.rendered, rendered),
                (self.difference, (GAIN * (photo - rendered).abs()).clamp(0, 1)),
            )
            for handle, picture in pictures:
                handle.image = _fitted(picture)
                handle.visible = True
            self.facts.visible = True
            self.photo_in_scene = _fitted(photo)
            self.tick(time.monotonic())
            return self.facts.content
        return None

    def tick(self, now: float) -> None:
        """The chosen photo stands in its frustum, unless the page looks from there: it would hide everything."""
        if self.chosen is None or self.photo_in_scene is None:
            return
        frustum = self.frusta[self.chosen]
        distance = float(np.linalg.norm(self.session.client.camera.position - frustum.position))
        is_off = distance > 2 * self.scale
        if is_off != (frustum.image is not None):
            frustum.image = self.photo_in_scene if is_off else None


def camera_names(views: Sequence[View]) -> dict[str, int]:
    """What each camera is called, to its index: what all its photos' names begin with and no other camera's do, as of
    `cam03/000012`; else the name of its first photo, as of clips whose every photo is another camera's.
    """
    firsts: dict[int, str] = {}
    prefixes: dict[int, set[str]] = {}
    for view in views:
        firsts.setdefault(view.camera_index, view.name)
        prefixes.setdefault(view.camera_index, set()).add(view.name.rpartition("/")[0])
    found = [prefix for of_camera in prefixes.values() for prefix in of_camera]
    is_named = len(set(found)) == len(found) == len(firsts) and "" not in found
    return {next(iter(prefixes[index])) if is_named else name: index for index, name in firsts.items()}


def _fitted(picture: torch.Tensor) -> np.ndarray:
    """(H, W, 3) floats to uint8, LONGEST pixels long."""
    factor = LONGEST / max(picture.shape[:2])
    size = [max(1, round(factor * side)) for side in picture.shape[:2]]
    planes = picture.permute(2, 0, 1)[None]
    planes = torch.nn.functional.interpolate(planes, size, mode="bilinear", antialias=True)
    return (planes[0].permute(1, 2, 0) * 255).round().clamp(0, 255).byte().numpy()
