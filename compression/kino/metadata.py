"""What a .kino file says about its scene: frame, time, background, where to look from, where it came from.

Everything is optional, so that a reader of another program finds sensible defaults; entries of unknown name are
ignored, entries of the wrong type raise ValueError, which the header's parser turns into an InputError.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from kinosplat.render.camera import Camera
from kinosplat.render.settings import RasterSettings
from kinosplat.scenes.scene import Similarity


@dataclass(frozen=True)
class StartCamera:
    """A camera a player may start from; OpenCV axes, scene coordinates, pixels."""

    world_to_camera: tuple[tuple[float, ...], ...]
    """4 x 4 rows."""
    K: tuple[tuple[float, ...], ...]
    """3 x 3 rows."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    time: float | None = None
    """Seconds, None in a static scene."""
    name: str = ""
    """Shown to the user."""

    @classmethod
    def of(cls, camera: Camera, name: str = "") -> StartCamera:
        """The stored form of `camera`."""

        def rows(matrix: torch.Tensor) -> tuple[tuple[float, ...], ...]:
            return tuple(tuple(round(value, 6) for value in row) for row in matrix.detach().cpu().tolist())

        return cls(rows(camera.world_to_camera), rows(camera.K), camera.width, camera.height, camera.time, name)

    def camera(self) -> Camera:
        """The camera as the renderer takes it, float32 on the CPU."""
        return Camera(torch.tensor(self.world_to_camera), torch.tensor(self.K), self.width, self.height, self.time)


@dataclass(frozen=True)
class Metadata:
    """Facts about the scene that are not Gaussians."""

    up: tuple[float, float, float] | None = None
    """World up axis, unit length."""
    bounds: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    """Lowest and highest corner around the means, scene coordinates; filled in by the writer."""
    fps: float | None = None
    """Frames a second of the clip the scene was made from; playback is continuous."""
    duration: float | None = None
    """Seconds from the first to the last time; None in a static scene."""
    background: tuple[float, float, float] | None = None
    """RGB in [0, 1] behind the Gaussians; None = black."""
    near: float | None = None
    """Gaussians whose centre is nearer to the camera than this are not drawn, scene units; None = 0.01."""
    antialiased: bool = False
    """Opacities were learned with the compensation of Mip-Splatting for the dilation on the screen."""
    cameras: tuple[StartCamera, ...] = ()
    """The first one is where a player starts."""
    to_input: Similarity = field(default_factory=Similarity)
    """x_input = scale * x_scene + offset: the way back to the coordinates of the photos."""
    provenance: Mapping[str, str | float | int] = field(default_factory=dict)
    """Free words on the origin: scene, method, steps, program version."""

    @property
    def settings(self) -> RasterSettings:
        """How the scene is to be drawn."""
        near = RasterSettings.near if self.near is None else self.near
        return RasterSettings(near=near, antialiased=self.antialiased)

    def to_json(self) -> dict[str, Any]:
        """The `metadata` object of the header; empty entries are left out."""
        document: dict[str, Any] = {
            "up": self.up,
            "bounds": self.bounds,
            "fps": self.fps,
            "duration": self.duration,
            "background": self.background,
            "near": self.near,
            "antialiased": self.antialiased or None,
            "cameras": [
                {key: value for key, value in vars(c).items() if value not in (None, "")} for c in self.cameras
            ],
            "to_input": {"scale": self.to_input.scale, "offset": self.to_input.offset},
            "provenance": dict(self.provenance),
        }
        if self.to_input == Similarity():
            del document["to_input"]
        return {key: value for key, value in document.items() if value not in (None, [], {})}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Metadata:
        """Metadata of a header; ValueError names an entry of the wrong type."""
        bounds = document.get("bounds")
        if bounds is not None and (not isinstance(bounds, list) or len(bounds) != 2):
            raise ValueError("metadata `bounds` must be two corners")
        cameras = document.get("cameras", [])
        if not isinstance(cameras, list):
            raise ValueError("metadata `cameras` must be a list")
        to_input = _object(document, "to_input")
        near = _number(document.get("near"), "near")
        if near is not None and not 0.0 < near < RasterSettings.far:
            raise ValueError("metadata `near` must be a positive distance")
        antialiased = document.get("antialiased", False)
        if not isinstance(antialiased, bool):
            raise ValueError("metadata `antialiased` must be true or false")
        return cls(
            up=_vector(document.get("up"), "up"),
            bounds=None if bounds is None else (_corner(bounds[0]), _corner(bounds[1])),
            fps=_number(document.get("fps"), "fps"),
            duration=_number(document.get("duration"), "duration"),
            background=_vector(document.get("background"), "background"),
            near=near,
            antialiased=antialiased,
            cameras=tuple(_camera(entry) for entry in cameras),
            to_input=Similarity(
                _number(to_input.get("scale", 1.0), "to_input.scale") or 1.0,
                _vector(to_input.get("offset", [0.0, 0.0, 0.0]), "to_input.offset") or (0.0, 0.0, 0.0),
            ),
            provenance={
                key: value
                for key, value in _object(document, "provenance").items()
                if isinstance(value, str | int | float)
            },
        )


def _object(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"metadata `{key}` must be an object")
    return value


def _number(value: Any, key: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"metadata `{key}` must be a number")
    return float(value)


def _row(values: Any, length: int, key: str) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != length:
        raise ValueError(f"metadata `{key}` must have {length} numbers")
    return tuple(_number(value, key) or 0.0 for value in values)


def _vector(values: Any, key: str) -> tuple[float, float, float] | None:
    if values is None:
        return None
    x, y, z = _row(values, 3, key)
    return x, y, z


def _corner(values: Any) -> tuple[float, float, float]:
    x, y, z = _row(values, 3, "bounds")
    return x, y, z


def _camera(entry: Any) -> StartCamera:
    if not isinstance(entry, dict):
        raise ValueError("metadata `cameras` must hold objects")
    pose, K = entry.get("world_to_camera"), entry.get("K")
    width, height = entry.get("width"), entry.get("height")
    if not (isinstance(pose, list) and len(pose) == 4 and isinstance(K, list) and len(K) == 3):
        raise ValueError("metadata `cameras` must have a 4 x 4 `world_to_camera` and a 3 x 3 `K`")
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise ValueError("metadata `cameras` must have a positive `width` and `height`")
    return StartCamera(
        tuple(_row(row, 4, "world_to_camera") for row in pose),
        tuple(_row(row, 3, "K") for row in K),
        width,
        height,
        _number(entry.get("time"), "time"),
        str(entry.get("name", "")),
    )
