"""What is asked of motion: neighbours move alike, and what may live longer does; the rest is left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kinosplat.trainers.gaussian_rows import GaussianRows
from kinosplat.trainers.methods.config import MotionConfig
from kinosplat.trainers.motion import motion_penalties
from kinosplat.trainers.optim import exponential_decay

from .toys import moving_blobs

CLIP = (0.0, 1.0)
TOGETHER = MotionConfig(coherence=1.0, neighbourhood=10.0, neighbourhood_time=10.0)
"""One neighbourhood for all, whatever the shift, but for a cell border now and then."""


def six(displacements: torch.Tensor, still: int | None = None) -> GaussianRows:
    """Six moving Gaussians close together in the middle of the clip; `still` is the number of one that is not."""
    gaussians = moving_blobs(duration=0.5)
    log_durations = torch.full((6,), 0.5).log()
    if still is not None:
        log_durations[still] = torch.inf
    gaussians = replace(
        gaussians,
        means=torch.full((6, 3), 0.01),
        time_centres=torch.full((6,), 0.5),
        displacements=displacements,
        log_durations=log_durations,
    )
    rates = {name: exponential_decay(0.0, 0.0) for name in gaussians.parameters()}
    return GaussianRows(gaussians, rates, radius=1.0)


def gradients(config: MotionConfig, rows: GaussianRows, visible: torch.Tensor, key: int = 1) -> dict[str, torch.Tensor]:
    terms = motion_penalties(config, rows, visible, [0.5], CLIP, key)
    sum(terms.values()).backward()
    return {name: group.parameter.grad for name, group in rows.groups.items() if group.parameter.grad is not None}


def test_one_that_moves_unlike_its_neighbours_is_pulled_back() -> None:
    displacements = torch.zeros(6, 3)
    displacements[2, 0] = 1.0
    found = gradients(TOGETHER, six(displacements), torch.ones(6, dtype=torch.bool))
    assert set(found) == {"displacements"}
    assert found["displacements"][2, 0] > 0.0
    assert (found["displacements"][[0, 1, 3, 4, 5], 0] < 0.0).all()


def test_neighbours_that_move_alike_are_left_alone() -> None:
    displacements = torch.tensor([0.3, -0.1, 0.2]).repeat(6, 1)
    rows = six(displacements)
    found = gradients(TOGETHER, rows, torch.ones(6, dtype=torch.bool))
    # Measured 2e-4: rounding of the mean, beside gradients of 1/6.
    assert found["displacements"].abs().max() < 5e-3


def test_whoever_is_far_away_in_space_or_time_is_no_neighbour() -> None:
    displacements = torch.zeros(6, 3)
    displacements[2, 0] = 1.0
    rows = six(displacements)
    with torch.no_grad():
        rows["means"][2] += 5.0
    near = replace(TOGETHER, neighbourhood=0.05)
    assert gradients(near, rows, torch.ones(6, dtype=torch.bool))["displacements"].abs().max() < 5e-3


@pytest.mark.parametrize("config", [TOGETHER, MotionConfig(lifetime=1.0)])
def test_what_stands_still_or_is_not_seen_is_not_touched(config: MotionConfig) -> None:
    displacements = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    displacements[1] = 0.0
    visible = torch.tensor([True, True, True, True, True, False])
    for gradient in gradients(config, six(displacements, still=1), visible).values():
        assert (gradient[[1, 5]] == 0.0).all()
        assert (gradient[[0, 2, 3, 4]] != 0.0).any(dim=-1).all() if gradient.ndim > 1 else (gradient[[0, 2]] != 0).all()


def test_lives_grow_but_not_beyond_the_clip() -> None:
    rows = six(torch.zeros(6, 3))
    with torch.no_grad():
        rows["log_durations"][0] = 0.1
    found = gradients(MotionConfig(lifetime=1.0), rows, torch.ones(6, dtype=torch.bool))
    assert found["log_durations"][0] == 0.0
    assert (found["log_durations"][1:] < 0.0).all()
