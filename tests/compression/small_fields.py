"""A radiance field on a hash grid that takes no time, for the tests of this folder and its golden file."""

from __future__ import annotations

from dataclasses import replace

import torch

from kinosplat.compression.hollow import StoredField
from kinosplat.render.field.field import REMOVED, Field, FieldShape
from kinosplat.render.field.layout import GridLayout, Space, StepRule
from kinosplat.render.field.occupancy import OccupancyGrid
from kinosplat.render.field.sparse_table import BLOCK

CPU = torch.device("cpu")
LAYOUT = GridLayout(n_levels=4, finest_resolution=64, log2_table_size=12)


def small_field(*, hollow: bool) -> StoredField:
    """A field of random features, most of its table empty; a hollow one with more than half of its mask gone."""
    draws = torch.Generator().manual_seed(0)
    shape = FieldShape(layout=LAYOUT, space=Space((0.1, 0.0, 0.0), 2.0), n_hidden=16, hollow=hollow)
    field = Field.create(shape, "native", draws)
    table = torch.randn(LAYOUT.n_entries, 2, generator=draws) * (torch.rand(LAYOUT.n_entries, 1, generator=draws) < 0.2)
    table[3 * BLOCK : 5 * BLOCK] = 0.0
    table[5 * BLOCK : 6 * BLOCK] = 1.0
    field = replace(field, table=table)
    if hollow:
        gone = (torch.arange(64**3) % 64 < 40)[:, None]  # everything on one side
        field = replace(field, saliency=torch.where(gone, REMOVED, 2.0 * torch.randn(64**3, 1, generator=draws)))
    grid = OccupancyGrid(shape.space, StepRule(64), 16, CPU)
    grid.bits = torch.randint(0, 256, grid.bits.shape, generator=draws, dtype=torch.uint8)
    return StoredField(field, grid, near=0.3)
