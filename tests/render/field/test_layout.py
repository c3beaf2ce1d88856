"""The layout of a hash grid is that of instant-ngp, and numbers that make no sense are refused by name."""

from __future__ import annotations

import math

import pytest

from kinosplat.render.field.layout import GridLayout, Space, StepRule


class TestGridLayout:
    def test_the_default_is_that_of_instant_ngp(self) -> None:
        layout = GridLayout()
        assert layout.width == 32
        assert layout.resolutions[0] == 16
        assert layout.resolutions[-1] == 2048
        growth = math.exp(math.log(2048 / 16) / 15)
        assert layout.resolutions[7] == math.floor(16 * growth**7)

    def test_levels_are_dense_as_long_as_their_vertices_fit(self) -> None:
        layout = GridLayout(n_levels=3, base_resolution=4, finest_resolution=16, log2_table_size=9)
        assert layout.resolutions == (4, 8, 16)
        assert layout.sizes == (125, 512, 512)
        assert layout.hashed == (False, True, True)
        assert layout.offsets == (0, 125, 637, 1149)
        assert layout.n_entries == 1149

    @pytest.mark.parametrize("n_levels", range(2, 25))
    def test_rounding_never_costs_the_finest_level_a_cell(self, n_levels: int) -> None:
        assert GridLayout(n_levels=n_levels, finest_resolution=2048).resolutions[-1] == 2048

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"n_levels": 0}, "n_levels must be 1 to 32, got 0."),
            ({"n_features": 3}, "n_features must be 1, 2, 4 or 8, got 3."),
            ({"base_resolution": 4096}, "base_resolution must be 1 to finest_resolution 2048, got 4096."),
            ({"log2_table_size": 30}, "log2_table_size must be 4 to 24, got 30."),
        ],
    )
    def test_numbers_out_of_range_are_named(self, options: dict[str, int], message: str) -> None:
        with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
            GridLayout(**options)
        assert str(error.value) == message


class TestSpace:
    def test_only_a_contracted_space_has_cascades(self) -> None:
        assert Space(n_cascades=5, contract=True).reach == 16.0
        with pytest.raises(ValueError, match=r"a space without contraction has 1 cascade, got n_cascades 2\."):
            Space(n_cascades=2)

    def test_its_size_is_positive(self) -> None:
        with pytest.raises(ValueError, match=r"half_extent must be positive and finite, got 0\.0\."):
            Space(half_extent=0.0)


class TestStepRule:
    def test_the_diagonal_of_the_inner_cube_takes_n_steps(self) -> None:
        shortest, longest = StepRule(n_steps=1024).limits(Space(half_extent=3.0))
        assert shortest * 1024 == pytest.approx(2 * math.sqrt(3) * 3.0)
        assert longest == pytest.approx(3.0 * 2 / 128)

    def test_the_longest_step_is_a_cell_of_the_outermost_cascade(self) -> None:
        _, longest = StepRule(cone_angle=1 / 256).limits(Space(n_cascades=4, contract=True), 64)
        assert longest == pytest.approx(16 / 64)
