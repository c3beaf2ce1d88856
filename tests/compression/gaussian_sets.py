"""Small made-up sets for the tests of this folder; every number comes from the seed."""

from __future__ import annotations

from dataclasses import replace

import torch

from kinosplat.compression.canonical import canonical_axes
from kinosplat.render.gaussians import Gaussians


def random_gaussians(n: int, *, sh_degree: int = 1, moving: bool = True, n_still: int = 0, seed: int = 0) -> Gaussians:
    """`n` Gaussians in a 4-unit cloud over a clip of 2 seconds, the first `n_still` of a moving set still."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    still = torch.arange(n) < n_still
    time = {
        "displacements": torch.where(still[:, None], 0.0, 0.05 * normal(n, 3)),
        "time_centres": torch.where(still, 0.0, 2.0 * torch.rand(n, generator=g)),
        "log_durations": torch.where(still, torch.inf, -2.0 + 0.7 * normal(n)),
    }
    return canonical_axes(
        Gaussians(
            means=normal(n, 3),
            quats=normal(n, 4),
            log_scales=-3.5 + 0.6 * normal(n, 3),
            opacity_logits=1.5 * normal(n),
            sh_dc=0.5 * normal(n, 3),
            sh_rest=0.1 * normal(n, (sh_degree + 1) ** 2 - 1, 3),
            **(time if moving else {}),
        )
    )


def sorted_rows(gaussians: Gaussians) -> torch.Tensor:
    """All parameters side by side (N, P), quaternions of length 1, rows in lexicographic order, to compare sets whose
    order differs.
    """
    unit = replace(gaussians, quats=torch.nn.functional.normalize(gaussians.quats, dim=1))
    rows = torch.cat([tensor.reshape(len(gaussians), -1) for tensor in unit.parameters().values()], dim=1)
    return torch.tensor(sorted(rows.tolist()))
