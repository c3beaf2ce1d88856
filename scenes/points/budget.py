"""How much work first points may cost."""

from __future__ import annotations

from dataclasses import dataclass

from kinosplat.scenes.points.plane_sweep import SweepSettings


@dataclass(frozen=True)
class Budget:
    """How much is looked at; time grows with pixels, views and key frames."""

    coarse_pixels: int
    """Size of the pictures in which depth is searched."""
    fine_pixels: int
    """Size of the pictures in which it is refined; each level in between has four times the pixels."""
    n_views: int
    """Views at a time, evenly spread over the cameras."""
    n_key_frames: int
    """Times, evenly spread over the clip."""
    n_moving_views: int
    """Views at a key frame in which moving things are searched; all views are compared with these."""
    n_cells: int
    """Cells on the longest side of the visual hull's grid."""
    sweep: SweepSettings
    """Planes and patches."""

    @classmethod
    def for_cpu(cls) -> Budget:
        """Seconds on two cores."""
        return cls(6_000, 24_000, 48, 6, 14, 96, SweepSettings())

    @classmethod
    def for_gpu(cls) -> Budget:
        """Seconds on a GPU."""
        return cls(16_000, 256_000, 64, 24, 64, 256, SweepSettings(n_planes=128, n_probe_planes=192))
