"""Which part of space is drawn: near and far, and a box that can be dragged in the scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kinosplat.viewer.controls.build import PlainPanel
from kinosplat.viewer.look import CropBox, Look

if TYPE_CHECKING:
    from kinosplat.viewer.session import Session

BOX_COLOR = (255, 200, 60)


class RegionPanel(PlainPanel):
    """Sets near, far and the crop box of the look."""

    def __init__(self, session: Session) -> None:
        self.session = session
        gui, scene = session.client.gui, session.client.scene
        center, extent = middle_of(session)
        # Two digits fit into the fields of the page.
        extent = np.array([float(f"{length:.2g}") for length in extent])
        with gui.add_folder("Region", expand_by_default=False):
            self.near = gui.add_number(
                "Near", Look.near, min=1e-4, step=0.01, hint="Nothing nearer is drawn; scene units."
            )
            self.far = gui.add_number("Far", 1000.0, min=1e-3, step=1.0, hint="Nothing farther is drawn; scene units.")
            self.cropped = gui.add_checkbox(
                "Crop box", False, hint="Draw only what is in the box; drag it in the scene."
            )
            self.size = gui.add_vector3("Box size", tuple(extent), min=(1e-3,) * 3, step=0.05, visible=False)
        self.gizmo = scene.add_transform_controls(
            "/crop", scale=0.35 * float(extent.max()), depth_test=False, position=tuple(center), visible=False
        )
        self.box = scene.add_box(
            "/crop/box", color=BOX_COLOR, dimensions=tuple(extent), wireframe=True, cast_shadow=False, visible=False
        )
        self.near.on_update(lambda _: self._change_planes())
        self.far.on_update(lambda _: self._change_planes())
        self.cropped.on_update(lambda _: self._change_box())
        self.size.on_update(lambda _: self._change_box())
        self.gizmo.on_update(lambda _: self._change_box())

    def _change_planes(self) -> None:
        near, far = self.near.value, self.far.value
        # At the value it starts with, far stands for no limit at all.
        self.session.change_look(near=near, far=Look.far if far >= 1000.0 else max(far, near))

    def _change_box(self) -> None:
        shown = self.cropped.value
        size = tuple(float(length) for length in self.size.value)
        self.size.visible = self.gizmo.visible = self.box.visible = shown
        self.box.dimensions = size  # type: ignore[assignment]
        x, y, z = self.gizmo.position.tolist()
        w, i, j, k = self.gizmo.wxyz.tolist()
        crop = CropBox((x, y, z), (size[0], size[1], size[2]), (w, i, j, k)) if shown else None
        self.session.change_look(crop=crop)
        self.session.set_objects("crop", shown)


def middle_of(session: Session) -> tuple[np.ndarray, np.ndarray]:
    """Middle and size (3,) of a box around most of the Gaussians; around the origin where there are none."""
    subject = session.subject
    with subject.turn():
        gaussians = subject.gaussians()
        if gaussians is None or len(gaussians) == 0:
            return np.zeros(3), np.ones(3)
        means = gaussians.means[:: max(1, len(gaussians) // 20000)].float().cpu().numpy()
    low, high = np.quantile(means, [0.02, 0.98], axis=0)
    return 0.5 * (low + high), np.maximum(high - low, 1e-3)
