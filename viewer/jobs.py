"""What a client asks for, and one picture that is to be made of it."""

from __future__ import annotations

from dataclasses import dataclass

from kinosplat.render.camera import Camera
from kinosplat.viewer.encode import Coding
from kinosplat.viewer.look import Look


@dataclass(frozen=True)
class StreamSettings:
    """How a client wants its pictures made."""

    target_fps: float = 30.0
    """Frames a second while moving: pictures are made smaller until it is reached, and never more often."""
    adaptive: bool = True
    """Make pictures smaller while moving."""
    longest_side: int = 1920
    """Pixels; also of pictures that stand still."""
    coding: Coding = "jpeg"
    """How pictures are sent."""
    quality: int = 80
    """Of the coding while moving, 1 to 100."""
    still_quality: int = 92
    """Of the coding for pictures that stand still."""
    composite: bool = True
    """Send the depth too, so that objects in the scene hide and are hidden; only while there are any."""


@dataclass(frozen=True)
class Wish:
    """What a client wants to see."""

    camera: Camera
    """At the size of the page's canvas, on the CPU."""
    look: Look
    """How."""


@dataclass(frozen=True)
class Job:
    """One picture to be made."""

    camera: Camera
    """At the size to render."""
    look: Look
    """How."""
    depth: bool
    """Whether the depth is sent too."""
    coding: Coding
    """How it is sent."""
    quality: int
    """Of the coding."""
    wished_at: float
    """When the wish arrived."""
    moving: bool
    """Whether a sharper one follows."""
