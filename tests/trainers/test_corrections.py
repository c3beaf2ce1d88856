"""Exposure and poses: known errors are found, and the scene as a whole does not drift."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kinosplat.render import Camera, rasterize
from kinosplat.render.exposure import Sensor, expose
from kinosplat.render.losses import photometric_loss
from kinosplat.scenes import Scene
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.config import CorrectionConfig
from kinosplat.trainers.exposure import Exposure
from kinosplat.trainers.methods.config import FourDGS, ThreeDGS
from kinosplat.trainers.optim import Optimizer
from kinosplat.trainers.poses import Poses, adjoint, se3_exp
from kinosplat.trainers.run import train
from kinosplat.trainers.training import settle

from .toys import Toy, ring, tiny_config, write_toy


def test_exposure_recovers_known_affine_maps_up_to_their_mean() -> None:
    draws = torch.Generator().manual_seed(0)
    truth = torch.eye(3, 4) + 0.1 * torch.randn(4, 3, 4, generator=draws)
    truth = truth - truth.mean(dim=0) + torch.eye(3, 4)
    colors = torch.rand(4, 10, 20, 3, generator=draws)
    seen = expose(colors, Sensor(truth))
    exposure = Exposure([0, 1, 2, 3], 4, lr=0.02, device=torch.device("cpu"))
    optimizer = Optimizer([exposure.group])
    for step in range(300):
        (expose(colors, Sensor(exposure.of([0, 1, 2, 3]))) - seen).square().mean().backward()
        exposure.collect()
        optimizer.step(Moment(step, step / 300, (step + 1) / 300), {})
    # Measured 0.0023, of corrections up to 0.24.
    assert (exposure.of([0, 1, 2, 3]) - truth).abs().max() < 0.006


def test_the_mean_exposure_is_the_identity_whatever_was_learned() -> None:
    exposure = Exposure([0, 2], 3, lr=0.1, device=torch.device("cpu"))
    with torch.no_grad():
        exposure.group.parameter += torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(0))
    corrections = exposure.of([0, 1, 2])
    assert corrections[[0, 2]].mean(dim=0).allclose(torch.eye(3, 4), atol=1e-6)
    assert corrections[1].equal(torch.eye(3, 4))


@pytest.mark.parametrize("cameras", [[2], [0, 2], [2, 2]])
def test_gradients_of_corrections_are_those_of_the_parameters(cameras: list[int]) -> None:
    exposure = Exposure([0, 2, 3], 4, lr=0.1, device=torch.device("cpu"))
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        exposure.group.parameter += torch.randn(4, 3, 4, generator=draws)
    parameters = exposure.group.parameter.detach().clone().requires_grad_()
    learned = torch.tensor([0, 2, 3])
    expected = torch.eye(3, 4) + parameters[cameras] - parameters[learned].mean(dim=0)
    corrections = exposure.of(cameras)
    # float32; measured 1.2e-7.
    torch.testing.assert_close(corrections, expected, rtol=0, atol=1e-6)
    gradient = torch.randn(len(cameras), 3, 4, generator=draws)
    corrections.backward(gradient)
    expected.backward(gradient)
    exposure.collect()
    torch.testing.assert_close(exposure.group.parameter.grad, parameters.grad, rtol=0, atol=1e-6)


def test_corrections_that_nobody_learns_from_leave_nothing_behind() -> None:
    exposure = Exposure([0, 1], 2, lr=0.1, device=torch.device("cpu"))
    with torch.no_grad():
        assert not exposure.of([0]).requires_grad
    exposure.collect()
    assert exposure.group.parameter.grad is None


def test_learning_exposure_helps_when_cameras_differ(tmp_path: Path) -> None:
    draws = torch.Generator().manual_seed(0)
    gains = 1.0 + 0.25 * (torch.rand(6, generator=draws) - 0.5)
    exposures = torch.eye(3, 4).repeat(6, 1, 1) * (gains / gains.mean())[:, None, None]
    toy = write_toy(tmp_path / "scene", n_train=6, n_test=2, exposures=exposures)
    plain = train(tiny_config(ThreeDGS(), toy, steps=120), toy.scene(), tmp_path / "plain")
    corrections = CorrectionConfig(exposure=True, exposure_lr=2e-2)
    config = replace(tiny_config(ThreeDGS(), toy, steps=120), corrections=corrections)
    corrected = train(config, toy.scene(), tmp_path / "corrected")
    assert plain.psnr is not None
    assert corrected.psnr is not None
    # Measured 30.6 against 29.9 dB.
    assert corrected.psnr > plain.psnr + 0.3


def test_exposure_is_learned_by_default_where_cameras_are_known_to_differ(tmp_path: Path) -> None:
    toy = write_toy(tmp_path, n_train=2, n_test=1)
    matched, config = toy.scene(), tiny_config(ThreeDGS(), toy, steps=1)
    unmatched = replace(matched, colors_differ=True)
    assert [settle(config, scene).corrections.exposure for scene in (matched, unmatched)] == [False, True]
    assert [settle(config, scene).image.saturation for scene in (matched, unmatched)] == [False, True]
    refused = replace(config, corrections=CorrectionConfig(exposure=False))
    assert settle(refused, unmatched).corrections.exposure is False


def test_twists_become_rigid_motions_and_change_frames() -> None:
    draws = torch.Generator().manual_seed(0)
    xi, frame = (0.5 * torch.randn(2, 6, generator=draws, dtype=torch.float64)).unbind(0)
    motion, change = se3_exp(xi), se3_exp(frame)
    assert (motion[:3, :3] @ motion[:3, :3].T).allclose(torch.eye(3, dtype=torch.float64))
    assert se3_exp(adjoint(change) @ xi).allclose(change @ motion @ torch.linalg.inv(change))
    assert se3_exp(torch.zeros(6)).equal(torch.eye(4))


def test_a_motion_of_all_cameras_together_is_no_correction() -> None:
    poses = {i: camera.world_to_camera.double() for i, camera in enumerate(ring(5))}
    refined = Poses(poses, 5, radius=2.0, lr=1e-3)
    world = torch.tensor([0.01, -0.02, 0.03, 0.02, 0.01, -0.03], dtype=torch.float64)
    unit = torch.tensor([1.0, 1, 1, 2, 2, 2], dtype=torch.float64)
    with torch.no_grad():
        refined.group.parameter = torch.stack([adjoint(pose) @ world / unit for pose in poses.values()])
    assert refined.corrections().allclose(torch.eye(4, dtype=torch.float64).expand(5, 4, 4), atol=1e-9)


def pixels(K: torch.Tensor, world_to_camera: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(N, 2) where `points` (N, 3) are seen."""
    seen = (points @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]) @ K.T
    return seen[:, :2] / seen[:, 2:]


def turned(scene: Scene, angles: torch.Tensor) -> Scene:
    """The scene with training cameras turned about their own axes by `angles` (n, 3) radians."""
    views = []
    for view, angle in zip(scene.train, angles, strict=True):
        pose = se3_exp(torch.cat([angle, torch.zeros(3)])) @ view.camera.world_to_camera
        views.append(replace(view, camera=replace(view.camera, world_to_camera=pose)))
    return replace(scene, train=tuple(views))


def test_pose_refinement_finds_the_cameras_of_a_known_scene(still_toy: Toy) -> None:
    cameras = ring(6)
    given = {i: camera.world_to_camera for i, camera in enumerate(cameras)}
    wrong = Poses(given, 6, radius=4.0, lr=1e-3)
    with torch.no_grad():
        wrong.group.parameter += 0.015 * torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    indices = list(range(6))
    start = [replace(c, world_to_camera=c.world_to_camera.detach()) for c in wrong.corrected(cameras, indices)]
    with torch.no_grad():
        target = rasterize(still_toy.truth, cameras).rgb
    poses = Poses({i: camera.world_to_camera for i, camera in enumerate(start)}, 6, radius=4.0, lr=3e-3)
    optimizer = Optimizer([poses.group])
    for step in range(150):
        rendered = rasterize(still_toy.truth, poses.corrected(start, indices)).rgb
        photometric_loss(rendered, target).backward()
        optimizer.step(Moment(step, step / 150, (step + 1) / 150), {})

    def error(guess: list[Camera]) -> float:
        seen = [pixels(c.K, c.world_to_camera.detach(), still_toy.truth.means) for c in guess]
        true = [pixels(c.K, c.world_to_camera, still_toy.truth.means) for c in cameras]
        return (torch.stack(seen) - torch.stack(true)).norm(dim=-1).mean().item()

    # Measured: 1.50 pixels before, 0.036 after.
    assert error(start) > 1.0
    assert error(poses.corrected(start, indices)) < 0.1


def test_refining_wrong_poses_while_training_helps_held_out_views(still_toy: Toy, tmp_path: Path) -> None:
    angles = 0.02 * torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    scene = turned(still_toy.scene(), angles)
    config = tiny_config(ThreeDGS(), still_toy, steps=120)
    plain = train(config, scene, tmp_path / "plain")
    refining = replace(config, corrections=CorrectionConfig(refine_poses=True, pose_lr=2e-3))
    refined = train(refining, scene, tmp_path / "refined")
    assert plain.psnr is not None
    assert refined.psnr is not None
    # Measured 27.9 against 24.9 dB.
    assert refined.psnr > plain.psnr + 1.5


def test_corrections_work_on_moving_scenes(moving_toy: Toy, tmp_path: Path) -> None:
    config = replace(
        tiny_config(FourDGS(), moving_toy, steps=4), corrections=CorrectionConfig(exposure=True, refine_poses=True)
    )
    assert train(config, moving_toy.scene(), tmp_path / "run").steps == 4
