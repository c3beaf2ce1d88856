"""What a reader of another tool's format returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from kinosplat.compression.kino.metadata import Metadata
from kinosplat.render.gaussians import Gaussians


@dataclass(frozen=True)
class Imported:
    """A file of Gaussians."""

    gaussians: Gaussians
    """In the file's coordinates."""
    metadata: Metadata = field(default_factory=Metadata)
    """What the file says about its scene; most formats say nothing."""
