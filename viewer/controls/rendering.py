"""How Gaussians are drawn: spherical harmonics, size, anti-aliasing, exposure, background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kinosplat.viewer.controls.build import PlainPanel, show_value
from kinosplat.viewer.controls.link import changes, number, numbers, to_words
from kinosplat.viewer.look import Look

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
        self.sliders: dict[str, Any] = {}
        """By the name of the field of the look that each one sets."""
        with subject.turn():
            gaussians = subject.gaussians()
            degree = 0 if gaussians is None else gaussians.sh_degree
        with gui.add_folder("Rendering"):
            if gaussians is not None and degree > 0:
                self.sliders["sh_degree"] = gui.add_slider(
                    "SH degree", 0, degree, 1, degree, hint="Highest degree of the view-dependent colour that is used."
                )
            if gaussians is not None:
                self.sliders["scale"] = gui.add_slider(
                    "Size", 0.05, 2.0, 0.05, 1.0, hint="Factor of the size of every Gaussian."
                )
                self.smooth = gui.add_checkbox(
                    "Anti-aliasing",
                    session.look.antialiased,
                    hint="Mip-Splatting's opacity compensation: fainter where small on screen.",
                )
                self.smooth.on_update(lambda _: session.change_look(antialiased=self.smooth.value))
            self.sliders["exposure"] = gui.add_slider("Exposure", -3.0, 3.0, 0.1, 0.0, hint="Stops brighter or darker.")
            self.background = gui.add_dropdown("Background", list(BACKGROUNDS), initial_value=SCENE)
            self.color = gui.add_rgb("Colour", (30, 30, 40), visible=False)
        self.has_gaussians = gaussians is not None
        for field, slider in self.sliders.items():
            slider.on_update(lambda event, field=field: session.change_look(**{field: event.target.value}))
        self.background.on_update(lambda _: self._change())
        self.color.on_update(lambda _: self._change())

    def _change(self) -> None:
        is_custom = self.background.value == CUSTOM
        self.color.visible = is_custom
        r, g, b = self.color.value
        chosen = (r / 255, g / 255, b / 255) if is_custom else BACKGROUNDS[self.background.value]
        self.session.change_look(background=chosen)

    def restore(self, query: dict[str, str]) -> None:
        """What a shared link says of all these."""
        for field, slider in self.sliders.items():
            value = number(query, field, slider.min, slider.max)
            if value is not None:
                show_value(slider, value)
        if self.has_gaussians and query.get("antialiased") in ("0", "1"):
            show_value(self.smooth, query["antialiased"] == "1")
        color = numbers(query, "background", 3)
        if color is not None and min(color) >= 0 and max(color) <= 1:
            names = [name for name, known in BACKGROUNDS.items() if known == tuple(color)]
            r, g, b = (round(255 * channel) for channel in color)
            show_value(self.color, (r, g, b))
            show_value(self.background, names[0] if names else CUSTOM)

    def link(self) -> dict[str, str]:
        """Whatever is not as the page starts."""
        look, start = self.session.look, Look.of(self.session.subject.settings)
        fields = [*self.sliders, "antialiased"]
        said = changes({name: getattr(look, name) for name in fields}, {name: getattr(start, name) for name in fields})
        if look.background is not None:
            said["background"] = to_words(*look.background)
        return said
