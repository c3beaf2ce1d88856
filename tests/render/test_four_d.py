"""A 4D Gaussian keeps its meaning when it is cut: sliced at any time, it is the conditional of the 4x4 covariance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kinosplat.render.four_d import (
    covariance_4d_from_cut,
    cut_from_covariance_4d,
    from_rotors,
    from_two_quaternions,
    pure_rotor,
    rotation_4d_from_rotor,
    rotation_4d_from_two_quaternions,
)
from kinosplat.render.gaussians import Gaussians
from kinosplat.render.rotations import matrix_from_quaternion, quaternion_from_matrix

N = 200


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def conditional(covariances: Tensor, means: Tensor, time_centres: Tensor, time: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, covariance and factor in time by the textbook formulas, from the blocks of a 4x4 covariance."""
    block, column, variance = covariances[:, :3, :3], covariances[:, :3, 3:], covariances[:, 3, 3]
    offset = time - time_centres
    mean = means + column[:, :, 0] / variance[:, None] * offset[:, None]
    shape = block - column @ column.mT / variance[:, None, None]
    return mean, shape, torch.exp(-0.5 * offset**2 / variance)


def assert_is_the_conditional(gaussians: Gaussians, covariances: Tensor, tolerance: float) -> None:
    """Compare the slices of `gaussians` at three times with the conditionals of `covariances`."""
    assert gaussians.time_centres is not None
    for time in (-0.5, 0.3, 2.0):
        mean, shape, factor = conditional(covariances, gaussians.means, gaussians.time_centres, time)
        sliced = gaussians.at(time)
        root = matrix_from_quaternion(sliced.quats) * sliced.log_scales.exp()[:, None, :]
        fade = torch.sigmoid(sliced.opacity_logits) / torch.sigmoid(gaussians.opacity_logits)
        assert (sliced.means - mean).abs().max() < tolerance
        assert (root @ root.mT - shape).abs().max() < tolerance
        assert (fade - factor).abs().max() < tolerance


def random_covariances(dtype: torch.dtype) -> Tensor:
    root = normal(N, 4, 4, seed=1)
    return (root @ root.mT + 0.01 * torch.eye(4, dtype=torch.float64)).to(dtype)


def appearance(dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        "means": normal(N, 3, seed=2, dtype=dtype),
        "time_centres": normal(N, seed=3, dtype=dtype),
        "opacity_logits": normal(N, seed=4, dtype=dtype),
        "sh_dc": normal(N, 3, seed=5, dtype=dtype),
        "sh_rest": normal(N, 3, 3, seed=6, dtype=dtype),
    }


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_slicing_a_covariance_and_slicing_its_cut_agree(dtype: torch.dtype, tolerance: float) -> None:
    covariances = random_covariances(dtype)
    cut = cut_from_covariance_4d(covariances)
    gaussians = Gaussians(**appearance(dtype), **vars(cut))
    # Measured at most 7.2e-6 in float32 and 1.6e-14 in float64, of entries up to 21.
    assert_is_the_conditional(gaussians, covariances, tolerance)


def test_there_and_back_gives_the_covariance() -> None:
    covariances = random_covariances(torch.float64)
    again = covariance_4d_from_cut(**vars(cut_from_covariance_4d(covariances)))
    assert (again - covariances).abs().max() < 1e-12  # measured 1.6e-14


def test_a_covariance_with_nothing_between_space_and_time_stands_still() -> None:
    covariance = torch.diag(torch.tensor([4.0, 1.0, 9.0, 0.25], dtype=torch.float64))[None]
    cut = cut_from_covariance_4d(covariance)
    assert (cut.displacements == 0).all()
    assert cut.log_durations.item() == pytest.approx(math.log(0.5), abs=1e-12)
    assert sorted(cut.log_scales[0].exp().tolist()) == pytest.approx([1, 2, 3], abs=1e-12)


def test_a_flat_gaussian_stays_finite() -> None:
    direction = torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64)
    cut = cut_from_covariance_4d((direction[:, None] * direction)[None])
    assert all(tensor.isfinite().all() for tensor in vars(cut).values())


def test_covariances_that_no_cut_or_no_matrix_exists_for_are_refused() -> None:
    covariance = torch.eye(4)[None].clone()
    covariance[0, 3, 3] = 0
    with pytest.raises(ValueError, match=r"^covariances must have a positive variance in time, entry \[3, 3\]; drop"):
        cut_from_covariance_4d(covariance)
    still = torch.tensor([torch.inf])
    with pytest.raises(ValueError, match=r"^log_durations must be finite to have a 4D covariance; give still"):
        covariance_4d_from_cut(normal(1, 4), normal(1, 3), normal(1, 3), still)


def left_multiplication(q: Tensor) -> Tensor:
    """The matrix of x -> q x, column by column from the product of quaternions."""
    return torch.stack([quaternion_product(q, basis.expand_as(q)) for basis in torch.eye(4, dtype=q.dtype)], dim=-1)


def right_multiplication(q: Tensor) -> Tensor:
    return torch.stack([quaternion_product(basis.expand_as(q), q) for basis in torch.eye(4, dtype=q.dtype)], dim=-1)


def quaternion_product(a: Tensor, b: Tensor) -> Tensor:
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


class TestTwoQuaternions:
    """Yang et al. 2024: x -> left x conjugate(right) on (t, z, y, x), then the axes in reverse order."""

    left, right = normal(N, 4, seed=7), normal(N, 4, seed=8)
    log_scales = 0.5 * normal(N, 4, seed=9) - 1

    def rotation(self) -> Tensor:
        left, right = (q / q.norm(dim=1, keepdim=True) for q in (self.left, self.right))
        conjugate = right * torch.tensor([1.0, -1.0, -1.0, -1.0], dtype=torch.float64)
        reversal = torch.eye(4, dtype=torch.float64).flip(0)
        return reversal @ left_multiplication(left) @ right_multiplication(conjugate) @ reversal

    def test_their_matrices_are_products_of_quaternions(self) -> None:
        rotation = rotation_4d_from_two_quaternions(self.left, self.right)
        assert (rotation - self.rotation()).abs().max() < 1e-14  # measured 0
        assert (torch.linalg.det(rotation) - 1).abs().max() < 1e-13  # measured 1.1e-15

    def test_the_order_of_the_axes_is_theirs(self) -> None:
        """One example by hand: left (cos, sin, 0, 0) with right 1 turns t into z, by 30 degrees, and y into x."""
        angle = math.radians(30)
        left = torch.tensor([[math.cos(angle), math.sin(angle), 0, 0]], dtype=torch.float64)
        rotation = rotation_4d_from_two_quaternions(left, torch.tensor([[2.0, 0, 0, 0]], dtype=torch.float64))[0]
        time_axis = rotation @ torch.tensor([0.0, 0, 0, 1], dtype=torch.float64)
        y_axis = rotation @ torch.tensor([0.0, 1, 0, 0], dtype=torch.float64)
        assert time_axis.tolist() == pytest.approx([0, 0, math.sin(angle), math.cos(angle)], abs=1e-12)
        assert y_axis.tolist() == pytest.approx([math.sin(angle), math.cos(angle), 0, 0], abs=1e-12)

    def test_the_imported_gaussians_are_the_slices_of_their_covariance(self) -> None:
        gaussians = from_two_quaternions(
            **appearance(torch.float64), log_scales=self.log_scales, left=self.left, right=self.right
        )
        root = self.rotation() @ torch.diag_embed(self.log_scales.exp())
        assert_is_the_conditional(gaussians, root @ root.mT, 1e-12)  # measured 8.9e-16


def geometric_product(a: Tensor, b: Tensor) -> Tensor:
    """Product in the geometric algebra of R^4; (..., 16) coefficients, blade k is the product of its bits' axes."""
    out = torch.zeros_like(a)
    for i in range(16):
        for j in range(16):
            swaps = sum((i >> k & 1) * bin(j & ((1 << k) - 1)).count("1") for k in range(4))
            out[..., i ^ j] += (-1) ** swaps * a[..., i] * b[..., j]
    return out


class TestRotors:
    """Duan et al. 2024: rotors of the geometric algebra of (x, y, z, w), w is time."""

    BLADES = (0b0000, 0b0011, 0b0101, 0b0110, 0b1001, 0b1010, 0b1100, 0b1111)
    rotors = normal(N, 8, seed=10)
    log_scales = 0.5 * normal(N, 4, seed=11) - 1

    def rotation_by_sandwich(self, rotors: Tensor) -> Tensor:
        """Columns are r e_i reverse(r), the rotation that their build_rotation_from_rotor8 returns."""
        r = torch.zeros(len(rotors), 16, dtype=rotors.dtype)
        r[:, list(self.BLADES)] = rotors
        reverse = r.clone()
        reverse[:, list(self.BLADES[1:7])] *= -1
        columns = []
        for axis in range(4):
            e = torch.zeros_like(r)
            e[:, 1 << axis] = 1
            columns.append(geometric_product(geometric_product(r, e), reverse)[:, [1, 2, 4, 8]])
        return torch.stack(columns, dim=-1)

    def test_the_matrix_is_the_sandwich_with_the_rotor(self) -> None:
        rotors = pure_rotor(self.rotors)
        assert (rotation_4d_from_rotor(rotors) - self.rotation_by_sandwich(rotors)).abs().max() < 1e-14  # 3.3e-16

    def test_eight_numbers_are_no_rotation_until_they_are_made_pure(self) -> None:
        unit = self.rotors / self.rotors.norm(dim=1, keepdim=True)
        eye = torch.eye(4, dtype=torch.float64)
        raw, pure = rotation_4d_from_rotor(unit), rotation_4d_from_rotor(pure_rotor(self.rotors))
        assert (raw @ raw.mT - eye).abs().max() > 0.5
        assert (pure @ pure.mT - eye).abs().max() < 1e-13  # measured 1.2e-15
        assert (torch.linalg.det(pure) - 1).abs().max() < 1e-13  # measured 2.1e-15

    def test_making_pure_is_their_projection(self) -> None:
        """Add delta = (sqrt(l^4 - 4 eps^2) - l^2) / (2 eps) times the dual, as in their rotornorm, and normalise."""
        s, xy, xz, yz, xw, yw, zw, p = self.rotors.unbind(-1)
        eps = p * s - xy * zw + xz * yw - xw * yz
        square = self.rotors.square().sum(-1)
        delta = (torch.sqrt(square**2 - 4 * eps**2) - square) / (2 * eps)
        theirs = self.rotors + delta[:, None] * torch.stack([p, -zw, yw, -xw, -yz, xz, -xy, s], dim=-1)
        theirs = theirs / theirs.norm(dim=-1, keepdim=True)
        assert (pure_rotor(self.rotors) - theirs).abs().max() < 1e-10  # measured 1.4e-13

    def test_a_pure_rotor_stays_what_it_is(self) -> None:
        rotors = pure_rotor(self.rotors)
        assert (pure_rotor(3 * rotors) - rotors).abs().max() < 1e-14  # measured 3.3e-16

    def test_a_rotor_of_space_alone_is_their_quaternion(self) -> None:
        """rotor2quaterion of their code: w = s, x = -yz, y = xz, z = -xy."""
        rotors = torch.cat([self.rotors[:, :4], torch.zeros(N, 4, dtype=torch.float64)], dim=1)
        s, xy, xz, yz = rotors[:, :4].unbind(-1)
        expected = matrix_from_quaternion(torch.stack([s, -yz, xz, -xy], dim=-1))
        rotation = rotation_4d_from_rotor(pure_rotor(rotors))
        assert (rotation[:, :3, :3] - expected).abs().max() < 1e-14  # measured 8.9e-16

    def test_the_imported_gaussians_are_the_slices_of_their_covariance(self) -> None:
        gaussians = from_rotors(**appearance(torch.float64), log_scales=self.log_scales, rotors=self.rotors)
        root = self.rotation_by_sandwich(pure_rotor(self.rotors)) @ torch.diag_embed(self.log_scales.exp())
        assert_is_the_conditional(gaussians, root @ root.mT, 1e-12)  # measured 1.8e-15


def test_a_quaternion_survives_the_way_through_its_matrix() -> None:
    quats = torch.nn.functional.normalize(
        torch.cat([normal(N, 4, seed=12), torch.eye(4, dtype=torch.float64), 1e-9 + torch.eye(4, dtype=torch.float64)]),
        dim=1,
    )
    again = quaternion_from_matrix(matrix_from_quaternion(quats))
    sign = (again * quats).sum(dim=1, keepdim=True).sign()
    assert (again - sign * quats).abs().max() < 1e-14  # measured 4.4e-16
    assert (again[:, 0] >= 0).all()
