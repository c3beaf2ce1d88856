"""Hash-grid fields in a .kino file: entries that are left, quantised; where they are, as bitmaps or coordinates.

What cannot be reached through the mask is zero already (HollowNeRF), and what rounds to zero may as well be. Which
entries are left is stored as the renderer reads it (render/field/sparse_table.py), and a field that was loaded is drawn
without being unpacked. docs/format.md describes the tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinosplat.compression.kino import KinoFile, Limits
from kinosplat.compression.kino.tensors import StoredTensor, store_tensor
from kinosplat.errors import InputError
from kinosplat.render.camera import Camera
from kinosplat.render.field.field import REMOVED, SALIENCY, Field, FieldShape
from kinosplat.render.field.layout import GridLayout, Space, StepRule
from kinosplat.render.field.march import MarchBy
from kinosplat.render.field.occupancy import OccupancyGrid
from kinosplat.render.field.render import render_field
from kinosplat.render.field.sparse_table import SparseIndex, SparseTable, sparse_index, stored_index
from kinosplat.render.output import RenderOutput

KIND = "hash-grid"
MOST_BITS = 8
WEIGHT_BITS = 16
"""Weights of the networks are halves."""


@dataclass(frozen=True)
class StoredField:
    """A field as it is drawn."""

    field: Field
    """Parameters, without gradients."""
    grid: OccupancyGrid
    """Where it is marched through."""
    near: float
    """Nothing is seen nearer to a camera than this, scene units."""
    march_by: MarchBy = "rays"
    """How pictures find their samples."""

    def render(self, cameras: Sequence[Camera], background: Tensor, *, geometry: bool = False) -> RenderOutput:
        """Pictures of cameras of one size over `background` (3,)."""
        return render_field(
            self.field, self.grid, cameras, background, near=self.near, geometry=geometry, march_by=self.march_by
        )

    def rounded(self, bits: int) -> StoredField:
        """The same with the table as `bits` would store it."""
        field = self.field.whole()
        integers, steps = _table_integers(field, bits)
        return replace(self, field=replace(field, table=integers * _by_entry(steps, field.shape.layout)))

    def n_left(self, bits: int) -> int:
        """Entries of the table that are not zero once rounded."""
        return int((_table_integers(self.field.whole(), bits)[0] != 0).any(dim=1).sum())


def tensors_of(stored: StoredField, bits: int) -> dict[str, StoredTensor]:
    """Everything the file holds of a field whose table takes `bits` (2 to 8) a feature."""
    field = stored.field.whole()
    integers, steps = (tensor.cpu() for tensor in _table_integers(field, bits))
    left = (integers != 0).any(dim=1)
    values = (integers[left] + 2 ** (MOST_BITS - 1)).to(torch.uint8).numpy()
    tensors = _index_tensors("table", left)
    tensors |= {"table.values": StoredTensor(values), "table.steps": StoredTensor(steps.numpy())}
    for name, tensor in field.parameters().items():
        if name == "saliency":
            alive = (tensor[:, 0] > 0.5 * REMOVED).cpu()
            tensors |= _index_tensors("saliency", alive)
            tensors["saliency.values"] = store_tensor(tensor.cpu()[alive].numpy(), 8)
        elif name != "table":
            tensors[name] = store_tensor(tensor.cpu().float().numpy(), WEIGHT_BITS)
    tensors["occupancy"] = StoredTensor(stored.grid.bits.cpu().numpy())
    return tensors


def model_of(stored: StoredField) -> dict[str, Any]:
    """The `model` object of the header."""
    shape, rule = stored.field.shape, stored.grid.rule
    layout, space = shape.layout, shape.space
    document: dict[str, Any] = {
        "levels": layout.n_levels,
        "features": layout.n_features,
        "base_resolution": layout.base_resolution,
        "finest_resolution": layout.finest_resolution,
        "log2_table_size": layout.log2_table_size,
        "hidden": shape.n_hidden,
        "density_layers": shape.density_layers,
        "colour_layers": shape.colour_layers,
        "outputs": shape.n_outputs,
        "direction_degrees": shape.direction_degrees,
        "center": list(space.center),
        "half_extent": space.half_extent,
        "cascades": space.n_cascades,
        "contract": space.contract,
        "steps": rule.n_steps,
        "cone_angle": rule.cone_angle,
        "occupancy_resolution": stored.grid.resolution,
        "near": stored.near,
    }
    return document | ({"sharpness": stored.field.sharpness} if shape.hollow else {})


def load_field(file: KinoFile, name: str, device: torch.device, limits: Limits | None = None) -> StoredField:
    """The field of a file of kind `hash-grid`; InputError where something does not fit."""
    try:
        return _load(file.model, file.tensors, device, limits or Limits())
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} holds a field that cannot be used ({error}); copy or download it again.") from error


def _load(
    model: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], device: torch.device, limits: Limits
) -> StoredField:
    whole = {key: _whole(model, key) for key in _WHOLE}
    layout = GridLayout(
        n_levels=whole["levels"],
        n_features=whole["features"],
        base_resolution=whole["base_resolution"],
        finest_resolution=whole["finest_resolution"],
        log2_table_size=whole["log2_table_size"],
    )
    x, y, z = (float(value) for value in model["center"])
    space = Space((x, y, z), float(model["half_extent"]), whole["cascades"], bool(model["contract"]))
    rule = StepRule(whole["steps"], float(model["cone_angle"]))
    resolution = whole["occupancy_resolution"]
    if resolution % 8 or resolution > 1024:
        raise ValueError("occupancy_resolution must be a multiple of 8 and at most 1024")
    # Thickness, bits and learnable cells of the grid take six bytes a cell, the table four a feature.
    if 4 * layout.n_entries * layout.n_features + 6 * space.n_cascades * resolution**3 > limits.decoded_bytes:
        raise ValueError("it would take more memory than the limit")
    near, sharpness = float(model["near"]), float(model.get("sharpness", 1.0))
    if not (0.0 < near < math.inf and math.isfinite(sharpness)):
        raise ValueError("near must be a positive distance and sharpness finite")
    shape = FieldShape(
        layout=layout,
        space=space,
        n_hidden=whole["hidden"],
        density_layers=whole["density_layers"],
        colour_layers=whole["colour_layers"],
        n_outputs=whole["outputs"],
        direction_degrees=whole["direction_degrees"],
        hollow="saliency.counts" in tensors,
    )
    empty = Field.create(replace(shape, layout=replace(layout, n_levels=1, log2_table_size=4)), "native", _no_draws())
    table = _table_of(layout, tensors)
    found = {name: _parameter(name, tensors) for name in _names(shape)} | {"table": table.values}
    for name, parameter in empty.parameters().items():
        expected = tuple(table.values.shape) if name == "table" else tuple(parameter.shape)
        if name == "density.0":
            expected = (parameter.shape[0], layout.width)
        if tuple(found[name].shape) != expected:
            raise ValueError(f"`{name}` has another shape than the model says")
    field = replace(empty, shape=shape, sharpness=sharpness).with_parameters(found).mapped(lambda t: t.to(device))
    field = replace(field, index=table.index.to(device))
    grid = OccupancyGrid(space, rule, resolution, device)
    bits = torch.from_numpy(np.array(tensors["occupancy"], np.uint8)).to(device)
    if bits.shape != grid.bits.shape:
        raise ValueError("`occupancy` has another number of cells than the model says")
    grid.bits = bits
    return StoredField(field, grid, near)


_WHOLE = {
    "levels": 32,
    "features": 8,
    "base_resolution": 1 << 16,
    "finest_resolution": 1 << 20,
    "log2_table_size": 24,
    "hidden": 1024,
    "density_layers": 8,
    "colour_layers": 8,
    "outputs": 256,
    "direction_degrees": 8,
    "cascades": 16,
    "steps": 1 << 20,
    "occupancy_resolution": 1024,
}
"""Whole numbers of a model, and the largest that is believed."""


def _whole(model: Mapping[str, Any], key: str) -> int:
    value = model[key]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _WHOLE[key]:
        raise ValueError(f"`{key}` must be a whole number from 1 to {_WHOLE[key]}")
    return value


def _names(shape: FieldShape) -> list[str]:
    layers = [f"density.{i}" for i in range(shape.density_layers + 1)]
    layers += [f"colour.{i}" for i in range(shape.colour_layers + 1)]
    return [*layers, *(["saliency"] if shape.hollow else [])]


def _no_draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _parameter(name: str, tensors: Mapping[str, NDArray[Any]]) -> Tensor:
    if name != "saliency":
        return torch.from_numpy(np.array(tensors[name], np.float32))
    index = _index_of("saliency", tensors, SALIENCY.n_entries)
    logits = torch.full((SALIENCY.n_entries, 1), REMOVED)
    kept = index.kept()
    values = torch.from_numpy(np.array(tensors["saliency.values"], np.float32))
    if values.shape != (int(kept.sum()), 1):
        raise ValueError("`saliency.values` has another number of entries than its index")
    logits[kept] = values
    return logits


def _table_of(layout: GridLayout, tensors: Mapping[str, NDArray[Any]]) -> SparseTable:
    index = _index_of("table", tensors, layout.n_entries)
    n_before = index.n_before(torch.tensor(layout.offsets))
    values, steps = tensors["table.values"], torch.from_numpy(np.array(tensors["table.steps"], np.float32))
    if values.shape != (int(n_before[-1]), layout.n_features) or steps.shape != (layout.n_levels,):
        raise ValueError("`table.values` or `table.steps` has another shape than the model says")
    features = torch.from_numpy(np.array(values, np.float32)) - 2 ** (MOST_BITS - 1)
    return SparseTable(features * steps.repeat_interleave(n_before.diff())[:, None], index)


def _index_tensors(name: str, kept: Tensor) -> dict[str, StoredTensor]:
    index = sparse_index(kept)
    counts = index.counts.numpy().astype(np.uint16)
    return {f"{name}.counts": StoredTensor(counts), f"{name}.places": StoredTensor(index.places.numpy())}


def _index_of(name: str, tensors: Mapping[str, NDArray[Any]], n_entries: int) -> SparseIndex:
    counts, places = (tensors[f"{name}.{part}"] for part in ("counts", "places"))
    # Torch has few operations on uint16.
    whole = counts.astype(np.int64) if counts.dtype.kind in "ui" else counts
    return stored_index(torch.from_numpy(np.array(whole)), torch.from_numpy(np.array(places)), n_entries)


def _table_integers(field: Field, bits: int) -> tuple[Tensor, Tensor]:
    """Whole numbers (n_entries, F) as float32, at most 2^(bits - 1) - 1 in size, and the step (L,) of each level."""
    layout = field.shape.layout
    largest = 2 ** (bits - 1) - 1
    levels = [field.table[a:b] for a, b in zip(layout.offsets[:-1], layout.offsets[1:], strict=True)]
    steps = torch.stack([level.abs().amax().clamp_min(1e-12) / largest for level in levels])
    return (field.table / _by_entry(steps, layout)).round().clamp(-largest, largest), steps


def _by_entry(steps: Tensor, layout: GridLayout) -> Tensor:
    """(n_entries, 1) of one number (L,) a level."""
    return steps.repeat_interleave(torch.tensor(layout.sizes, device=steps.device))[:, None]
