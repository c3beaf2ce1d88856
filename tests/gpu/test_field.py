"""The CUDA passes of a field against the plain-torch reference, in value and in gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from native.field.rays import ragged_samples, rays, sparse_bits
from torch import Tensor

from kinosplat.render.camera import look_at
from kinosplat.render.field import native, reference
from kinosplat.render.field.field import Field, FieldShape
from kinosplat.render.field.layout import GridLayout, Space, StepRule
from kinosplat.render.field.marching import OccupiedCells, RayParts
from kinosplat.render.field.occupancy import OccupancyGrid
from kinosplat.render.field.picture_blocks import picture_blocks
from kinosplat.render.field.rays import camera_rays
from kinosplat.render.field.render import render_field
from kinosplat.render.field.sparse_table import sparse_table

pytestmark = pytest.mark.gpu

LAYOUTS = [
    GridLayout(n_levels=5, base_resolution=4, finest_resolution=100, log2_table_size=14),
    GridLayout(n_levels=1, base_resolution=16, finest_resolution=16),
    GridLayout(n_levels=3, base_resolution=1, finest_resolution=20),
    GridLayout(n_levels=16, base_resolution=16, finest_resolution=2048, log2_table_size=14),
]


def positions_along_rays(dtype: torch.dtype = torch.float32) -> Tensor:
    """Runs of samples in common cells, samples on their own, corners of the cube and samples outside of it."""
    generator = torch.Generator().manual_seed(0)
    origins = torch.rand(20, 1, 3, generator=generator, dtype=torch.float64)
    ends = torch.rand(20, 1, 3, generator=generator, dtype=torch.float64)
    along = torch.linspace(0, 1, 57, dtype=torch.float64)[None, :, None]
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    outside = 3 * torch.rand(301, 3, generator=generator, dtype=torch.float64) - 1
    return torch.cat([(origins + along * (ends - origins)).reshape(-1, 3), corners, outside]).to(dtype)


def table_of(layout: GridLayout) -> Tensor:
    return torch.randn(layout.n_entries, layout.n_features, generator=torch.Generator().manual_seed(1))


def close(value: Tensor, expected: Tensor, share: float) -> None:
    """Within `share` of the largest expected value."""
    expected = expected.detach()
    bound = share * float(expected.abs().max())
    torch.testing.assert_close(value.detach().cpu().double(), expected.cpu().double(), rtol=0, atol=bound)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n_features", [1, 2, 4, 8])
@pytest.mark.parametrize("half", [False, True])
def test_encoding_and_its_gradients_are_those_of_the_reference(
    layout: GridLayout, n_features: int, half: bool, cuda_device: torch.device
) -> None:
    layout = GridLayout(**{**vars(layout), "n_features": n_features})
    dtype = torch.float16 if half else torch.float32
    # The reference runs on the device too: as plain torch it is the same there, and faster.
    positions, table = positions_along_rays().to(cuda_device), table_of(layout).to(dtype).to(cuda_device)
    exact_positions, exact_table = positions.double().requires_grad_(), table.double().requires_grad_()
    # At resolution 2048 a rounding step of a position is 1e-4 of a cell.
    expected = reference.encode(exact_positions, exact_table, layout)
    features = native.encode_forward(positions, table, layout, dtype)
    assert features.dtype == dtype
    close(features, expected, 2e-3 if half else 5e-4)

    dL_dfeatures = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2)).to(cuda_device)
    expected.backward(dL_dfeatures.double())
    dL_dtable, dL_dpositions = native.encode_backward(dL_dfeatures, positions, table, layout, positions_gradient=True)
    assert dL_dtable is not None
    assert dL_dtable.dtype == torch.float32
    close(dL_dtable, exact_table.grad, 5e-4)
    # Where rounding puts a sample on the other side of a face, its gradient is that cell's: compare the others.
    assert dL_dpositions is not None
    inexact = reference.encode(positions.requires_grad_(), table.float(), layout)
    inexact.backward(dL_dfeatures)
    close(dL_dpositions, positions.grad, 5e-4)


def test_features_stay_float32_unless_asked_for(cuda_device: torch.device) -> None:
    layout = LAYOUTS[0]
    positions, table = positions_along_rays().to(cuda_device), table_of(layout).to(cuda_device)
    assert native.encode_forward(positions, table.half(), layout).dtype == torch.float32
    assert native.encode_forward(positions, table, layout, torch.float16).dtype == torch.float16


def test_no_samples_and_nan_do_no_harm(cuda_device: torch.device) -> None:
    layout = LAYOUTS[0]
    table = table_of(layout).to(cuda_device)
    nothing = torch.empty(0, 3, device=cuda_device)
    features = native.encode_forward(nothing, table, layout)
    assert features.shape == (0, layout.width)
    dL_dtable, _ = native.encode_backward(features, nothing, table, layout, positions_gradient=True)
    assert dL_dtable is not None
    assert (dL_dtable == 0).all()
    positions = torch.rand(70, 3, device=cuda_device)
    positions[7, 1], positions[9, 2] = torch.nan, torch.inf
    features = native.encode_forward(positions, table, layout)
    assert features[7].isnan().all()
    assert features[torch.arange(70) != 7].isfinite().all()


@pytest.mark.parametrize("n_degrees", [1, 2, 3, 4])
def test_directions_are_the_rasterizers_spherical_harmonics(n_degrees: int, cuda_device: torch.device) -> None:
    directions = torch.nn.functional.normalize(torch.randn(333, 3), dim=1)
    directions[0] = 0.0
    directions = directions.double().requires_grad_()
    expected = reference.encode_directions(directions, n_degrees)
    moved = directions.detach().float().to(cuda_device)
    close(native.sh_forward(moved, n_degrees), expected, 2e-6)
    dL_dvalues = torch.randn(expected.shape)
    gradient = native.sh_backward(dL_dvalues.to(cuda_device), moved, n_degrees)
    if n_degrees == 1:
        assert (gradient == 0).all()
    else:
        expected.backward(dL_dvalues.double())
        close(gradient, directions.grad, 2e-6)


@pytest.mark.parametrize(
    ("space", "rule", "resolution"),
    [
        (Space(center=(1.0, 2.0, 3.0), half_extent=2.0), StepRule(200), 64),
        (Space(n_cascades=4, contract=True), StepRule(128, 1 / 64), 32),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.05, 1.1])
def test_samples_are_those_of_the_reference(
    space: Space, rule: StepRule, resolution: int, share: float, cuda_device: torch.device
) -> None:
    bundle = rays(1000, torch.float32, space)
    bits = sparse_bits(space.n_cascades, resolution, share)
    moved = RayParts(*(values.to(cuda_device) for values in vars(bundle).values()))
    cells = OccupiedCells(bits.to(cuda_device), space, rule, resolution)
    expected = reference.march(moved, cells)
    n_visited = torch.empty(1000, dtype=torch.int32, device=cuda_device)
    samples = native.march(moved, cells, n_visited=n_visited)
    assert (n_visited >= samples.offsets.diff()).all()
    # Fused multiply-adds move a midpoint by a rounding step, now and then into the next cell.
    different = (samples.offsets.diff() - expected.offsets.diff()).abs()
    assert int(different.sum()) <= 1 + len(expected) // 500
    same = different == 0
    for ours, theirs in ((samples.t, expected.t), (samples.dt, expected.dt)):
        kept = torch.repeat_interleave(same, samples.offsets.diff())
        kept_expected = torch.repeat_interleave(same, expected.offsets.diff())
        gap = (ours[kept] - theirs[kept_expected]).abs()
        assert (gap > 1e-5).float().mean() < 2e-3
    positions, directions = native.sample_points(moved.origins, moved.directions, samples, space)
    on_host = type(samples)(samples.offsets.cpu(), samples.t.cpu(), samples.dt.cpu())
    for value, exact in zip(
        (positions, directions),
        reference.sample_points(bundle.origins, bundle.directions, on_host, space),
        strict=True,
    ):
        torch.testing.assert_close(value.cpu(), exact, rtol=0, atol=2e-6)


def test_no_rays_and_rays_that_miss_have_no_samples(cuda_device: torch.device) -> None:
    space, rule, resolution = Space(), StepRule(128), 32
    bits = torch.full((resolution**3 // 8,), 255, dtype=torch.uint8, device=cuda_device)
    bundle = RayParts(*(values.to(cuda_device) for values in vars(rays(4, torch.float32, space)).values()))
    bundle.directions[0] = 0.0
    bundle.directions[1] = torch.nan
    bundle.far[2] = bundle.near[2]
    cells = OccupiedCells(bits, space, rule, resolution)
    counts = native.march(bundle, cells).offsets.diff()
    assert (counts[:3] == 0).all()
    samples = native.march(RayParts(*(values[:0] for values in vars(bundle).values())), cells)
    assert samples.offsets.tolist() == [0]


@pytest.mark.parametrize(("stop", "scale"), [(0.0, 1.0), (1e-4, 5.0)])
def test_composited_rays_and_gradients_are_those_of_the_reference(
    stop: float, scale: float, cuda_device: torch.device
) -> None:
    samples = ragged_samples([0, 1, 5, 200, 0, 31, 32, 33, 64, 65, 17], torch.float64)
    generator = torch.Generator().manual_seed(5)
    density = (scale * torch.rand(len(samples), generator=generator, dtype=torch.float64)).requires_grad_()
    rgb = torch.rand(len(samples), 3, generator=generator, dtype=torch.float64).requires_grad_()
    expected = reference.composite(density, rgb, samples.t, samples.dt, samples.offsets, stop)
    moved = [values.detach().float().to(cuda_device) for values in (density, rgb, samples.t, samples.dt)] + [
        samples.offsets.to(cuda_device)
    ]
    out = native.composite_forward(*moved, stop)
    names = ("rgb", "alpha", "depth", "distortion")
    for name in names:
        close(getattr(out, name), getattr(expected, name), 5e-6)
    assert torch.equal(out.n_used.cpu(), expected.n_used)
    gradients = [torch.randn(getattr(expected, name).shape, generator=generator).double() for name in names]
    torch.autograd.backward([getattr(expected, name) for name in names], gradients)
    on_device = [gradient.float().to(cuda_device) for gradient in gradients]
    for value, leaf in zip(native.composite_backward(*on_device, *moved, out), (density, rgb), strict=True):
        close(value, leaf.grad, 1e-5)


def test_occupancy_decays_rises_and_is_packed(cuda_device: torch.device) -> None:
    density = torch.rand(4096) - 0.2
    cells, values = torch.tensor([3, 70, 3, 4095, 5]), torch.tensor([0.5, 9.0, 2.0, 0.0, -0.05])
    expected, moved = density.clone(), density.to(cuda_device)
    reference.occupancy_update(expected, cells, values, 0.95)
    native.occupancy_update(moved, cells.to(cuda_device), values.to(cuda_device), 0.95)
    assert torch.equal(moved.cpu(), expected)
    assert torch.equal(native.occupancy_pack(moved, 0.4).cpu(), reference.occupancy_pack(expected, 0.4))


def test_what_does_not_fit_is_refused_by_name(cuda_device: torch.device) -> None:
    layout = LAYOUTS[0]
    positions, table = torch.rand(3, 3, device=cuda_device), table_of(layout).to(cuda_device)
    with pytest.raises(ValueError, match="table must be on cuda"):
        native.encode_forward(positions, table.cpu(), layout)
    with pytest.raises(ValueError, match="table must be float32 or float16 on a GPU, got float64"):
        native.encode_forward(positions, table.double(), layout)
    with pytest.raises(ValueError, match=r"table must have shape \(\d+, 2\)"):
        native.encode_forward(positions, table[1:], layout)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.31, 0.9])
def test_a_sparse_table_reads_like_the_whole_one(half: bool, share: float, cuda_device: torch.device) -> None:
    layout = LAYOUTS[3]
    table = table_of(layout).to(torch.float16 if half else torch.float32).to(cuda_device)
    keep = torch.rand(layout.n_entries, device=cuda_device) < share
    positions = positions_along_rays().to(cuda_device)
    features = native.encode_sparse(positions, sparse_table(table, keep), layout)
    expected = native.encode_forward(positions, table * keep[:, None], layout)
    torch.testing.assert_close(features, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_picture_by_blocks_is_the_picture_along_rays(share: float, cuda_device: torch.device) -> None:
    """From outside at an angle, close to a corner, and from within the cube."""
    space, rule, resolution = Space(center=(0.5, -1.0, 2.0), half_extent=1.5), StepRule(200), 64
    layout = GridLayout(n_levels=4, n_features=2, base_resolution=4, finest_resolution=64, log2_table_size=12)
    generator = torch.Generator().manual_seed(0)
    first = Field.create(FieldShape(layout=layout, space=space, n_hidden=16), "native", generator)
    # Strong features, so that blocks hide one another and colours vary.
    field = replace(first, table=20 * torch.randn(first.table.shape, generator=generator)).mapped(
        lambda tensor: tensor.to(cuda_device)
    )
    grid = OccupancyGrid(space, rule, resolution, cuda_device)
    grid.bits = sparse_bits(1, resolution, share).to(cuda_device)
    for position in ((4.0, 1.0, 3.0), (2.1, 0.7, 3.7), (0.7, -1.2, 2.3)):
        camera = look_at(
            torch.tensor(position),
            torch.tensor([0.4, -1.1, 1.9]),
            torch.tensor([0.0, 1.0, 0.0]),
            K=torch.tensor([[130.0, 0, 80], [0, 130, 60], [0, 0, 1]]),
            width=161,
            height=119,
        ).to(cuda_device)
        seen = [
            render_field(field, grid, [camera], torch.ones(3, device=cuda_device), near=0.05, march_by=by)
            for by in ("rays", "blocks")
        ]
        # Both march with the same steps; along rays the fused kernels draw in 16 bits, the passes in 32.
        error = (seen[0].rgb - seen[1].rgb).square().mean()
        assert -10 * torch.log10(error) > 45
        assert seen[1].alpha.mean() > 0.1
        pixels = camera_rays(camera)
        n = len(pixels)
        parts = RayParts(
            pixels.origins,
            pixels.directions,
            torch.full((n,), 0.05, device=cuda_device),
            torch.full((n,), 20.0, device=cuda_device),
            torch.rand(n, device=cuda_device),
        )
        along = native.march(parts, grid.cells)
        picture = picture_blocks(native.occupied_blocks(grid.cells), camera, grid.cells)
        by_blocks = native.march(parts, grid.cells, picture=picture)
        assert torch.equal(by_blocks.offsets, along.offsets)
        assert torch.equal(by_blocks.t, along.t)
        assert torch.equal(by_blocks.dt, along.dt)
