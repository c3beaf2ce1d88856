"""Encoding positions and directions natively is what the plain-torch reference says, in value and in gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kinosplat.render.field import native, reference
from kinosplat.render.field.layout import GridLayout

# Dense below 25 vertices a side, hashed above; one level; dense only; a table that is nearly all collisions.
LAYOUTS = [
    GridLayout(n_levels=5, base_resolution=4, finest_resolution=100, log2_table_size=14),
    GridLayout(n_levels=1, base_resolution=16, finest_resolution=16),
    GridLayout(n_levels=3, base_resolution=1, finest_resolution=20),
    GridLayout(n_levels=4, base_resolution=16, finest_resolution=2048, log2_table_size=4),
]


def positions_with_corners(dtype: torch.dtype) -> Tensor:
    """Positions inside, on faces, edges and vertices of the cube, and outside of it."""
    generator = torch.Generator().manual_seed(0)
    inside = torch.rand(300, 3, generator=generator, dtype=torch.float64)
    faces = torch.rand(30, 3, generator=generator, dtype=torch.float64)
    faces[:10, 0], faces[10:20, 1], faces[20:, 2] = 0.0, 1.0, 1.0
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    outside = 3 * torch.rand(30, 3, generator=generator, dtype=torch.float64) - 1
    return torch.cat([inside, faces, corners, outside]).to(dtype)


def table_of(layout: GridLayout, dtype: torch.dtype) -> Tensor:
    shape = (layout.n_entries, layout.n_features)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n_features", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_encoding_and_its_gradients_are_those_of_the_reference(
    layout: GridLayout, n_features: int, dtype: torch.dtype
) -> None:
    layout = GridLayout(**{**vars(layout), "n_features": n_features})
    positions, table = positions_with_corners(dtype).requires_grad_(), table_of(layout, dtype).requires_grad_()
    expected = reference.encode(positions, table, layout)
    features = native.encode_forward(positions, table, layout)
    # Measured of the largest value: float64 4e-16, float32 2e-7.
    tolerance = 1e-14 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(features, expected, rtol=0, atol=tolerance * float(expected.abs().max()))

    dL_dfeatures = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=dtype)
    expected.backward(dL_dfeatures)
    dL_dtable, dL_dpositions = native.encode_backward(dL_dfeatures, positions, table, layout, positions_gradient=True)
    # Measured of the largest: float64 8e-16 and 4e-16, float32 5e-7 and 3e-7.
    for gradient, leaf in ((dL_dtable, table), (dL_dpositions, positions)):
        torch.testing.assert_close(gradient, leaf.grad, rtol=0, atol=5 * tolerance * float(leaf.grad.abs().max()))


def test_the_gradients_are_those_of_finite_differences() -> None:
    layout = GridLayout(n_levels=3, base_resolution=3, finest_resolution=9, log2_table_size=8)
    positions = 0.05 + 0.9 * torch.rand(6, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    class Encode(torch.autograd.Function):
        @staticmethod
        def forward(ctx, positions: Tensor, table: Tensor) -> Tensor:
            ctx.save_for_backward(positions, table)
            return native.encode_forward(positions, table, layout)

        @staticmethod
        def backward(ctx, dL_dfeatures: Tensor) -> tuple[Tensor, Tensor]:
            dL_dtable, dL_dpositions = native.encode_backward(
                dL_dfeatures.contiguous(), *ctx.saved_tensors, layout, positions_gradient=True
            )
            return dL_dpositions, dL_dtable

    leaves = (positions.requires_grad_(), table_of(layout, torch.float64).requires_grad_())
    assert torch.autograd.gradcheck(Encode.apply, leaves)


def test_nan_stays_nan_and_touches_only_the_cells_it_ends_in() -> None:
    layout = LAYOUTS[0]
    positions = torch.rand(70, 3)
    positions[7, 1] = torch.nan
    features = native.encode_forward(positions, table_of(layout, torch.float32), layout)
    assert features[7].isnan().all()
    assert features[torch.arange(70) != 7].isfinite().all()
    dL_dtable, _ = native.encode_backward(torch.ones_like(features), positions, table_of(layout, torch.float32), layout)
    assert dL_dtable is not None
    assert dL_dtable.isnan().any(dim=1).sum() <= 8 * layout.n_levels


def test_infinite_positions_are_those_of_the_face() -> None:
    layout = LAYOUTS[0]
    table = table_of(layout, torch.float32)
    far = torch.tensor([[torch.inf, 0.3, 0.4], [0.2, -torch.inf, 0.4]])
    face = torch.tensor([[1.0, 0.3, 0.4], [0.2, 0.0, 0.4]])
    assert torch.equal(native.encode_forward(far, table, layout), native.encode_forward(face, table, layout))


def test_no_samples_give_no_features_and_a_zero_gradient() -> None:
    layout = LAYOUTS[0]
    table = table_of(layout, torch.float32)
    features = native.encode_forward(torch.empty(0, 3), table, layout)
    assert features.shape == (0, layout.width)
    dL_dtable, dL_dpositions = native.encode_backward(
        features, torch.empty(0, 3), table, layout, positions_gradient=True
    )
    assert dL_dtable is not None
    assert (dL_dtable == 0).all()
    assert dL_dpositions is not None
    assert dL_dpositions.shape == (0, 3)


def test_threads_do_not_change_the_gradient() -> None:
    layout = LAYOUTS[0]
    positions, table = positions_with_corners(torch.float32), table_of(layout, torch.float32)
    dL_dfeatures = torch.randn(len(positions), layout.width)
    before, results = torch.get_num_threads(), []
    for n_threads in (1, 2, 5):
        torch.set_num_threads(n_threads)
        results.append(native.encode_backward(dL_dfeatures, positions, table, layout)[0])
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("n_degrees", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_directions_are_the_rasterizers_spherical_harmonics(n_degrees: int, dtype: torch.dtype) -> None:
    directions = torch.nn.functional.normalize(torch.randn(50, 3, dtype=dtype), dim=1)
    directions[0] = 0.0
    directions.requires_grad_()
    expected = reference.encode_directions(directions, n_degrees)
    tolerance = 1e-14 if dtype == torch.float64 else 2e-6  # measured 9e-16 and 5e-7
    torch.testing.assert_close(native.sh_forward(directions, n_degrees), expected, rtol=0, atol=tolerance)
    dL_dvalues = torch.randn_like(expected)
    if n_degrees > 1:
        expected.backward(dL_dvalues)
        gradient = native.sh_backward(dL_dvalues, directions, n_degrees)
        torch.testing.assert_close(gradient, directions.grad, rtol=0, atol=10 * tolerance)
    else:
        assert (native.sh_backward(dL_dvalues, directions, n_degrees) == 0).all()


def test_what_does_not_fit_is_refused_by_name() -> None:
    layout = LAYOUTS[0]
    table = table_of(layout, torch.float32)
    with pytest.raises(ValueError, match=r"table must have shape \(\d+, 2\), got"):
        native.encode_forward(torch.rand(3, 3), table[1:], layout)
    with pytest.raises(ValueError, match="table must be float64, got float32; convert it first"):
        native.encode_forward(torch.rand(3, 3, dtype=torch.float64), table, layout)
    with pytest.raises(ValueError, match="positions must have shape"):
        native.encode_forward(torch.rand(3, 2), table, layout)
    with pytest.raises(ValueError, match=r"n_degrees must be 1 to 4, got 5\."):
        native.sh_forward(torch.rand(3, 3), 5)
