"""What a pixel shows: colour, depth, alpha, normals, speed, overlap, points, ellipsoids, or a method's own picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import torch

from kinosplat.viewer.colors import color_table
from kinosplat.viewer.controls.build import PlainPanel, on_visitor, show_value
from kinosplat.viewer.controls.link import numbers, to_words
from kinosplat.viewer.controls.table import color_bar
from kinosplat.viewer.draw import outputs_of
from kinosplat.viewer.look import HAS_RANGE, OUTPUT_NAMES, ColorMap, Look, Output

if TYPE_CHECKING:
    from kinosplat.viewer.session import Session

UNITS: dict[Output, str] = {
    "depth": "scene units",
    "speed": "scene units a second",
    "overlap": "Gaussians on the ray, hidden too",
}


class OutputPanel(PlainPanel):
    """Sets output, colour map and range of the look."""

    def __init__(self, session: Session) -> None:
        self.session = session
        gui, subject = session.client.gui, session.subject
        with subject.turn():
            self.by_name: dict[str, Output] = {OUTPUT_NAMES[output]: output for output in outputs_of(subject)}
            self.painters = {name[:1].upper() + name[1:]: name for name in subject.painters}
        with gui.add_folder("Output"):
            self.output = gui.add_dropdown("Show", [*self.by_name, *self.painters], initial_value=OUTPUT_NAMES["color"])
            self.color_map = gui.add_dropdown("Colours", get_args(ColorMap), initial_value="turbo", visible=False)
            self.fit = gui.add_checkbox("Fit range", True, visible=False, hint="Fit the colours to each picture.")
            self.range = gui.add_vector2(
                "Range", (0.0, 1.0), step=0.01, visible=False, hint="Values at the two ends of the colours."
            )
            self.legend = gui.add_html("", visible=False)
        self.output.on_update(lambda _: self._change())
        self.color_map.on_update(lambda _: session.change_look(color_map=self.color_map.value))
        self.fit.on_update(lambda _: self._change())
        # `tick` writes the fitted range there too.
        on_visitor(self.range, self._change)

    def _change(self) -> None:
        name = self.output.value
        output = self.by_name.get(name, "color")
        has_range = name in self.by_name and output in HAS_RANGE
        self.color_map.visible = self.fit.visible = self.legend.visible = has_range
        self.range.visible = has_range and not self.fit.value
        low, high = self.range.value
        value_range = (float(low), float(high)) if has_range and not self.fit.value else None
        painter = self.painters.get(name)
        self.session.change_look(output=output, painter=painter, value_range=value_range)

    def tick(self, now: float) -> None:
        """Say what the colours stand for."""
        drawn, look = self.session.stream.last_drawn, self.session.look
        if not self.legend.visible or drawn is None or drawn.value_range is None or look.output not in UNITS:
            return
        low, high = drawn.value_range
        colors = color_table(look.color_map, torch.device("cpu"))[::32].tolist()
        content = color_bar(colors, f"{low:.3g}", UNITS[look.output], f"{high:.3g}")
        if self.legend.content != content:
            self.legend.content = content
            if self.fit.value:
                show_value(self.range, (round(low, 3), round(high, 3)))

    def restore(self, query: dict[str, str]) -> None:
        """The output of a shared link, its colours and their range."""
        if query.get("colors") in get_args(ColorMap):
            show_value(self.color_map, query["colors"])
        ends = numbers(query, "range", 2)
        if ends is not None:
            show_value(self.range, tuple(ends))
            show_value(self.fit, False)
        for name, output in {**self.by_name, **self.painters}.items():
            if output == query.get("output"):
                show_value(self.output, name)
                self._change()

    def link(self) -> dict[str, str]:
        """The output; colours and range where they are not those that a page starts with."""
        look = self.session.look
        said = {"output": look.painter or look.output}
        if look.color_map != Look.color_map:
            said["colors"] = look.color_map
        if look.value_range is not None:
            said["range"] = to_words(*look.value_range)
        return said
