"""A mesh of whatever can be opened: Gaussians through their rendered depth, fields through their density."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from kinosplat.compression.mesh.field_density import FieldDensity
from kinosplat.compression.mesh.fusion import DepthPicture, fuse
from kinosplat.compression.mesh.marching import Density, mesh_of_density
from kinosplat.compression.mesh.mesh import Mesh
from kinosplat.errors import InputError
from kinosplat.render.camera import Camera
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.paths import look_at_point
from kinosplat.render.rasterize import rasterize
from kinosplat.scenes.scene import Similarity
from kinosplat.subjects import FieldSubject, MethodSubject
from kinosplat.trainers.methods.hash_grid import FieldMethod
from kinosplat.viewer.subject import Subject

OPAQUE = 0.5
"""Depth counts where the alpha is above this."""
REACH = 2.0
"""Depths up to this many times the cameras' distance from what they look at count."""
SPECK = 0.01
"""Connected parts with less than this part of the largest one's triangles are left out."""
RESOLUTION = 256
"""Cells of marching cubes along the longest side."""
MOST_CELLS = 1024
"""The same at most: 4 GiB of densities."""
THICKNESS = 0.1
"""Optical thickness of a cell at the surface of a field: where a ray loses a tenth of its light in one cell."""


@dataclass(frozen=True)
class MeshOptions:
    """How fine a mesh is."""

    time: float | None = None
    """Moment of the clip, seconds; by default the first."""
    voxel: float | None = None
    """Edge of a cell, units of the input; by default a pixel's width at the distance of what the cameras look at (for
    a field, a 256th of its box)."""
    level: float | None = None
    """Density of a field at its surface, 1 / units of the input; by default a tenth of the light is lost in a cell."""


def mesh_of(subject: Subject, options: MeshOptions) -> Mesh:
    """The surface of a subject, in the frame of the input."""
    scale = subject.to_input.scale
    voxel = None if options.voxel is None else options.voxel / scale
    if voxel is not None and not voxel > 0:
        raise InputError(f"--voxel must be above 0, got {options.voxel:g}.")
    if options.level is not None and not options.level > 0:
        raise InputError(f"--level must be above 0, got {options.level:g}.")
    with subject.turn():
        gaussians = subject.gaussians()
        if gaussians is not None:
            if options.level is not None:
                raise InputError("--level is the density of a field, and Gaussians have none; leave it out.")
            mesh = _of_gaussians(subject, gaussians, _moment(subject, options.time), voxel)
        else:
            mesh = _of_density(density_of(subject), voxel, options.level, scale)
    if len(mesh.faces) == 0:
        raise InputError("There is no surface to be found; train longer, or give another --voxel.")
    return _placed(mesh.without_specks(SPECK), subject.to_input)


def density_of(subject: Subject) -> Density:
    """The density of a field, in memory or from a file; InputError for others."""
    if isinstance(subject, FieldSubject):
        return FieldDensity(subject.stored.field, subject.stored.grid)
    if isinstance(subject, MethodSubject) and isinstance(subject.method, FieldMethod):
        return FieldDensity(subject.method.field(), subject.method.grid)
    raise InputError(f"{subject.label} has neither Gaussians nor a density, so there is no mesh of it.")


def _moment(subject: Subject, time: float | None) -> float | None:
    if not subject.times:
        return None
    return subject.times[0] if time is None else time


def _of_gaussians(subject: Subject, gaussians: Gaussians, moment: float | None, voxel: float | None) -> Mesh:
    cameras = [camera.at(moment) for camera in _all_cameras(subject)]
    distance = distance_of_view(cameras)
    focal = float(np.median([float(camera.K[0, 0]) for camera in cameras]))
    pictures = _pictures(subject, gaussians, cameras)
    return fuse(pictures, voxel=voxel or distance / focal, farthest=REACH * distance)


def _all_cameras(subject: Subject) -> Sequence[Camera]:
    """Every training photo's of what stands still; of a clip one of each physical camera."""
    photos = subject.photos
    if subject.times or photos is None:
        return subject.cameras
    return [view.camera for view in photos.views[: photos.n_train]]


def distance_of_view(cameras: Sequence[Camera]) -> float:
    """Median distance of the cameras from the point they look at, scene units."""
    target = look_at_point(cameras)
    return float(np.median([float((camera.position.double().cpu() - target).norm()) for camera in cameras]))


@torch.no_grad()
def _pictures(subject: Subject, gaussians: Gaussians, cameras: Sequence[Camera]) -> Iterator[DepthPicture]:
    settings = replace(subject.settings, median_depth=True)
    for camera in cameras:
        seen = camera.to(subject.device)
        output = rasterize(gaussians, [seen], background=subject.background, settings=settings)
        assert output.median_depth is not None
        depth = torch.where(output.alpha[0] > OPAQUE, output.median_depth[0], 0.0).float().cpu().numpy()
        rgb = (output.rgb[0] * 255).round().clamp(0, 255).byte().cpu().numpy()
        yield DepthPicture(camera, rgb, depth)


def _of_density(density: Density, voxel: float | None, level: float | None, scale: float) -> Mesh:
    """`voxel` is in scene units, `level` in 1 / units of the input, of which a scene unit has `scale`."""
    lower, upper = density.density_box
    longest = max(b - a for a, b in zip(lower, upper, strict=True))
    resolution = RESOLUTION if voxel is None else max(2, round(longest / voxel))
    if resolution > MOST_CELLS:
        raise InputError(
            f"--voxel makes {resolution:,} cells along the longest side, of which {MOST_CELLS:,} can be held; give "
            f"{longest * scale / MOST_CELLS:.2g} or more."
        )
    if level is None:
        level = THICKNESS * resolution / (longest * scale)
    return mesh_of_density(density, resolution=resolution, level=level, scale=scale)


def _placed(mesh: Mesh, to_input: Similarity) -> Mesh:
    return replace(mesh, vertices=to_input.apply(torch.from_numpy(mesh.vertices)).numpy())
