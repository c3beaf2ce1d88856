"""How a visitor wants the scene to be drawn: one frozen value, replaced whole when a control moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kinosplat.render.settings import RasterSettings

Output = Literal["color", "depth", "alpha", "normals", "speed", "overlap", "points", "ellipsoids"]
OUTPUT_NAMES: dict[Output, str] = {
    "color": "Colour",
    "depth": "Depth",
    "alpha": "Alpha",
    "normals": "Normals",
    "speed": "Speed of motion",
    "overlap": "Overlap, hidden too",
    "points": "Points",
    "ellipsoids": "Ellipsoids",
}
HAS_RANGE: tuple[Output, ...] = ("depth", "speed", "overlap")
"""Outputs that are one number a pixel, shown through a colour map."""
ColorMap = Literal["turbo", "viridis", "gray"]


@dataclass(frozen=True)
class CropBox:
    """Gaussians whose centre is outside are not drawn; scene coordinates."""

    center: tuple[float, float, float]
    """World units."""
    size: tuple[float, float, float]
    """Lengths of the edges, world units."""
    wxyz: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    """Rotation of the box."""


@dataclass(frozen=True)
class Look:
    """Everything a picture depends on besides the camera and the moment."""

    output: Output = "color"
    """What a pixel shows."""
    painter: str | None = None
    """A picture of the method's own instead of `output`."""
    color_map: ColorMap = "turbo"
    """Colours of depth, speed and overlap."""
    value_range: tuple[float, float] | None = None
    """Values at the two ends of the colour map; None fits them to each picture."""
    sh_degree: int = 3
    """Highest degree of the spherical harmonics used."""
    scale: float = 1.0
    """Factor of the size of every Gaussian."""
    antialiased: bool = False
    """Opacity compensation of Mip-Splatting."""
    background: tuple[float, float, float] | None = None
    """Colour behind everything in [0, 1]; None takes the subject's own."""
    near: float = 0.01
    """World units."""
    far: float = 1e10
    """World units."""
    exposure: float = 0.0
    """Stops: colours are multiplied by 2 to the power of it."""
    crop: CropBox | None = None
    """None shows everything."""

    @staticmethod
    def of(settings: RasterSettings) -> Look:
        """Colour, drawn as it was learned."""
        return Look(antialiased=settings.antialiased, near=settings.near, far=settings.far)
