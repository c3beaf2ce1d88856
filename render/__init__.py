"""What can be rendered and how: cameras, Gaussians, the rasterizer and its plain-torch reference."""

from kinosplat.render.backend import render_backends
from kinosplat.render.camera import Camera
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.output import RenderOutput
from kinosplat.render.rasterize import rasterize
from kinosplat.render.settings import RasterSettings
from kinosplat.render.statistics import GaussianStatistics

__all__ = [
    "Camera",
    "GaussianStatistics",
    "Gaussians",
    "RasterSettings",
    "RenderOutput",
    "rasterize",
    "render_backends",
]
