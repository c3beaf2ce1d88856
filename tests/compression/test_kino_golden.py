"""Files of every version that was ever written are read to the same numbers, by our reader and by the one in
docs/format.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compression.make_golden import FOLDER, sums_of, weighted_sum
from kinosplat.compression.hollow import load_field
from kinosplat.compression.kino import read_kino
from kinosplat.compression.kino.networks import MADE_HERE
from kinosplat.compression.mesh.field_density import FieldDensity

GOLDEN = sorted(FOLDER.glob("*.kino"))
FORMAT_PAGE = Path(__file__).parents[2] / "docs" / "format.md"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_files_read_to_the_recorded_numbers(path: Path) -> None:
    recorded = json.loads((FOLDER / f"{path.stem.split('_')[0]}.json").read_text())[path.name]
    found = sums_of(path)
    assert found.keys() == recorded.keys()
    for name, (count, total) in recorded.items():
        assert found[name][0] == count
        # Float64 sums of identical float32 numbers; those that networks make may differ in their last bits.
        made = "networks" in path.stem and name in MADE_HERE
        assert found[name][1] == pytest.approx(total, rel=1e-12, abs=1e-2 if made else 1e-9)


def test_the_golden_field_is_as_dense_as_it_was() -> None:
    stored = load_field(read_kino(FOLDER / "v1_field.kino"), "v1_field.kino", torch.device("cpu"))
    points = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0)) * 4 - 2
    density = FieldDensity(stored.field, stored.grid).density_at(points)
    assert float((density > 0).float().mean()) == pytest.approx(0.188, abs=0.002)
    assert float(density.mean()) == pytest.approx(0.00897873, rel=1e-3)  # halves and sums of 64 products in any order


def test_there_are_golden_files() -> None:
    assert len(GOLDEN) >= 6


@pytest.mark.parametrize(
    "path", [p for p in GOLDEN if p.stem not in ("v1_tensors", "v1_field")], ids=lambda path: path.stem
)
def test_the_reader_of_the_format_page_agrees_to_the_bit(path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", FORMAT_PAGE.read_text(), flags=re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(max(code, key=len), str(FORMAT_PAGE), "exec"), namespace)
    _, attributes = namespace["read_kino"](str(path))
    ours = read_kino(path).gaussians.parameters()
    assert set(attributes) == set(ours)
    for name, values in attributes.items():
        expected = ours[name].reshape(len(values), -1).numpy()
        found = np.asarray(values, np.float32).reshape(expected.shape)
        if "networks" in path.stem and name in MADE_HERE:
            # Sums in another order: measured 1e-6.
            assert np.abs(found - expected).max() < 1e-4, name
        else:
            assert np.array_equal(found, expected), name


def test_the_sums_tell_numbers_apart() -> None:
    assert weighted_sum(torch.tensor([1.0, 2.0])) != weighted_sum(torch.tensor([2.0, 1.0]))
