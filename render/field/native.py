"""The native passes of a field: raw calls, no autograd (cuda/cpu/field.h and cuda/gpu/field.h have the contracts).

Every function takes tensors of one device: float32 or float64 on the CPU, float32 on a GPU, where tables and encoded
features may also be float16. Torch allocates everything. What an argument must be is checked at the boundary: a wrong
device, dtype, shape or layout raises ValueError naming it. Layouts and spaces are turned into the native module's own
once and kept.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from kinosplat.render.backend import call_cpu, load_cuda, load_native
from kinosplat.render.field.layout import OCCUPANCY_RESOLUTION, GridLayout, Space, StepRule
from kinosplat.render.field.marching import OccupiedCells, RayParts
from kinosplat.render.field.picture_blocks import PictureBlocks
from kinosplat.render.field.reference import STOP
from kinosplat.render.field.samples import Composited, Samples
from kinosplat.render.field.sparse_table import SparseTable


@lru_cache(maxsize=64)
def native_grid(layout: GridLayout) -> Any:
    """The layout as native passes take it."""
    levels = list(zip(layout.resolutions, layout.sizes, layout.offsets[:-1], strict=True))
    return load_native().HashGrid(n_features=layout.n_features, levels=levels)


@lru_cache(maxsize=64)
def native_marching(space: Space, rule: StepRule, occupancy_resolution: int) -> Any:
    """A space, its occupancy grid and the lengths of steps as native passes take them."""
    dt_min, dt_max = rule.limits(space, occupancy_resolution)
    return load_native().Marching(
        center=list(space.center),
        half_extent=space.half_extent,
        n_cascades=space.n_cascades,
        contract=space.contract,
        cone_angle=rule.cone_angle,
        dt_min=dt_min,
        dt_max=dt_max,
        resolution=occupancy_resolution,
    )


def encode_forward(
    positions: Tensor,
    table: Tensor,
    layout: GridLayout,
    dtype: torch.dtype | None = None,
    count: Tensor | None = None,
) -> Tensor:
    """(S, L * F) features, level after level, of (S, 3) positions; table (n_entries, F).

    The features are of the positions' dtype; on a GPU `dtype` may be float16, and `count` () int32 say how many of the
    positions are in use.
    """
    if positions.is_cuda:
        return _cuda().encode_forward(positions, table, layout, native_grid(layout), dtype or positions.dtype, count)
    features = positions.new_empty(len(positions), layout.width)
    call_cpu("encode_forward", positions=positions, table=table, grid=native_grid(layout), features=features)
    return features


def encode_sparse(
    positions: Tensor, table: SparseTable, layout: GridLayout, dtype: torch.dtype | None = None
) -> Tensor:
    """`encode_forward` from a table of which only some entries are kept, which is read as it is stored."""
    if table.index.n_entries != layout.n_entries:
        raise ValueError(f"table must have {layout.n_entries} entries, got {table.index.n_entries}.")
    if positions.is_cuda:
        return _cuda().encode_sparse(positions, table, layout, native_grid(layout), dtype or positions.dtype)
    features = positions.new_empty(len(positions), layout.width)
    call_cpu(
        "encode_sparse",
        positions=positions,
        grid=native_grid(layout),
        values=table.values,
        headers=table.index.headers,
        words=table.index.words,
        features=features,
    )
    return features


def encode_backward(
    dL_dfeatures: Tensor,
    positions: Tensor,
    table: Tensor,
    layout: GridLayout,
    *,
    table_gradient: bool = True,
    positions_gradient: bool = False,
    count: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the table and of the positions from those (S, L * F) of the features; None where not wanted.

    On a GPU that of the table is float32 whatever the table is, and a sum of atomics whose last bits vary between runs;
    `count` as for `encode_forward`.
    """
    if positions.is_cuda:
        return _cuda().encode_backward(
            dL_dfeatures,
            positions,
            table,
            layout,
            native_grid(layout),
            table_gradient=table_gradient,
            positions_gradient=positions_gradient,
            count=count,
        )
    dL_dtable = torch.empty_like(table) if table_gradient else None
    dL_dpositions = torch.empty_like(positions) if positions_gradient else None
    call_cpu(
        "encode_backward",
        positions=positions,
        table=table,
        grid=native_grid(layout),
        dL_dfeatures=dL_dfeatures,
        dL_dtable=dL_dtable,
        dL_dpositions=dL_dpositions,
    )
    return dL_dtable, dL_dpositions


def sh_forward(directions: Tensor, n_degrees: int) -> Tensor:
    """(S, n_degrees^2) spherical harmonics of degree 0 to n_degrees - 1, at most 3, of (S, 3) unit directions."""
    if not 1 <= n_degrees <= 4:
        raise ValueError(f"n_degrees must be 1 to 4, got {n_degrees}.")
    if directions.is_cuda:
        return _cuda().sh_forward(directions, n_degrees)
    values = directions.new_empty(len(directions), n_degrees * n_degrees)
    call_cpu("sh_forward", directions=directions, n_degrees=n_degrees, values=values)
    return values


def sh_backward(dL_dvalues: Tensor, directions: Tensor, n_degrees: int) -> Tensor:
    """Gradients (S, 3) of the directions, taken as three free numbers, from those of the harmonics."""
    if directions.is_cuda:
        return _cuda().sh_backward(dL_dvalues, directions, n_degrees)
    dL_ddirections = torch.empty_like(directions)
    call_cpu(
        "sh_backward",
        directions=directions,
        n_degrees=n_degrees,
        dL_dvalues=dL_dvalues,
        dL_ddirections=dL_ddirections,
    )
    return dL_ddirections


def march(
    rays: RayParts, cells: OccupiedCells, *, picture: PictureBlocks | None = None, n_visited: Tensor | None = None
) -> Samples:
    """Samples of R rays in occupied cells, as marching.py defines them.

    With `picture` the rays are its pixels, and blocks of cells are visited from front to back instead of the empty
    space along each ray; the samples are the same. `n_visited` (R,) int32 receives the cells and blocks looked at.
    """
    marching = native_marching(cells.space, cells.rule, cells.resolution)
    blocks = picture.occupied if picture else occupied_blocks(cells)
    if rays.origins.is_cuda:
        return _cuda().march(rays, cells.bits, blocks, marching, picture, n_visited)
    arguments = {**vars(rays), "marching": marching, "bits": cells.bits, "blocks": blocks}
    count, write = "march_count", "march_write"
    if picture is not None:
        count, write = "march_blocks_count", "march_blocks_write"
        arguments |= {
            "list": picture.blocks,
            "rectangles": picture.rectangles,
            "width": picture.width,
            "height": picture.height,
        }
    offsets = torch.empty(len(rays) + 1, dtype=torch.int64)
    n_samples = call_cpu(count, **arguments, offsets=offsets, n_visited=n_visited)
    samples = Samples(offsets, rays.origins.new_empty(n_samples), rays.origins.new_empty(n_samples))
    call_cpu(write, **arguments, offsets=offsets, t=samples.t, dt=samples.dt)
    return samples


def occupied_blocks(cells: OccupiedCells) -> Tensor:
    """(n_cascades * (resolution / 8)^3,) uint8, not zero for the blocks of 8^3 cells that have an occupied one."""
    marching = native_marching(cells.space, cells.rule, cells.resolution)
    n_cascades = cells.space.n_cascades
    if cells.bits.is_cuda:
        return _cuda().occupied_blocks(cells.bits, n_cascades, cells.resolution, marching)
    blocks = cells.bits.new_empty(n_cascades * (cells.resolution // 8) ** 3)
    call_cpu("occupied_blocks", marching=marching, bits=cells.bits, blocks=blocks)
    return blocks


def sample_points(origins: Tensor, directions: Tensor, samples: Samples, space: Space) -> tuple[Tensor, Tensor]:
    """Grid positions (S, 3) of the samples' midpoints, and the directions (S, 3) of their rays."""
    marching = native_marching(space, StepRule(), OCCUPANCY_RESOLUTION)
    if origins.is_cuda:
        return _cuda().sample_points(origins, directions, samples, marching)
    positions, sample_directions = origins.new_empty(len(samples), 3), origins.new_empty(len(samples), 3)
    call_cpu(
        "sample_points",
        marching=marching,
        origins=origins,
        directions=directions,
        offsets=samples.offsets,
        t=samples.t,
        dt=samples.dt,
        positions=positions,
        sample_directions=sample_directions,
    )
    return positions, sample_directions


def composite_forward(
    density: Tensor, rgb: Tensor, t: Tensor, dt: Tensor, offsets: Tensor, stop: float = STOP
) -> Composited:
    """What R rays see of (S,) densities and (S, 3) colours, as `reference.composite` defines it."""
    n_rays = len(offsets) - 1
    out = Composited(
        rgb=density.new_empty(n_rays, 3),
        alpha=density.new_empty(n_rays),
        depth=density.new_empty(n_rays),
        distortion=density.new_empty(n_rays),
        n_used=torch.empty(n_rays, dtype=torch.int32, device=density.device),
    )
    if density.is_cuda:
        _cuda().composite_forward(density, rgb, t, dt, offsets, out, stop)
        return out
    call_cpu("composite_forward", **_composite_arguments(density, rgb, t, dt, offsets, out), stop=stop)
    return out


def composite_backward(
    dL_drgb: Tensor | None,
    dL_dalpha: Tensor | None,
    dL_ddepth: Tensor | None,
    dL_ddistortion: Tensor | None,
    density: Tensor,
    rgb: Tensor,
    t: Tensor,
    dt: Tensor,
    offsets: Tensor,
    out: Composited,
) -> tuple[Tensor, Tensor]:
    """Gradients (S,) of the densities and (S, 3) of the colours; `out` as the forward pass left it, None is zero."""
    if density.is_cuda:
        gradients = (dL_drgb, dL_dalpha, dL_ddepth, dL_ddistortion)
        return _cuda().composite_backward(gradients, density, rgb, t, dt, offsets, out)
    dL_ddensity, dL_dsample_rgb = torch.empty_like(density), torch.empty_like(rgb)
    call_cpu(
        "composite_backward",
        **_composite_arguments(density, rgb, t, dt, offsets, out),
        dL_drgb=dL_drgb,
        dL_dalpha=dL_dalpha,
        dL_ddepth=dL_ddepth,
        dL_ddistortion=dL_ddistortion,
        dL_ddensity=dL_ddensity,
        dL_dsample_rgb=dL_dsample_rgb,
    )
    return dL_ddensity, dL_dsample_rgb


def _composite_arguments(
    density: Tensor, rgb: Tensor, t: Tensor, dt: Tensor, offsets: Tensor, out: Composited
) -> dict[str, Tensor]:
    return {
        "density": density,
        "rgb": rgb,
        "t": t,
        "dt": dt,
        "offsets": offsets,
        "out_rgb": out.rgb,
        "alpha": out.alpha,
        "depth": out.depth,
        "distortion": out.distortion,
        "n_used": out.n_used,
    }


def occupancy_update(density: Tensor, cells: Tensor, values: Tensor, decay: float) -> None:
    """Let (n_cells,) float32 densities decay, then raise those of (M,) int64 `cells` to (M,) `values` where larger."""
    if density.is_cuda:
        _cuda().occupancy_update(density, cells, values, decay)
        return
    call_cpu("occupancy_update", density=density, cells=cells, values=values, decay=decay)


def occupancy_pack(density: Tensor, threshold: float | Tensor) -> Tensor:
    """(n_cells / 8,) uint8, a bit for each of (n_cells,) float32 densities above `threshold`, a number or () float32 on
    their device, which nobody waits for.
    """
    if density.is_cuda:
        return _cuda().occupancy_pack(density, torch.as_tensor(threshold, dtype=density.dtype, device=density.device))
    bits = torch.empty(len(density) // 8, dtype=torch.uint8, device=density.device)
    call_cpu("occupancy_pack", density=density, threshold=float(threshold), bits=bits)
    return bits


def _cuda() -> ModuleType:
    load_cuda()
    from kinosplat.render.field import native_cuda

    return native_cuda
