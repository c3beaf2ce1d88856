"""Lens distortion: from ideal (pinhole) to real normalised image coordinates, for every perspective and fisheye model
of COLMAP.

A `Lens` knows nothing of pixels: it maps (x/z, y/z) of a point in camera coordinates to where the real lens puts it on
the plane at z = 1, so that `pixel = K @ (distorted, 1)`. Formulas are those of COLMAP's `sensor/models.h` and OpenCV's
`calib3d`. Unknown models and wrong numbers of coefficients are refused with an InputError that lists what is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor
from typing_extensions import assert_never

from kinosplat.errors import InputError

LensModel = Literal[
    "pinhole",
    "opencv",
    "opencv_fisheye",
    "thin_prism_fisheye",
    "rad_tan_thin_prism_fisheye",
    "fov",
    "division",
    "eucm",
]

COEFFICIENTS: dict[LensModel, tuple[str, ...]] = {
    "pinhole": (),
    "opencv": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "opencv_fisheye": ("k1", "k2", "k3", "k4"),
    "thin_prism_fisheye": ("k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1"),
    "rad_tan_thin_prism_fisheye": ("k0", "k1", "k2", "k3", "k4", "k5", "p0", "p1", "s0", "s1", "s2", "s3"),
    "fov": ("omega",),
    "division": ("k",),
    "eucm": ("alpha", "beta"),
}
"""Names of the coefficients of each model, in the order in which COLMAP stores them; missing ones at the end are 0."""

FISHEYE_MODELS = frozenset({"opencv_fisheye", "thin_prism_fisheye", "rad_tan_thin_prism_fisheye"})
"""Models whose coefficients act on the angle to the optical axis instead of its tangent."""

LARGEST_RADIUS = 20.0
"""Normalised radius up to which a lens is examined for folding: 87 degrees off axis, more than any pinhole picture
shows.
"""

DIFFERENCE = 1e-6
"""Step of the central differences with which Newton's method inverts a lens; good to ten digits."""


@dataclass(frozen=True)
class Lens:
    """A distortion model with its coefficients."""

    model: LensModel = "pinhole"
    """Which formula."""
    coefficients: tuple[float, ...] = ()
    """In the order of `COEFFICIENTS[model]`; those left out at the end are 0."""

    def __post_init__(self) -> None:
        if self.model not in get_args(LensModel):
            raise InputError(
                f"The lens model {self.model!r} is not known; use one of {', '.join(get_args(LensModel))}."
            )
        names = COEFFICIENTS[self.model]
        if len(self.coefficients) > len(names):
            raise InputError(
                f"The lens model {self.model} takes at most {len(names)} coefficients, got {len(self.coefficients)}."
            )
        if not all(math.isfinite(value) for value in self.coefficients):
            raise InputError(f"The lens model {self.model} needs finite coefficients, got {self.coefficients}.")

    @staticmethod
    def from_names(model: LensModel, values: Mapping[str, float]) -> Lens:
        """A lens from coefficients by name (`{"k1": -0.1, ...}`); those not given are 0."""
        return Lens(model, tuple(float(values.get(name, 0.0)) for name in COEFFICIENTS[model]))

    @property
    def is_identity(self) -> bool:
        """Whether the lens changes nothing, so that a picture needs no undistortion."""
        match self.model:
            case "pinhole":
                return True
            case "opencv" | "fov" | "division":
                return not any(self.coefficients)
            case "eucm":
                return not any(self.coefficients[:1])
            case "opencv_fisheye" | "thin_prism_fisheye" | "rad_tan_thin_prism_fisheye":
                return False
            case _:
                assert_never(self.model)

    def distort(self, points: Tensor) -> Tensor:
        """Ideal normalised coordinates (..., 2) to those the real lens produces (..., 2); NaN where the model has no
        image.
        """
        x, y = points.unbind(-1)
        if self.model in FISHEYE_MODELS:
            radius = torch.hypot(x, y)
            factor = torch.where(radius > 1e-12, torch.atan(radius) / radius.clamp(min=1e-12), 1.0)
            x, y = x * factor, y * factor
        padded = self.coefficients + (0.0,) * (len(COEFFICIENTS[self.model]) - len(self.coefficients))
        match self.model:
            case "pinhole":
                pass
            case "opencv":
                x, y = _rational_tangential(x, y, padded)
            case "opencv_fisheye":
                r2 = x * x + y * y
                radial = 1 + _polynomial(r2, padded)
                x, y = x * radial, y * radial
            case "thin_prism_fisheye":
                x, y = _thin_prism(x, y, padded)
            case "rad_tan_thin_prism_fisheye":
                x, y = _rad_tan_thin_prism(x, y, padded)
            case "fov":
                x, y = _field_of_view(x, y, padded[0])
            case "division":
                # From r = r_d / (1 + k r_d^2), solved for r_d in the form that does not cancel for small k.
                r2 = x * x + y * y
                factor = 2 / (1 + torch.sqrt(1 - 4 * padded[0] * r2))
                x, y = x * factor, y * factor
            case "eucm":
                alpha, beta = padded
                factor = 1 / (alpha * torch.sqrt(beta * (x * x + y * y) + 1) + (1 - alpha))
                x, y = x * factor, y * factor
            case _:
                assert_never(self.model)
        return torch.stack([x, y], dim=-1)

    def undistort(self, points: Tensor, n_iterations: int = 50) -> Tensor:
        """The inverse of `distort` by Newton's method with a limited step; accurate inside `largest_radius`."""
        goal = points.double()
        guess = goal.clone()
        half_steps = torch.eye(2, dtype=torch.float64) * DIFFERENCE
        for _ in range(n_iterations):
            columns = [(self.distort(guess + h) - self.distort(guess - h)) / (2 * DIFFERENCE) for h in half_steps]
            step = torch.linalg.solve(torch.stack(columns, dim=-1), self.distort(guess) - goal)
            length = step.norm(dim=-1, keepdim=True)
            allowed = (0.1 * guess.norm(dim=-1, keepdim=True)).clamp(min=0.1)
            guess = guess - step * (allowed / length.clamp(min=1e-300)).clamp(max=1.0)
            if length.max() < 1e-12:
                break
        return guess.to(points.dtype)

    @property
    def largest_radius(self) -> float:
        """Normalised radius up to which the image of the lens grows outwards; beyond it the formula folds back and
        means nothing.
        """
        return _largest_radius(self)


@lru_cache(maxsize=256)
def _largest_radius(lens: Lens) -> float:
    radii = torch.linspace(0, LARGEST_RADIUS, 20001, dtype=torch.float64)
    along_x, along_y = torch.zeros(20001, 2, dtype=torch.float64), torch.zeros(20001, 2, dtype=torch.float64)
    along_x[:, 0], along_y[:, 1] = radii, radii
    # The tangential terms are tiny; the slower of the two axes decides.
    images = torch.stack([lens.distort(along_x)[:, 0], lens.distort(along_y)[:, 1]])
    growing = (images.diff(dim=1) > 0).all(dim=0)
    n_growing = int(growing.long().cumprod(dim=0).sum())
    return radii[n_growing].item()


def _polynomial(r2: Tensor, coefficients: Sequence[float]) -> Tensor:
    """c0 r2 + c1 r2^2 + ..."""
    total = torch.zeros_like(r2)
    for coefficient in reversed(coefficients):
        total = (total + coefficient) * r2
    return total


def _tangential(x: Tensor, y: Tensor, p1: float, p2: float) -> tuple[Tensor, Tensor]:
    """What decentring adds (Brown 1966, in OpenCV's order of p1 and p2)."""
    r2 = x * x + y * y
    return 2 * p1 * x * y + p2 * (r2 + 2 * x * x), 2 * p2 * x * y + p1 * (r2 + 2 * y * y)


def _rational_tangential(x: Tensor, y: Tensor, c: Sequence[float]) -> tuple[Tensor, Tensor]:
    k1, k2, p1, p2, k3, k4, k5, k6 = c
    r2 = x * x + y * y
    radial = (1 + _polynomial(r2, (k1, k2, k3))) / (1 + _polynomial(r2, (k4, k5, k6)))
    dx, dy = _tangential(x, y, p1, p2)
    return x * radial + dx, y * radial + dy


def _thin_prism(x: Tensor, y: Tensor, c: Sequence[float]) -> tuple[Tensor, Tensor]:
    k1, k2, p1, p2, k3, k4, sx1, sy1 = c
    r2 = x * x + y * y
    radial = 1 + _polynomial(r2, (k1, k2, k3, k4))
    dx, dy = _tangential(x, y, p1, p2)
    return x * radial + dx + sx1 * r2, y * radial + dy + sy1 * r2


def _rad_tan_thin_prism(x: Tensor, y: Tensor, c: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Project Aria's Fisheye624; its p0 goes with x, the other way round than OpenCV's p1."""
    p0, p1, s0, s1, s2, s3 = c[6:]
    radial = 1 + _polynomial(x * x + y * y, c[:6])
    x, y = x * radial, y * radial
    r2 = x * x + y * y
    dx, dy = _tangential(x, y, p1, p0)
    return x + dx + s0 * r2 + s1 * r2 * r2, y + dy + s2 * r2 + s3 * r2 * r2


def _field_of_view(x: Tensor, y: Tensor, omega: float) -> tuple[Tensor, Tensor]:
    """Devernay and Faugeras 2001: r_d = atan(2 r tan(omega / 2)) / omega."""
    if omega == 0:
        return x, y
    radius = torch.hypot(x, y)
    slope = 2 * math.tan(omega / 2)
    factor = torch.where(radius > 1e-9, torch.atan(radius * slope) / (radius.clamp(min=1e-9) * omega), slope / omega)
    return x * factor, y * factor
