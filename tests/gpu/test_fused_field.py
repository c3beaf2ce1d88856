"""The fused kernels draw the picture that the reference defines, to the precision of 16-bit tables and networks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from render.fused_fields import BACKGROUND, camera, defined, field

from kinosplat.errors import BackendError, InputError
from kinosplat.render.field import native_fused
from kinosplat.render.field.native_fused import PreparedField

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gated": True},
        {"unbounded": True},
        {"n_features": 4},
        {"n_hidden": 128},
        {"n_hidden": 128, "gated": True},
        {"n_hidden": 128, "n_features": 4},
    ],
    ids=str,
)
def test_pictures_are_those_of_the_reference(cuda_device: torch.device, options: dict[str, int]) -> None:
    case, view = field(cuda_device, **options), camera(201, 150)
    picture = case.draw(view)
    rgb, alpha, depth, n_samples = defined(case, view)
    assert picture.rgb is not None
    psnr = -10 * torch.log10((picture.rgb - rgb).square().mean())
    assert psnr > 45  # the emulated kernels measure 85 to 97 on 96 x 72 pixels
    assert (picture.alpha - alpha).abs().mean() < 1e-3
    assert (picture.depth - depth).abs().mean() < 1e-2
    assert float((alpha > 0.5).float().mean()) > 0.2  # there is something to see
    # Rays may end a sample earlier or later than in float32.
    assert abs(int(picture.n_samples) - n_samples) < 0.01 * n_samples


@pytest.mark.parametrize("n_hidden", [64, 128])
@pytest.mark.parametrize("n_samples", [0, 1, 33, 100_000])
def test_samples_have_the_densities_and_colours_of_the_reference(
    n_samples: int, n_hidden: int, cuda_device: torch.device
) -> None:
    case = field(cuda_device, gated=True, n_hidden=n_hidden)
    positions = torch.rand(n_samples, 3, device=cuda_device) * 1.2 - 0.1  # some outside of the grid
    directions = torch.nn.functional.normalize(torch.randn(n_samples, 3, device=cuda_device), dim=1)
    density, rgb = native_fused.evaluate(case.prepared(), positions, directions)
    right_density, right_rgb = case.evaluated(positions, directions)
    torch.testing.assert_close(density, right_density, rtol=0.05, atol=1e-3)  # 16 bits in an exponent
    torch.testing.assert_close(rgb, right_rgb, rtol=0, atol=0.02)


def test_bytes_are_the_floats_rounded(cuda_device: torch.device) -> None:
    case, view = field(cuda_device), camera(97, 61)
    floats, rounded = case.draw(view).rgb, case.draw(view, as_bytes=True)
    assert floats is not None
    assert rounded.rgb is None
    assert rounded.as_bytes is not None
    expected = (floats.clamp(0, 1) * 255 + 0.5).to(torch.uint8)
    assert torch.equal(rounded.as_bytes, expected)


def test_empty_space_is_background_and_costs_no_samples(cuda_device: torch.device) -> None:
    case = field(cuda_device)
    case.bits.zero_()
    picture = case.draw(camera(64, 48))
    assert picture.rgb is not None
    torch.testing.assert_close(picture.rgb, torch.tensor(BACKGROUND, device=cuda_device).expand(48, 64, 3))
    assert picture.n_rays == picture.n_samples == 0
    assert not picture.alpha.any()


@pytest.mark.parametrize("n_hidden", [64, 128])
def test_the_shares_of_the_stages_sum_to_one_and_change_nothing(n_hidden: int, cuda_device: torch.device) -> None:
    case, view = field(cuda_device, n_hidden=n_hidden), camera(320, 240)
    plain, timed = case.draw(view), case.draw(view, stages=True)
    shares = native_fused.stage_shares(timed)
    assert set(shares) == {"march", "encode", "networks", "composite", "rays"}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert min(shares.values()) > 0
    assert plain.rgb is not None
    assert timed.rgb is not None
    assert torch.equal(plain.rgb, timed.rgb)
    with pytest.raises(InputError, match=r"^picture must have been drawn on CUDA with stages=True\.$"):
        native_fused.stage_shares(plain)


@pytest.mark.parametrize("n_hidden", [64, 128])
@pytest.mark.parametrize("n_features", [2, 4])
@pytest.mark.parametrize("share", [0.05, 0.6])
def test_a_sparse_table_is_drawn_like_the_whole_one(
    share: float, n_features: int, n_hidden: int, cuda_device: torch.device
) -> None:
    view = camera(160, 120).to(cuda_device)
    case = field(cuda_device, gated=True, n_features=n_features, n_hidden=n_hidden)
    keep = torch.rand(case.layout.n_entries, generator=torch.Generator().manual_seed(1)) < share
    keep = keep.to(cuda_device)
    zeroed = replace(case, table=case.table * keep[:, None])
    sparse, whole = replace(zeroed, keep=keep).draw(view), zeroed.draw(view)
    assert sparse.n_samples == whole.n_samples
    # The same rows of 16 bits in the same order.
    torch.testing.assert_close(sparse.rgb, whole.rgb, rtol=0, atol=1e-3)


def test_what_the_kernels_are_not_made_for_is_said(cuda_device: torch.device) -> None:
    case = field(cuda_device)
    on_cpu = [weight.cpu() for weight in case.density]
    wide = [torch.zeros(144, 32, device=cuda_device), torch.zeros(16, 144, device=cuda_device)]
    with pytest.raises(BackendError, match=r"layers of at most 128 numbers, got 144; draw it unfused\.$"):
        PreparedField(case.layout, case.table, wide, case.colour, direction_degrees=4)
    with pytest.raises(InputError, match=r"^density_weights\[0\] must be on cuda:\d+, got cpu; move it there first\.$"):
        PreparedField(case.layout, case.table, on_cpu, case.colour, direction_degrees=4)
