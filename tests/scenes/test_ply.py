"""Points from PLY files: every encoding, colours in their spellings, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kinosplat.errors import InputError
from kinosplat.scenes.formats.ply import read_points
from scenes.builders import COLORS, POINTS, save_ply


@pytest.mark.parametrize("layout", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_every_encoding_gives_the_same_points(tmp_path: Path, layout: str) -> None:
    points = read_points(save_ply(tmp_path / "p.ply", layout=layout))
    np.testing.assert_array_equal(points.positions, POINTS)
    np.testing.assert_array_equal(points.colors, COLORS)


def test_float_colours_double_positions_and_other_properties_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.ply"
    path.write_text(
        "ply\nformat ascii 1.0\nelement vertex 2\nproperty double x\nproperty double y\nproperty double z\n"
        "property float nx\nproperty float red\nproperty float green\nproperty float blue\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
        "1 2 3 9 1.0 0.5 0\n4 5 6 9 0 0 0.2\n3 0 1 1\n"
    )
    points = read_points(path)
    np.testing.assert_array_equal(points.positions, [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(points.colors, [[255, 128, 0], [0, 0, 51]])


def test_points_without_colours_are_gray(tmp_path: Path) -> None:
    path = tmp_path / "p.ply"
    path.write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\n"
        "property float x\nproperty float y\nproperty float z\nend_header\n1 2 3\n"
    )
    np.testing.assert_array_equal(read_points(path).colors, [[128, 128, 128]])


def message(path: Path) -> str:
    """The message with which a file is refused, without its folder."""
    with pytest.raises(InputError) as error:
        read_points(path)
    return str(error.value).replace(f"{path.parent}/", "")


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    assert message(tmp_path / "none.ply") == (
        "none.ply cannot be read; put the points there, or remove the reference to them."
    )
    (tmp_path / "no.ply").write_text("hello")
    assert message(tmp_path / "no.ply") == "no.ply is not a PLY file; export the points again as PLY."
    assert message(save_ply(tmp_path / "empty.ply", n=0)) == (
        "empty.ply holds 0 points; remove it, and first points are found from the pictures."
    )
    for layout in ("ascii", "binary_little_endian"):
        path = save_ply(tmp_path / "short.ply", layout=layout)
        path.write_bytes(path.read_bytes()[:-8])
        assert message(path) == "short.ply ends before its 3 points; copy it again."
    (tmp_path / "flat.ply").write_text("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n")
    assert message(tmp_path / "flat.ply") == (
        "flat.ply has no vertices with x, y and z; export the points again as PLY."
    )
