"""What a .kino file says about the run it came from, whether it was compressed or only exported."""

from __future__ import annotations

from importlib.metadata import version

from torch import Tensor

from kinosplat.compression.kino import Metadata, StartCamera
from kinosplat.render import RasterSettings
from kinosplat.scenes import Scene
from kinosplat.trainers.evaluate import spread
from kinosplat.trainers.method import Method
from kinosplat.trainers.methods.gaussians import GaussianMethod
from kinosplat.trainers.methods.hash_grid import FieldMethod

N_START_CAMERAS = 2
"""Cameras a player may start from."""


def metadata_of(scene: Scene, method: Method, background: Tensor, step: int) -> Metadata:
    """Facts about a scene and what was learned of it in `step` steps; `background` (3,) is what it is measured over."""
    settings = method.settings if isinstance(method, GaussianMethod) else RasterSettings()
    red, green, blue = background.tolist()
    return Metadata(
        up=scene.up,
        fps=scene.fps,
        duration=scene.duration if scene.is_moving else None,
        background=(red, green, blue),
        near=method.near if isinstance(method, FieldMethod) else settings.near,
        antialiased=settings.antialiased,
        cameras=tuple(StartCamera.of(view.camera, view.name) for view in spread(scene.test, N_START_CAMERAS)),
        to_input=scene.to_input,
        provenance={"scene": scene.name, "method": method.name, "steps": step, "program": program_version()},
    )


def program_version() -> str:
    """What wrote a file."""
    return f"kinosplat {version('kinosplat')}"
