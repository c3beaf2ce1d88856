"""Drawn fused on the CPU, a field gives the picture that the reference defines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from render.fused_fields import BACKGROUND, camera, defined, field

from kinosplat.errors import BackendError, InputError
from kinosplat.render.backend import load_native
from kinosplat.render.field import native_fused
from kinosplat.render.field.field import Field, FieldShape
from kinosplat.render.field.layout import GridLayout, Space, StepRule
from kinosplat.render.field.native_fused import PreparedField
from kinosplat.render.field.occupancy import OccupancyGrid
from kinosplat.render.field.render import render_field

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The reference's small operations would wait for threads longer than they take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "options", [{}, {"gated": True}, {"unbounded": True}, {"n_features": 4}, {"n_features": 1}], ids=str
)
def test_pictures_are_those_of_the_reference(options: dict[str, int]) -> None:
    case, view = field(CPU, **options).double(), camera(41, 30)
    picture = case.draw(view)
    rgb, alpha, depth, n_samples = defined(case, view)
    # Measured 3e-14; but where a midpoint lies within rounding of a cell's face, a sample may be there or not.
    wrong = (picture.rgb - rgb).abs().amax(dim=2) > 1e-9
    assert wrong.float().mean() < 0.01
    torch.testing.assert_close(picture.alpha[~wrong], alpha[~wrong], rtol=0, atol=1e-9)
    torch.testing.assert_close(picture.depth[~wrong], depth[~wrong], rtol=0, atol=1e-9)
    assert float((alpha > 0.5).float().mean()) > 0.2  # there is something to see
    assert abs(int(picture.n_samples) - n_samples) <= 0.01 * n_samples


def test_float32_is_as_good_as_it_can_be() -> None:
    case, view = field(CPU), camera(41, 30)
    picture = case.draw(view)
    rgb, *_ = defined(case, view)
    assert picture.rgb is not None
    assert picture.rgb.dtype == torch.float32
    assert -10 * torch.log10((picture.rgb - rgb).square().mean()) > 60


def test_bytes_are_the_floats_rounded_and_threads_change_nothing() -> None:
    case, view = field(CPU, gated=True), camera(97, 61)
    floats = case.draw(view).rgb
    assert floats is not None
    n_before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        rounded = case.draw(view, as_bytes=True)
    finally:
        torch.set_num_threads(n_before)
    assert rounded.rgb is None
    assert rounded.as_bytes is not None
    assert torch.equal(rounded.as_bytes, (floats.clamp(0, 1) * 255 + 0.5).to(torch.uint8))


def test_empty_space_is_background_and_costs_no_samples() -> None:
    case = field(CPU)
    case.bits.zero_()
    picture = case.draw(camera(64, 48))
    assert picture.rgb is not None
    torch.testing.assert_close(picture.rgb, torch.tensor(BACKGROUND).expand(48, 64, 3))
    assert picture.n_rays == picture.n_samples == 0
    assert not picture.alpha.any()


@pytest.mark.parametrize("hollow", [False, True])
def test_asking_for_geometry_does_not_change_the_picture(hollow: bool) -> None:
    """Geometry is drawn piece by piece, everything else fused."""
    space, rule = Space(), StepRule(64)
    shape = FieldShape(GridLayout(4, 2, 4, 32, 12), space, n_hidden=16, hollow=hollow)
    learned = Field.create(shape, "native", torch.Generator().manual_seed(3)).mapped(
        lambda tensor: tensor * 1000 if len(tensor) == shape.layout.n_entries else tensor
    )
    grid = OccupancyGrid(space, rule, 16, CPU)
    view, behind = camera(40, 30), torch.tensor(BACKGROUND)
    fused = render_field(learned, grid, [view], behind, near=0.05)
    pieces = render_field(learned, grid, [view], behind, near=0.05, geometry=True)
    assert pieces.normal is not None
    assert float(fused.alpha.max()) > 0.2  # measured 0.26: there is something to compare
    torch.testing.assert_close(fused.rgb, pieces.rgb, rtol=0, atol=1e-4)  # measured 4e-6
    torch.testing.assert_close(fused.alpha, pieces.alpha, rtol=0, atol=1e-4)


@pytest.mark.parametrize("n_features", [2, 4])
@pytest.mark.parametrize("share", [0.05, 0.6])
def test_a_sparse_table_is_drawn_like_the_whole_one(share: float, n_features: int) -> None:
    view = camera(32, 24)
    case = field(CPU, gated=True, n_features=n_features)
    keep = torch.rand(case.layout.n_entries, generator=torch.Generator().manual_seed(1)) < share
    zeroed = replace(case, table=case.table * keep[:, None])
    sparse, whole = replace(zeroed, keep=keep).draw(view), zeroed.draw(view)
    assert sparse.n_samples == whole.n_samples
    # Sums of a level may be ordered otherwise: measured 2e-6.
    torch.testing.assert_close(sparse.rgb, whole.rgb, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("n_hidden", "n_bytes", "said"),
    [
        (64, 64 << 10, None),
        (128, 99 << 10, None),
        (
            128,
            64 << 10,
            "The fused kernels need 68096 bytes of shared memory for these networks and this GPU has 65536; "
            "draw it unfused.",
        ),
        (144, 227 << 10, "The fused kernels need layers of at most 128 numbers, got 144; draw it unfused."),
    ],
)
def test_networks_that_a_gpu_has_no_room_for_are_refused(
    n_hidden: int, n_bytes: int, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not load_native().has_cuda:
        pytest.skip("This build has no CUDA backend.")
    monkeypatch.setattr(native_fused, "_shared_bytes", lambda device: n_bytes)
    case = field(CPU, n_hidden=n_hidden)
    assert native_fused.why_not(case.layout, case.density, case.colour, 4, torch.device("cuda", 0)) == said


def test_what_does_not_fit_is_named() -> None:
    case = field(CPU)
    with pytest.raises(BackendError, match=r"^direction_degrees must be 1 to 4 to be drawn fused, got 5\.$"):
        PreparedField(case.layout, case.table, case.density, case.colour, direction_degrees=5)
    with pytest.raises(InputError, match=r"^colour_weights must end in 3 outputs, got 64\.$"):
        PreparedField(case.layout, case.table, case.density, case.colour[:-1], direction_degrees=4)
    with pytest.raises(InputError, match=r"^saliency and saliency_layout must be given together\.$"):
        PreparedField(
            case.layout,
            case.table,
            case.density,
            case.colour,
            direction_degrees=4,
            saliency=torch.zeros(8, 1),
        )
    fewer = PreparedField(case.layout, case.table[:-1], case.density, case.colour, direction_degrees=4)
    with pytest.raises(ValueError, match=r"^table must have shape \(\d+, 2\), got \(\d+, 2\)\.$"):
        native_fused.draw(fewer, case.cells, camera(8, 8), BACKGROUND, near=0.1)
    with pytest.raises(InputError, match=r"^picture must have been drawn on CUDA with stages=True\.$"):
        native_fused.stage_shares(case.draw(camera(8, 8)))
