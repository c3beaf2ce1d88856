"""Which part of space is drawn: near and far, and a box that can be dragged in the scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kinosplat.viewer.controls.build import PlainPanel, show_value
from kinosplat.viewer.controls.link import changes, number, numbers, to_words
from kinosplat.viewer.look import CropBox, Look

if TYPE_CHECKING:
    from kinosplat.viewer.session import Session

BOX_COLOR = (255, 200, 60)
NEAREST, FARTHEST = 1e-4, 1000.0
"""Ends of what can be typed, scene units; at the far end there is no limit at all."""


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
                "Near", session.look.near, min=NEAREST, step=0.01, hint="Nothing nearer is drawn; scene units."
            )
            self.far = gui.add_number(
                "Far",
                min(session.look.far, FARTHEST),
                min=NEAREST,
                max=FARTHEST,
                step=1.0,
                hint=f"Nothing farther is drawn; scene units, {FARTHEST:.0f} is no limit.",
            )
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
        self.session.change_look(near=near, far=Look.far if far >= FARTHEST else max(far, near))

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

    def restore(self, query: dict[str, str]) -> None:
        """The planes and the box of a shared link."""
        for control, key in ((self.near, "near"), (self.far, "far")):
            distance = number(query, key, NEAREST, FARTHEST)
            if distance is not None:
                show_value(control, distance)
        box = numbers(query, "crop", 10)
        if box is not None and min(box[3:6]) > 0 and any(box[6:]):
            self.gizmo.position, self.gizmo.wxyz = np.array(box[:3]), np.array(box[6:])
            show_value(self.size, tuple(box[3:6]))
            show_value(self.cropped, True)

    def link(self) -> dict[str, str]:
        """The planes if they were moved, and the box if there is one."""
        look, start = self.session.look, Look.of(self.session.subject.settings)
        said = changes({"near": look.near, "far": look.far}, {"near": start.near, "far": start.far})
        if look.crop is not None:
            said["crop"] = to_words(*look.crop.center, *look.crop.size, *look.crop.wxyz)
        return said


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
