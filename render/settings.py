"""How a set of Gaussians is rasterized: what every rasterizer is told besides Gaussians and cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kinosplat.render.gaussians import Gaussians


@dataclass(frozen=True)
class RasterSettings:
    """How Gaussians are rasterized, and which pictures are wanted beside rgb and alpha."""

    rasterizer: Literal["auto", "native", "reference", "gsplat"] = "auto"
    """Which code renders: auto is native; reference is slow plain torch; gsplat needs that package and a GPU."""
    sh_degree: int | None = None
    """Use spherical harmonics up to this degree at most; None uses all there are."""
    antialiased: bool = False
    """Scale opacities by the area the screen filter adds (Mip-Splatting, Yu et al. 2024)."""
    near: float = 0.01
    """Gaussians whose centre is nearer than this are not drawn, world units."""
    far: float = 1e10
    """Gaussians whose centre is farther than this are not drawn, world units."""
    depth: bool = False
    """Also render the expected depth."""
    median_depth: bool = False
    """Also render the median depth."""
    normal: bool = False
    """Also render normals."""

    @property
    def is_native(self) -> bool:
        """Whether this project's own passes draw, whose gradients are to be had without a history of torch's."""
        return self.rasterizer in ("auto", "native")

    def degree_of(self, gaussians: Gaussians) -> int:
        """The degree that is used of a set's harmonics."""
        return gaussians.sh_degree if self.sh_degree is None else min(self.sh_degree, gaussians.sh_degree)
