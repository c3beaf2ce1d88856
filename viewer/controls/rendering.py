"""How Gaussians are drawn: spherical harmonics, size, anti-aliasing, exposure, background."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinosplat.viewer.controls.build import PlainPanel

if TYPE_CHECKING:
    from kinosplat.viewer.session import Session

SCENE, CUSTOM = "Scene", "Custom"
BACKGROUNDS: dict[str, tuple[float, float, float] | None] = {
    SCENE: None,
    "Black": (0.0, 0.0, 0.0),
    "Gray": (0.5, 0.5, 0.5),
    "White": (1.0, 1.0, 1.0),
    CUSTOM: None,
}


class RenderingPanel(PlainPanel):
    """Sets the fields of the look that the rasterizer reads."""

    def __init__(self, session: Session) -> None:
        self.session = session
        gui, subject = session.client.gui, session.subject
        with subject.turn():
            gaussians = subject.gaussians()
            degree = 0 if gaussians is None else gaussians.sh_degree
        with gui.add_folder("Rendering"):
            if gaussians is not None and degree > 0:
                harmonics = gui.add_slider(
                    "SH degree", 0, degree, 1, degree, hint="Highest degree of the view-dependent colour that is used."
                )
                harmonics.on_update(lambda _: session.change_look(sh_degree=harmonics.value))
            if gaussians is not None:
                scale = gui.add_slider("Size", 0.05, 2.0, 0.05, 1.0, hint="Factor of the size of every Gaussian.")
                scale.on_update(lambda _: session.change_look(scale=scale.value))
                smooth = gui.add_checkbox(
                    "Anti-aliasing",
                    session.look.antialiased,
                    hint="Mip-Splatting's opacity compensation: fainter where small on screen.",
                )
                smooth.on_update(lambda _: session.change_look(antialiased=smooth.value))
            exposure = gui.add_slider("Exposure", -3.0, 3.0, 0.1, 0.0, hint="Stops brighter or darker.")
            exposure.on_update(lambda _: session.change_look(exposure=exposure.value))
            self.background = gui.add_dropdown("Background", list(BACKGROUNDS), initial_value=SCENE)
            self.color = gui.add_rgb("Colour", (30, 30, 40), visible=False)
        self.background.on_update(lambda _: self._change())
        self.color.on_update(lambda _: self._change())

    def _change(self) -> None:
        is_custom = self.background.value == CUSTOM
        self.color.visible = is_custom
        r, g, b = self.color.value
        chosen = (r / 255, g / 255, b / 255) if is_custom else BACKGROUNDS[self.background.value]
        self.session.change_look(background=chosen)
