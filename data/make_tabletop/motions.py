"""Where each object is at a time: affine object-to-world matrices, and one deformation that no matrix can express.

Times are in seconds, lengths in metres. The clip is slow motion: the ball falls at a third of the earth's gravity.
"""

from collections.abc import Callable

import numpy as np

Motion = Callable[[float], np.ndarray]
"""Time in seconds -> object-to-world matrix (4, 4), float64."""


def translation(x: float, y: float, z: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = (x, y, z)
    return matrix


def scaling(x: float, y: float, z: float) -> np.ndarray:
    return np.diag([x, y, z, 1.0])


def rotation(axis: tuple[float, float, float], angle: float) -> np.ndarray:
    """Right-handed rotation by `angle` radians about `axis` (Rodrigues' formula)."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    matrix = np.eye(4)
    matrix[:3, :3] += np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
    return matrix


def still(matrix: np.ndarray) -> Motion:
    return lambda time: matrix


def spin(place: np.ndarray, tilt: np.ndarray, degrees_per_second: float) -> Motion:
    """Turns about the z axis at `place`; `tilt` stands the object on the axis first."""
    rate = np.radians(degrees_per_second)
    return lambda time: place @ rotation((0, 0, 1), rate * time) @ tilt


def bounce(
    start: tuple[float, float],
    end: tuple[float, float],
    radius: float,
    clip: float,
    height: float,
    period: float,
    phase: float,
) -> Motion:
    """A ball that hops from `start` to `end` over the clip, squashed by up to a quarter where it touches the table."""

    def matrix(time: float) -> np.ndarray:
        share = time / clip
        x, y = (1.0 - share) * np.array(start) + share * np.array(end)
        hop = (time / period + phase) % 1.0
        squash = 0.25 * np.exp(-((min(hop, 1.0 - hop) / 0.09) ** 2))
        z = radius * (1.0 - squash) + height * 4.0 * hop * (1.0 - hop)
        wide = 1.0 + 0.5 * squash
        turn = rotation((0.3, 1.0, 0.5), np.radians(75.0) * time)
        return translation(x, y, z) @ scaling(wide, wide, 1.0 - squash) @ turn

    return matrix


def roll(circle: float, radius: float, first_degrees: float, degrees_per_second: float) -> Motion:
    """A ball that rolls without slipping on the circle of radius `circle` about the z axis."""

    def matrix(time: float) -> np.ndarray:
        travelled = np.radians(degrees_per_second) * time
        angle = np.radians(first_degrees) + travelled
        outward = (np.cos(angle), np.sin(angle), 0.0)
        rolled = rotation(outward, -travelled * circle / radius)
        return translation(circle * outward[0], circle * outward[1], radius) @ rolled @ rotation((0, 0, 1), angle)

    return matrix


def grow(place: np.ndarray, begin: float, duration: float) -> Motion:
    """Nothing before `begin`; then up to full size, a little beyond it, and back."""

    def matrix(time: float) -> np.ndarray:
        x = np.clip((time - begin) / duration, 0.0, 1.0)
        size = 1.0 - np.exp(-5.0 * x) * np.cos(1.5 * np.pi * x) if x < 1.0 else 1.0
        size = max(size, 0.02)
        return place @ scaling(size, size, size)

    return matrix


def sway(vertices: np.ndarray, time: float) -> np.ndarray:
    """The soft tower: twists, bends and breathes with its foot held fast; vertices (n, 3) in metres, foot at z = 0."""
    x, y, z = vertices.T
    share = z / 0.42
    twist = 1.1 * np.sin(np.pi * time) * share
    breath = 1.0 + 0.12 * np.sin(2.0 * np.pi * (0.9 * time - 0.7 * share)) * np.sin(np.pi * np.clip(share, 0.0, 1.0))
    bend_x = 0.13 * share**2 * np.sin(2.0 * np.pi * time / 1.6)
    bend_y = 0.09 * share**2 * np.sin(2.0 * np.pi * time / 1.1 + 1.0)
    cosine, sine = np.cos(twist), np.sin(twist)
    return np.stack([breath * (cosine * x - sine * y) + bend_x, breath * (sine * x + cosine * y) + bend_y, z], -1)
