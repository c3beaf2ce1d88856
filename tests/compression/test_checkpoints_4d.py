"""Checkpoints of the two published 4D parametrisations become the same moving Gaussians that their covariances
describe.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kinosplat.compression.formats.checkpoints_4d import ClipTime, read_4d_checkpoint
from kinosplat.errors import InputError
from kinosplat.render.four_d import covariance_4d_from_cut, rotation_4d_from_two_quaternions
from kinosplat.render.gaussians import Gaussians

N = 20


def numbers(*shape: int) -> Tensor:
    return torch.nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))))


def captured(rot_4d: bool, n_rest: int = 15) -> tuple[Any, ...]:
    """What `capture()` of 4d-gaussian-splatting returns, and the iteration."""
    optimizer = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    model = (3, numbers(N, 3), numbers(N, 1, 3), numbers(N, n_rest, 3), numbers(N, 3), numbers(N, 4), numbers(N, 1))
    model += (torch.zeros(N), torch.zeros(N, 1), torch.zeros(N, 1), torch.zeros(N, 1), optimizer, 1.0)
    model += (numbers(N, 1), numbers(N, 1), numbers(N, 4) + 0.1, rot_4d, torch.empty(0), 0)
    return model, 30_000


def covariance(gaussians: Gaussians) -> Tensor:
    assert gaussians.displacements is not None
    assert gaussians.log_durations is not None
    return covariance_4d_from_cut(
        gaussians.quats.double(),
        gaussians.log_scales.double(),
        gaussians.displacements.double(),
        gaussians.log_durations.double(),
    )


def test_two_quaternions_keep_their_covariance(tmp_path: Path) -> None:
    content = captured(rot_4d=True)
    path = tmp_path / "chkpnt30000.pth"
    torch.save(content, path)
    gaussians = read_4d_checkpoint(path, ClipTime(start=0.0))
    model = content[0]
    factor = (
        rotation_4d_from_two_quaternions(model[5].double(), model[15].double())
        * torch.cat([model[4], model[14]], dim=1).double().exp()[:, None, :]
    )
    assert torch.allclose(covariance(gaussians), factor @ factor.mT, rtol=1e-3, atol=1e-4)  # float32 cut: measured 2e-5
    assert torch.equal(gaussians.means, model[1].detach())
    assert gaussians.sh_degree == 3


def test_without_a_4d_rotation_nothing_moves_and_colour_in_time_is_averaged(tmp_path: Path) -> None:
    content = captured(rot_4d=False, n_rest=31)
    path = tmp_path / "chkpnt.pth"
    torch.save(content, path)
    gaussians = read_4d_checkpoint(path, ClipTime(seconds=2.0, start=0.0))
    assert gaussians.log_durations is not None
    assert gaussians.velocities.abs().max() == 0
    variance = gaussians.log_durations.exp() ** 2
    assert torch.allclose(variance, 4.0 * content[0][14].detach()[:, 0].exp(), rtol=1e-5)
    assert torch.equal(gaussians.sh_rest, content[0][3].detach()[:, :15])


def test_rotors_become_moving_gaussians(tmp_path: Path) -> None:
    rotors = torch.zeros(N, 8)
    rotors[:, 0] = 1.0
    names = {"xyz": (N, 3), "t": (N, 1), "scales_xyz": (N, 3), "scales_t": (N, 1), "opacities": (N, 1)}
    tensors = {name: numbers(*shape) for name, shape in names.items()}
    tensors |= {"quats1": rotors[:, :4], "quats2": rotors[:, 4:]}
    tensors |= {"features_dc": numbers(N, 1, 3), "features_rest": numbers(N, 3, 3)}
    path = tmp_path / "step-000029999.ckpt"
    torch.save({"step": 29_999, "pipeline": {f"_model.gauss_params.{name}": t for name, t in tensors.items()}}, path)
    gaussians = read_4d_checkpoint(path, ClipTime(start=0.0))
    # The unit rotor turns nothing: axes are those of the scales, in some order, and nothing moves.
    assert torch.allclose(
        gaussians.log_scales.sort(dim=1).values, tensors["scales_xyz"].detach().sort(dim=1).values, atol=1e-4
    )
    assert torch.allclose(gaussians.log_durations, tensors["scales_t"].detach()[:, 0], atol=1e-5)
    assert gaussians.displacements is not None
    assert gaussians.displacements.abs().max() < 1e-5


class Malicious:
    """What a file that runs something when it is opened would hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("opened",)


def test_files_that_would_run_something_or_hold_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "chkpnt.pth"
    path.write_bytes(pickle.dumps(Malicious(), protocol=2))
    with pytest.raises(InputError) as caught:
        read_4d_checkpoint(path, ClipTime(start=0.0))
    assert str(caught.value) == f"{path} is not a checkpoint that can be opened safely; save its tensors again."
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="is not a checkpoint of 4d-gaussian-splatting or 4D-Rotor-Gaussians"):
        read_4d_checkpoint(path, ClipTime(start=0.0))
