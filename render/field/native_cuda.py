"""The native passes of a field on a GPU (cuda/gpu/field.h has the contract of each), called by `native`.

Torch allocates everything, on the current stream. Arrays go over as addresses, checked first (render/cuda_call.py).
Marching waits once, for the number of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kinosplat._native import gpu as native
from kinosplat.errors import InputError
from kinosplat.render.cuda_call import Checked, address_of, current_queue, run_pass
from kinosplat.render.field.layout import GridLayout
from kinosplat.render.field.marching import RayParts
from kinosplat.render.field.picture_blocks import PictureBlocks
from kinosplat.render.field.samples import Composited, Samples
from kinosplat.render.field.sparse_table import SparseTable

ROW_ALIGNMENT = 16
"""Bytes that tables, features and their gradients start at a multiple of."""
DTYPES = (torch.float32, torch.float16)


def _is_half(name: str, dtype: torch.dtype) -> bool:
    if dtype not in DTYPES:
        raise InputError(f"{name} must be float32 or float16 on a GPU, got {str(dtype).removeprefix('torch.')}.")
    return dtype == torch.float16


def _encode_arguments(positions: Tensor, table: Tensor, layout: GridLayout, grid: Any) -> tuple[Any, ...]:
    checked = Checked(positions.device)
    n = len(positions)
    half = _is_half("table", table.dtype)
    return (
        current_queue(positions.device),
        grid,
        n,
        checked("positions", positions, (n, 3)),
        checked("table", table, (layout.n_entries, layout.n_features), table.dtype, ROW_ALIGNMENT),
        half,
    )


def encode_forward(
    positions: Tensor, table: Tensor, layout: GridLayout, grid: Any, dtype: torch.dtype, count: Tensor | None
) -> Tensor:
    """(S, L * F) features in `dtype`."""
    features = torch.empty(len(positions), layout.width, dtype=dtype, device=positions.device)
    half = _is_half("features", dtype)
    arguments = _encode_arguments(positions, table, layout, grid)
    count_address = Checked(positions.device)("count", count, (), torch.int32)
    run_pass(native.encode_forward, *arguments, features.data_ptr(), half, 0, 0, count_address)
    return features


def encode_sparse(positions: Tensor, table: SparseTable, layout: GridLayout, grid: Any, dtype: torch.dtype) -> Tensor:
    """(S, L * F) features in `dtype` from the entries kept; the headers are not read back to be checked."""
    n, n_kept = len(positions), len(table.values)
    headers, words = table.index.headers, table.index.words
    checked = Checked(positions.device)
    features = torch.empty(n, layout.width, dtype=dtype, device=positions.device)
    run_pass(
        native.encode_forward,
        current_queue(positions.device),
        grid,
        n,
        checked("positions", positions, (n, 3)),
        checked("values", table.values, (n_kept, layout.n_features), table.values.dtype, ROW_ALIGNMENT),
        _is_half("values", table.values.dtype),
        features.data_ptr(),
        _is_half("features", dtype),
        checked("headers", headers, (len(headers), 2), torch.int32, 8),
        checked("words", words, (len(words),), torch.int32),
    )
    return features


def encode_backward(
    dL_dfeatures: Tensor,
    positions: Tensor,
    table: Tensor,
    layout: GridLayout,
    grid: Any,
    *,
    table_gradient: bool,
    positions_gradient: bool,
    count: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the table, always float32, and of the positions; None where not wanted."""
    dL_dtable = torch.zeros(table.shape, device=table.device) if table_gradient else None
    dL_dpositions = torch.empty_like(positions) if positions_gradient else None
    arguments = _encode_arguments(positions, table, layout, grid)
    checked = Checked(positions.device)
    run_pass(
        native.encode_backward,
        *arguments,
        checked("the gradient of features", dL_dfeatures, (len(positions), layout.width), alignment=4),
        address_of(dL_dtable),
        address_of(dL_dpositions),
        checked("count", count, (), torch.int32),
    )
    return dL_dtable, dL_dpositions


def sh_forward(directions: Tensor, n_degrees: int) -> Tensor:
    """(S, n_degrees^2) spherical harmonics."""
    n = len(directions)
    values = directions.new_empty(n, n_degrees * n_degrees)
    run_pass(
        native.sh_forward,
        current_queue(directions.device),
        n,
        n_degrees,
        Checked(directions.device)("directions", directions, (n, 3)),
        values.data_ptr(),
    )
    return values


def sh_backward(dL_dvalues: Tensor, directions: Tensor, n_degrees: int) -> Tensor:
    """(S, 3) gradients of the directions."""
    n = len(directions)
    checked = Checked(directions.device)
    dL_ddirections = torch.empty_like(directions)
    run_pass(
        native.sh_backward,
        current_queue(directions.device),
        n,
        n_degrees,
        checked("directions", directions, (n, 3)),
        checked("the gradient of the harmonics", dL_dvalues, (n, n_degrees * n_degrees)),
        dL_ddirections.data_ptr(),
    )
    return dL_ddirections


def _rays(checked: Checked, origins: Tensor, directions: Tensor, bounds: Sequence[Tensor] = ()) -> Any:
    n = len(origins)
    names = ("near", "far", "jitter")
    return native.RayArrays(
        n,
        checked("origins", origins, (n, 3)),
        checked("directions", directions, (n, 3)),
        *(checked(name, values, (n,)) for name, values in zip(names, bounds, strict=False)),
    )


def occupied_blocks(bits: Tensor, n_cascades: int, resolution: int, marching: Any) -> Tensor:
    """(n_cascades * (resolution / 8)^3,) uint8, not zero for blocks with an occupied cell."""
    blocks = bits.new_empty(n_cascades * (resolution // 8) ** 3)
    n_bytes = n_cascades * resolution**3 // 8
    run_pass(
        native.occupied_blocks,
        current_queue(bits.device),
        marching,
        Checked(bits.device)("bits", bits, (n_bytes,), torch.uint8, 1),
        blocks.data_ptr(),
    )
    return blocks


def march(
    rays: RayParts,
    bits: Tensor,
    blocks: Tensor,
    marching: Any,
    picture: PictureBlocks | None,
    n_visited: Tensor | None,
) -> Samples:
    """Samples of all rays."""
    device = rays.origins.device
    checked = Checked(device)
    n = len(rays)
    arguments: tuple[Any, ...] = (
        current_queue(device),
        marching,
        checked("bits", bits, tuple(bits.shape), torch.uint8, 1),
        checked("blocks", blocks, tuple(blocks.shape), torch.uint8, 1),
        _rays(checked, rays.origins, rays.directions, (rays.near, rays.far, rays.jitter)),
    )
    count, write = native.march_count, native.march_write
    if picture is not None:
        if n != picture.width * picture.height:
            raise InputError("origins must be those of every pixel, line by line.")
        count, write = native.march_blocks_count, native.march_blocks_write
        m = len(picture.blocks)
        arguments += (
            native.BlockList(
                m,
                picture.width,
                picture.height,
                checked("list", picture.blocks, (m,), torch.int32),
                checked("rectangles", picture.rectangles, (m, 4), torch.int32, ROW_ALIGNMENT),
            ),
        )
    counts = torch.empty(n, dtype=torch.int32, device=device)
    run_pass(count, *arguments, counts.data_ptr(), checked("n_visited", n_visited, (n,), torch.int32))
    offsets = torch.zeros(n + 1, dtype=torch.int64, device=device)
    torch.cumsum(counts, 0, dtype=torch.int64, out=offsets[1:])
    n_samples = int(offsets[-1])
    t, dt = rays.origins.new_empty(n_samples), rays.origins.new_empty(n_samples)
    run_pass(write, *arguments, offsets.data_ptr(), t.data_ptr(), dt.data_ptr())
    return Samples(offsets, t, dt)


def sample_points(origins: Tensor, directions: Tensor, samples: Samples, marching: Any) -> tuple[Tensor, Tensor]:
    """Grid positions (S, 3) of midpoints and directions (S, 3) of their rays."""
    checked = Checked(origins.device)
    n, n_rays = len(samples), len(origins)
    positions, sample_directions = origins.new_empty(n, 3), origins.new_empty(n, 3)
    run_pass(
        native.sample_points,
        current_queue(origins.device),
        marching,
        _rays(checked, origins, directions),
        checked("offsets", samples.offsets, (n_rays + 1,), torch.int64, 8),
        checked("t", samples.t, (n,)),
        checked("dt", samples.dt, (n,)),
        positions.data_ptr(),
        sample_directions.data_ptr(),
    )
    return positions, sample_directions


def _composite_arrays(
    density: Tensor, rgb: Tensor, t: Tensor, dt: Tensor, offsets: Tensor, out: Composited, stop: float
) -> Any:
    checked = Checked(density.device)
    n, n_rays = len(density), len(offsets) - 1
    return native.CompositeArrays(
        n_rays,
        checked("offsets", offsets, (n_rays + 1,), torch.int64, 8),
        checked("density", density, (n,)),
        checked("t", t, (n,)),
        checked("dt", dt, (n,)),
        checked("rgb", rgb, (n, 3)),
        stop,
        checked("the colour of rays", out.rgb, (n_rays, 3)),
        checked("alpha", out.alpha, (n_rays,)),
        checked("depth", out.depth, (n_rays,)),
        checked("distortion", out.distortion, (n_rays,)),
        checked("n_used", out.n_used, (n_rays,), torch.int32),
    )


def composite_forward(
    density: Tensor, rgb: Tensor, t: Tensor, dt: Tensor, offsets: Tensor, out: Composited, stop: float
) -> None:
    """Write what the rays see into `out`."""
    arrays = _composite_arrays(density, rgb, t, dt, offsets, out, stop)
    run_pass(native.composite_forward, current_queue(density.device), arrays)


def composite_backward(
    gradients: Sequence[Tensor | None],
    density: Tensor,
    rgb: Tensor,
    t: Tensor,
    dt: Tensor,
    offsets: Tensor,
    out: Composited,
) -> tuple[Tensor, Tensor]:
    """Gradients of densities and colours; `gradients` are those of rgb, alpha, depth and distortion."""
    checked = Checked(density.device)
    n_rays = len(offsets) - 1
    dL_ddensity, dL_dsample_rgb = torch.empty_like(density), torch.empty_like(rgb)
    names = ("the gradient of rgb", "the gradient of alpha", "the gradient of depth", "the gradient of distortion")
    shapes = ((n_rays, 3), (n_rays,), (n_rays,), (n_rays,))
    run_pass(
        native.composite_backward,
        current_queue(density.device),
        _composite_arrays(density, rgb, t, dt, offsets, out, 0.0),
        *(checked(*argument) for argument in zip(names, gradients, shapes, strict=True)),
        dL_ddensity.data_ptr(),
        dL_dsample_rgb.data_ptr(),
    )
    return dL_ddensity, dL_dsample_rgb


def occupancy_update(density: Tensor, cells: Tensor, values: Tensor, decay: float) -> None:
    """Let densities decay, then raise those of `cells` to `values` where larger."""
    checked = Checked(density.device)
    n, m = len(density), len(cells)
    run_pass(
        native.occupancy_update,
        current_queue(density.device),
        n,
        decay,
        m,
        checked("cells", cells, (m,), torch.int64, 8),
        checked("values", values, (m,)),
        checked("density", density, (n,)),
    )


def occupancy_pack(density: Tensor, threshold: Tensor) -> Tensor:
    """(n_cells / 8,) uint8, a bit a cell."""
    n = len(density)
    if n % 8:
        raise InputError("density must have a multiple of 8 cells.")
    bits = torch.empty(n // 8, dtype=torch.uint8, device=density.device)
    checked = Checked(density.device)
    run_pass(
        native.occupancy_pack,
        current_queue(density.device),
        n,
        checked("density", density, (n,)),
        checked("threshold", threshold, ()),
        bits.data_ptr(),
    )
    return bits
