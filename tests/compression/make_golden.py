"""Writes the golden files of a .kino version beside this script, `python make_golden.py 2`; run it once for every new
version, never to mend a test.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from compression.gaussian_sets import random_gaussians
from compression.small_fields import small_field
from kinosplat.compression.hollow import KIND, model_of, tensors_of
from kinosplat.compression.kino import (
    CodebookCoding,
    FloatCoding,
    Metadata,
    MortonCoding,
    QuantisedCoding,
    RotationCoding,
    StoredAppearance,
    read_kino,
    write_kino,
)
from kinosplat.compression.kino.layout import NETWORKS_VERSION, VERSION
from kinosplat.compression.kino.tensors import StoredTensor, store_tensor
from kinosplat.compression.networks import AppearanceNetworks
from kinosplat.render.field.field import REMOVED

FOLDER = Path(__file__).parent / "golden"


def main(version: int) -> None:
    """Write the files of a version, and the sums that a reader must find in them."""
    {VERSION: write_plain, NETWORKS_VERSION: write_networks}[version]()
    sums = {path.name: sums_of(path) for path in sorted(FOLDER.glob(f"v{version}_*.kino"))}
    (FOLDER / f"v{version}.json").write_text(json.dumps(sums, indent=1) + "\n")


def write_networks() -> None:
    """Moving Gaussians whose opacity and colour come from networks."""
    gaussians = random_gaussians(80, sh_degree=1, n_still=20)
    networks = AppearanceNetworks.create(gaussians, seed=4)
    latents = torch.randn(80, 6, generator=torch.Generator().manual_seed(2))
    tensors = {
        name: store_tensor(tensor.numpy(), 32 if name.endswith("frame") else 8, one_range=True)
        for name, tensor in networks.tensors().items()
    }
    write_kino(
        FOLDER / f"v{NETWORKS_VERSION}_networks.kino",
        networks.dressed(gaussians, latents),
        {"means": MortonCoding(12), "latents": QuantisedCoding(5)},
        metadata=Metadata(duration=2.0, fps=30.0, near=0.2, antialiased=True),
        appearance=StoredAppearance(networks.spec, latents.numpy(), tensors),
        chunk_gaussians=(20, 50),
    )


def write_plain() -> None:
    """One file a kind of model and coding."""
    clip = Metadata(
        up=(0.0, 0.0, 1.0), duration=2.0, fps=30.0, background=(1.0, 1.0, 1.0), provenance={"scene": "golden"}
    )
    rng = np.random.default_rng(7)
    books = (rng.normal(size=(40, 5)).astype(np.float32), rng.normal(size=(300, 4)).astype(np.float32))
    indices = np.stack([rng.integers(0, 40, 200), rng.integers(0, 300, 200)], axis=1)
    write_kino(FOLDER / f"v{VERSION}_exact.kino", random_gaussians(40, sh_degree=1, n_still=10), metadata=clip)
    write_kino(
        FOLDER / f"v{VERSION}_moving.kino",
        random_gaussians(200, sh_degree=1, n_still=50),
        {
            "means": MortonCoding(14),
            "quats": RotationCoding(8),
            "log_scales": QuantisedCoding(7),
            "opacity_logits": QuantisedCoding(6),
            "sh_dc": FloatCoding(16),
            "sh_rest": CodebookCoding(books, indices, table_bits=8),
            "displacements": QuantisedCoding(9),
            "time_centres": QuantisedCoding(12),
            "log_durations": QuantisedCoding(7),
        },
        metadata=clip,
        chunk_gaussians=(30, 100),
    )
    write_kino(
        FOLDER / f"v{VERSION}_still.kino",
        random_gaussians(60, sh_degree=3, moving=False),
        {"means": MortonCoding(20), "sh_rest": QuantisedCoding(3), "log_scales": QuantisedCoding(4)},
    )
    tensors = {
        "table": store_tensor(rng.normal(size=(64, 2)).astype(np.float32), 8),
        "layer.weight": store_tensor(rng.normal(size=(8, 4)).astype(np.float32), 16),
        "cells": StoredTensor(np.arange(30, dtype=np.int32)),
    }
    write_kino(FOLDER / f"v{VERSION}_tensors.kino", None, tensors=tensors, kind="hash-grid")
    write_field()


def write_field() -> None:
    """A radiance field with a part of its mask gone."""
    stored = small_field(hollow=True)
    assert stored.field.saliency is not None
    smooth = torch.linspace(-2.0, 2.0, 64**3)[:, None]  # random numbers would take 100 KB
    mask = torch.where(stored.field.saliency == REMOVED, REMOVED, smooth)
    stored = replace(stored, field=replace(stored.field, saliency=mask))
    write_kino(
        FOLDER / f"v{VERSION}_field.kino",
        None,
        tensors=tensors_of(stored, 4),
        metadata=Metadata(up=(0.0, 0.0, 1.0), background=(1.0, 1.0, 1.0)),
        kind=KIND,
        model=model_of(stored),
    )


def sums_of(path: Path) -> dict[str, list[float]]:
    """For each parameter and tensor of a file: how many numbers, and their sum weighted by position."""
    file = read_kino(path)
    numbers = {
        **file.gaussians.parameters(),
        **{name: torch.from_numpy(np.array(t)) for name, t in file.tensors.items()},
    }
    return {name: weighted_sum(values) for name, values in numbers.items()}


def weighted_sum(values: torch.Tensor) -> list[float]:
    """Count, and sum of i-th finite value times (1 + i mod 17), in float64."""
    flat = values.reshape(-1).double()
    flat = flat.where(flat.isfinite(), torch.zeros(()).double())
    return [float(flat.numel()), float((flat * (1 + torch.arange(len(flat)) % 17)).sum())]


if __name__ == "__main__":
    main(int(sys.argv[1]))
