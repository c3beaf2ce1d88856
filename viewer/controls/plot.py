"""Curves of numbers, all in one style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import viser
from viser import uplot

AXIS, GRID = "#9aa", "#8883"


@dataclass(frozen=True)
class Line:
    """One curve."""

    label: str
    """In the legend."""
    color: str
    """As in CSS."""
    width: int = 2
    """Pixels."""


def add_plot(gui: viser.GuiApi, x: str, lines: Sequence[Line], *, visible: bool = True) -> viser.GuiUplotHandle:
    """A plot of `lines` over what is called `x`, of zeros until its `data` is given: float64 arrays of one length."""
    series = [uplot.Series(label=line.label, stroke=line.color, width=line.width) for line in lines]
    return gui.add_uplot(
        (np.arange(2.0), *(np.zeros(2) for _ in lines)),
        (uplot.Series(label=x), *series),
        scales={"x": uplot.Scale(time=False)},
        axes=(
            uplot.Axis(stroke=AXIS, grid={"stroke": GRID}),
            uplot.Axis(stroke=AXIS, grid={"stroke": GRID}, size=50),
        ),
        height=150,
        padding=(12, 10, 0, 0),
        visible=visible,
    )
