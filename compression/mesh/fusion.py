"""A surface from pictures with depth: a truncated signed distance, averaged over all of them (Curless and Levoy 1996).

Open3D does the fusing and extracts the triangles; the extra `mesh` installs it, and without it BackendError says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinosplat.compression.mesh.mesh import Mesh
from kinosplat.errors import BackendError
from kinosplat.render.camera import Camera

MISSING_OPEN3D = "Fusing depth into a mesh needs Open3D; run 'pip install \"kinosplat[mesh]\"'"
TRUNCATION = 5.0
"""Voxels on each side of the surface that a depth speaks of."""

WITNESSES = 2
"""Cameras that have to speak of a place; what one alone says is often a floater."""
BLOCK = 16
"""Voxels on an edge of the blocks that are allocated together."""
FIRST_BLOCKS = 2000
"""Blocks allocated at the start, 80 KB each; there are more when they are needed."""


@dataclass(frozen=True)
class DepthPicture:
    """What one camera sees."""

    camera: Camera
    """Where it was rendered from."""
    rgb: NDArray[np.uint8]
    """(H, W, 3)."""
    depth: NDArray[np.float32]
    """(H, W) z-depth in world units; 0 where there is none."""


def fuse(pictures: Iterable[DepthPicture], *, voxel: float, farthest: float) -> Mesh:
    """The surface that the depths agree on; `voxel` is the edge of a cell, and depths beyond `farthest` say nothing."""
    try:
        # What its type stubs say of tensors does not fit its own examples.
        open3d: Any = importlib.import_module("open3d")
    except ModuleNotFoundError as error:
        raise BackendError(f"{MISSING_OPEN3D}.") from error
    except ImportError as error:
        raise BackendError(
            f"Open3D is installed but cannot be loaded ({error}); install the library it names."
        ) from error

    core = open3d.core
    volume = open3d.t.geometry.VoxelBlockGrid(
        attr_names=("tsdf", "weight", "color"),
        attr_dtypes=(core.float32, core.float32, core.float32),
        attr_channels=(1, 1, 3),
        voxel_size=voxel,
        block_resolution=BLOCK,
        block_count=FIRST_BLOCKS,
        device=core.Device("CPU:0"),
    )
    for picture in pictures:
        depth = open3d.t.geometry.Image(core.Tensor(np.ascontiguousarray(picture.depth)))
        colour = open3d.t.geometry.Image(core.Tensor(picture.rgb.astype(np.float32) / 255))
        K = picture.camera.K.double().cpu().numpy().copy()
        # Open3D counts pixels from the centre of the first one.
        K[:2, 2] -= 0.5
        lens, pose = core.Tensor(K), core.Tensor(picture.camera.world_to_camera.double().cpu().numpy().copy())
        blocks = volume.compute_unique_block_coordinates(depth, lens, pose, 1.0, farthest, TRUNCATION)
        volume.integrate(blocks, depth, colour, lens, lens, pose, 1.0, farthest, TRUNCATION)
    found = volume.extract_triangle_mesh(weight_threshold=WITNESSES - 0.5).to_legacy()
    return Mesh(
        np.asarray(found.vertices, np.float64),
        np.asarray(found.triangles, np.int64),
        (255 * np.asarray(found.vertex_colors)).round().clip(0, 255).astype(np.uint8),
    )
