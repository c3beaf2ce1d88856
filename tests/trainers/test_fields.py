"""Radiance fields learn in the same loop as Gaussians: from rays, resumable, hollow where nothing is."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from render.field.test_tcnn import stand_in  # noqa: F401

from kinosplat.errors import InputError
from kinosplat.scenes import PointCloud
from kinosplat.trainers import training as training_module
from kinosplat.trainers.checkpoint import checkpoint_path, load_checkpoint
from kinosplat.trainers.clock import Moment
from kinosplat.trainers.config import CorrectionConfig, ImageConfig, ScheduleConfig, TrainConfig
from kinosplat.trainers.feed import RayFeed, make_feed
from kinosplat.trainers.loop import train_step
from kinosplat.trainers.methods import field_space, presets
from kinosplat.trainers.methods.config import ThreeDGS
from kinosplat.trainers.methods.field_config import FieldConfig, FieldTraining, HashGrid, HollowConfig, HollowNerf
from kinosplat.trainers.methods.field_space import space_of, touches_border
from kinosplat.trainers.methods.hash_grid import FieldMethod
from kinosplat.trainers.methods.presets import resolve
from kinosplat.trainers.pixel_pool import CHANNELS, PixelPool
from kinosplat.trainers.run import load_run, no_points, resume, train
from kinosplat.trainers.training import Training, settle, start

from .test_resume import StopAt, curve
from .toys import Toy, ring, tiny_config, write_toy

GRID = FieldConfig(
    levels=6,
    features=2,
    finest_resolution=64,
    log2_table_size=12,
    occupancy_resolution=16,
    ray_steps=64,
    hidden=16,
)
LEFT_OPEN = FieldConfig()
TRAINING = FieldTraining(samples=1 << 12, occupancy_every=4, occupancy_warm_up=32)
HOLLOW = HollowConfig(mask_target=0.1, mask_lr=0.2)


def field_config(toy: Toy, *, steps: int, hollow: bool = False, grid: FieldConfig = GRID) -> TrainConfig:
    method = HollowNerf(grid=grid, training=TRAINING, hollow=HOLLOW) if hollow else HashGrid(grid, TRAINING)
    return replace(tiny_config(ThreeDGS(), toy, steps=steps), method=method)


def refusal(config: TrainConfig) -> str:
    """The sentence with which a config is refused."""
    with pytest.raises(InputError) as error:
        resolve(config)
    return str(error.value)


def training_of(config: TrainConfig, toy: Toy, run_dir: Path) -> Training:
    config = settle(resolve(config), toy.scene())
    return start(config, toy.scene(), no_points(), "none needed", run_dir, 0.0)


@pytest.fixture(scope="module")
def object_toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Blobs on a transparent background."""
    return write_toy(tmp_path_factory.mktemp("object") / "toy", n_train=12, with_alpha=True)


@pytest.mark.slow
def test_a_field_learns_an_object_and_leaves_the_space_around_it_empty(object_toy: Toy, tmp_path: Path) -> None:
    report = train(field_config(object_toy, steps=300), object_toy.scene(), tmp_path)
    assert report.psnr is not None
    # Measured: 24.6 dB; a picture of the background alone has 11.
    assert report.psnr > 21.0
    assert report.first_points == "none needed"
    assert report.facts["occupied_cells"] < 0.4
    run = load_run(tmp_path, device="cpu")
    camera = object_toy.scene().test[0].camera
    seen = run.method.render([camera], run.background, geometry=True)
    assert seen.depth is not None
    assert seen.median_depth is not None
    assert seen.normal is not None
    solid = seen.alpha > 0.9
    assert solid.float().mean() > 0.05
    # The blobs fill a ball of radius 1 and are seen from a distance of 4, in units of the input; measured: 3.2 to 4.1.
    depth = seen.depth[solid] * object_toy.scene().to_input.scale
    assert ((depth > 2.5) & (depth < 5.5)).all()
    assert (seen.median_depth[solid] - seen.depth[solid]).abs().median() < 0.3
    towards = (seen.normal[solid] @ camera.forward).mean()
    assert towards < -0.2


def test_first_points_tell_an_unbounded_field_where_surfaces_are(still_toy: Toy, tmp_path: Path) -> None:
    scene = still_toy.scene()
    report = train(field_config(still_toy, steps=4), scene, tmp_path)
    assert report.first_points == "40 points that came with the scene"
    told = ["loss/depth" in line for line in curve(tmp_path) if line["kind"] == "train"]
    assert told == [True, True, False, False]
    without = replace(GRID, n_first_points=0)
    report = train(field_config(still_toy, steps=3, grid=without), scene, tmp_path / "without")
    assert report.first_points == "none needed"
    assert not any("loss/depth" in line for line in curve(tmp_path / "without"))


@pytest.mark.parametrize("hollow", [False, True], ids=["hashgrid", "hollownerf"])
@pytest.mark.parametrize("by_hand", [False, True])
def test_an_interrupted_field_resumes_bitwise(hollow: bool, by_hand: bool, still_toy: Toy, tmp_path: Path) -> None:
    config = field_config(still_toy, steps=16, hollow=hollow)
    if not by_hand:
        config = replace(
            config,
            corrections=CorrectionConfig(exposure=True, refine_poses=True),
            image=ImageConfig(background="learned"),
        )
    train(config, still_toy.scene(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, still_toy.scene(), tmp_path / "parts", StopAt(7))
    resume(tmp_path / "parts")
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    whole = load_checkpoint(checkpoint_path(tmp_path / "whole")).tensors
    parts = load_checkpoint(checkpoint_path(tmp_path / "parts")).tensors
    assert whole.keys() == parts.keys()
    assert all(whole[name].equal(parts[name]) for name in whole)


@pytest.mark.slow
def test_hardening_the_mask_keeps_the_picture_and_frees_what_nothing_is_in(object_toy: Toy, tmp_path: Path) -> None:
    report = train(field_config(object_toy, steps=400, hollow=True), object_toy.scene(), tmp_path)
    facts = report.facts
    # Measured: 29.86 dB before and after, 85% of the mask is left.
    assert facts["psnr_before_hardening"] > 25.0
    assert facts["psnr_after_hardening"] > facts["psnr_before_hardening"] - 0.2
    assert report.psnr == pytest.approx(facts["psnr_after_hardening"])
    assert 0.01 < facts["mask_density"] < 0.95
    # The mask counts before as after.
    mask = 64**3
    assert facts["parameters"] > mask
    assert facts["parameters"] - facts["parameters_after"] >= mask - facts["mask_values"] > 0
    assert report.bytes == 4 * facts["parameters_after"]
    method = load_run(tmp_path, device="cpu").method
    assert isinstance(method, FieldMethod)
    assert facts["occupied_cells"] == method.grid.occupied().float().mean().item()
    again = resume(tmp_path)
    assert (again.psnr, again.n_primitives) == (report.psnr, report.n_primitives)
    assert load_run(tmp_path, device="cpu").method.n_primitives == report.n_primitives


def test_a_mask_is_hardened_in_the_checkpoint_without_held_out_views_too(object_toy: Toy, tmp_path: Path) -> None:
    scene = replace(object_toy.scene(), test=())
    report = train(field_config(object_toy, steps=40, hollow=True), scene, tmp_path)
    assert report.psnr is None
    method = load_run(tmp_path, device="cpu").method
    assert isinstance(method, FieldMethod)
    assert method.hollow is not None
    assert method.hollow.is_hard
    assert 4 * report.facts["parameters_after"] == report.bytes == method.n_bytes


def test_entries_that_no_sample_reaches_do_not_move(object_toy: Toy, tmp_path: Path) -> None:
    training = training_of(field_config(object_toy, steps=10), object_toy, tmp_path)
    method = training.method
    assert isinstance(method, FieldMethod)
    with RayFeed(training, method) as feed:
        before = method.field().table.clone()
        feed.losses(Moment(0, 0.5, 0.6)).backward()
        gradient = method.live_field().table.grad
        assert gradient is not None
        reached = (gradient != 0).any(dim=1)
        training.optimizer.step(Moment(0, 0.5, 0.6), method.touched())
    moved = (method.field().table != before).any(dim=1)
    assert 0 < reached.float().mean() < 0.9
    assert torch.equal(moved, reached)


def test_the_number_of_rays_follows_the_number_of_samples(object_toy: Toy, tmp_path: Path) -> None:
    training = training_of(field_config(object_toy, steps=60), object_toy, tmp_path)
    method = training.method
    assert isinstance(method, FieldMethod)
    first = method.n_rays
    with RayFeed(training, method) as feed:
        for _ in range(40):
            train_step(training, feed)
        assert method.n_rays > 2 * first
        # Measured: 0.98 of what was asked for.
        assert method.n_samples == pytest.approx(TRAINING.samples, rel=0.3)


def test_pixels_outside_masks_do_not_count(tmp_path: Path) -> None:
    mask = torch.zeros(36, 48, dtype=torch.bool)
    mask[10:20, 10:30] = True
    toy = write_toy(tmp_path / "toy", mask=mask)
    training = training_of(field_config(toy, steps=4), toy, tmp_path / "run")
    pool = PixelPool(training.scene.train, 0, "ignore-outside", training.device)
    drawn = pool.draw(0, 2000)
    pool.close()
    assert drawn.weight is not None
    x, y = drawn.places.long().unbind(1)
    assert torch.equal(drawn.weight > 0.5, mask[y, x])


class TestPixelPool:
    def test_a_step_draws_the_same_pixels_whenever_it_comes(self, object_toy: Toy) -> None:
        views = object_toy.scene().train
        one_picture = CHANNELS * 36 * 48
        for max_bytes in (one_picture * 5, None):
            running = PixelPool(views, 3, "ignore-outside", torch.device("cpu"), max_bytes=max_bytes)
            for step in range(50):
                drawn = running.draw(step, 64)
            fresh = PixelPool(views, 3, "ignore-outside", torch.device("cpu"), max_bytes=max_bytes)
            again = fresh.draw(49, 64)
            running.close()
            fresh.close()
            assert torch.equal(drawn.views, again.views)
            assert torch.equal(drawn.target, again.target)

    def test_pixels_are_those_of_the_pictures(self, object_toy: Toy) -> None:
        views = object_toy.scene().train
        pool = PixelPool(views, 0, "ignore-outside", torch.device("cpu"))
        drawn = pool.draw(0, 500, background=torch.zeros(3))
        pool.close()
        pictures = [torch.from_numpy(view.image.load()) for view in views]
        x, y = drawn.places.long().unbind(1)
        truth = torch.stack([pictures[v][j, i] for v, i, j in zip(drawn.views.tolist(), x, y, strict=True)]) / 255
        alpha = truth[:, 3:]
        # Behind what has alpha are random colours, whatever was asked for; measured 6e-8.
        assert drawn.background.std() > 0.2
        expected = truth[:, :3] * alpha + drawn.background * (1 - alpha)
        torch.testing.assert_close(drawn.target, expected, rtol=0, atol=3e-7)

    def test_a_window_over_the_views_comes_by_all_of_them(self, object_toy: Toy) -> None:
        views = object_toy.scene().train
        pool = PixelPool(views, 0, "ignore-outside", torch.device("cpu"), max_bytes=CHANNELS * 36 * 48 * 4)
        seen = {view for step in range(0, 200, 8) for view in pool.draw(step, 64).views.tolist()}
        pool.close()
        assert seen == set(range(len(views)))


class TestSpace:
    def test_an_object_is_covered_as_far_as_the_cameras_see(self, object_toy: Toy) -> None:
        config = field_config(object_toy, steps=1)
        scene = object_toy.scene()
        assert config.method.grid.bounds == "auto"
        settled = settle(resolve(config), scene).method.grid
        assert settled.bounds == "object"
        space = space_of(settled, scene)
        distance = ring(1)[0].position.norm().item() / scene.to_input.scale
        assert space.half_extent == pytest.approx(distance * 18 / 60, rel=0.1)
        assert not space.contract

    def test_an_object_that_leaves_the_pictures_is_covered_beyond_their_corners(
        self, object_toy: Toy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        within = torch.zeros(36, 48)
        within[5:30, 10:40] = 1.0
        leaving = within.clone()
        leaving[:, 10:20] = 1.0
        assert not touches_border(within)
        assert touches_border(leaving)
        scene = object_toy.scene()
        inside = settle(resolve(field_config(object_toy, steps=1)), scene).method.grid
        assert inside.extent == field_space.seen_extent(scene)
        monkeypatch.setattr(field_space, "touches_border", lambda _: True)
        settled = settle(resolve(field_config(object_toy, steps=1)), scene).method.grid
        distance = ring(1)[0].position.norm().item() / scene.to_input.scale
        assert settled.extent == pytest.approx(1.3 * distance * 30 / 60, rel=0.1)
        assert space_of(settled, scene).half_extent == settled.extent
        # Steps stay as long as they were.
        without = replace(GRID, ray_steps=None)
        longer = settle(resolve(field_config(object_toy, steps=1, grid=without)), scene).method.grid
        assert longer.ray_steps == round(1.3 * 512)
        # Pictures of the whole object say enough; others are helped by points.
        assert inside.n_first_points == 0
        assert settled.n_first_points == 20_000

    def test_levels_around_an_object_are_as_fine_as_its_pixels(self, object_toy: Toy, still_toy: Toy) -> None:
        open_grid = replace(GRID, finest_resolution=None)
        finest = [
            settle(resolve(field_config(toy, steps=1, grid=grid)), toy.scene()).method.grid.finest_resolution
            for toy, grid in ((object_toy, open_grid), (object_toy, GRID), (still_toy, open_grid))
        ]
        # The cube is as wide as the shorter side of the picture, 36 pixels; then what was asked for; then the preset's.
        assert abs(finest[0] - 36) <= 1
        assert finest[1:] == [64, 1024]

    def test_pictures_without_alpha_are_of_an_unbounded_scene(self, still_toy: Toy) -> None:
        settled = settle(resolve(field_config(still_toy, steps=1)), still_toy.scene()).method.grid
        assert settled.bounds == "unbounded"
        assert space_of(settled, still_toy.scene()).n_cascades == 5


def test_rays_take_other_steps_through_an_object_than_through_the_world(object_toy: Toy, still_toy: Toy) -> None:
    def steps(toy: Toy, given: int | None) -> int | None:
        config = field_config(toy, steps=1, grid=replace(GRID, ray_steps=given))
        config = replace(config, schedule=ScheduleConfig(steps=1, preset="quick"))
        return settle(resolve(config), toy.scene()).method.grid.ray_steps

    assert (steps(object_toy, None), steps(still_toy, None)) == (64, 256)
    assert (steps(object_toy, 100), steps(still_toy, 100)) == (100, 100)


def pretend(device: str, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (9, 0)) -> None:
    """Decide as on that device; nothing runs there."""
    for module in (presets, training_module):
        monkeypatch.setattr(module, "choose_device", lambda _: torch.device(device))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [("cpu", (0, 0), (17, 64)), ("cuda", (8, 6), (17, 128)), ("cuda", (7, 5), (17, 64))],
)
def test_a_hollow_field_has_a_smaller_table_and_where_there_is_room_wider_networks(
    device: str,
    capability: tuple[int, int],
    expected: tuple[int, int],
    still_toy: Toy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(device, monkeypatch, capability)

    def shape(*, hollow: bool, grid: FieldConfig = LEFT_OPEN) -> tuple[int | None, int | None]:
        config = resolve(field_config(still_toy, steps=1, hollow=hollow, grid=grid))
        return config.method.grid.log2_table_size, config.method.grid.hidden

    assert shape(hollow=True) == expected
    assert shape(hollow=False) == (18 if device == "cpu" else 19, 64)
    assert shape(hollow=True, grid=FieldConfig(log2_table_size=15, hidden=32)) == (15, 32)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_only_the_world_is_learned_with_first_points_unless_asked(
    device: str, object_toy: Toy, still_toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(device, monkeypatch)

    def evidence(toy: Toy, n_points: int | None, distortion: float | None) -> tuple[int | None, float | None]:
        config = field_config(toy, steps=1, grid=replace(GRID, n_first_points=n_points))
        config = replace(
            config, method=replace(config.method, training=replace(TRAINING, distortion_weight=distortion))
        )
        method = settle(resolve(config), toy.scene()).method
        return method.grid.n_first_points, method.training.distortion_weight

    assert evidence(object_toy, None, None) == (0, 0.0)
    assert evidence(still_toy, None, None) == (20_000, 0.001 if device == "cpu" else 0.0)
    assert evidence(object_toy, 30, 0.5) == evidence(still_toy, 30, 0.5) == (30, 0.5)
    assert evidence(still_toy, 0, 0.0) == (0, 0.0)


def test_an_object_can_be_learned_with_first_points_and_distortion(object_toy: Toy, tmp_path: Path) -> None:
    scene = object_toy.scene()
    points = PointCloud(torch.rand(50, 3) - 0.5, torch.full((50, 3), 128, dtype=torch.uint8))
    config = field_config(object_toy, steps=2, grid=replace(GRID, n_first_points=50))
    config = replace(config, method=replace(config.method, training=replace(TRAINING, distortion_weight=0.01)))
    train(config, replace(scene, points=points), tmp_path)
    first = next(line for line in curve(tmp_path) if line["kind"] == "train")
    assert {"loss/depth", "loss/distortion"} <= first.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": 0}, "--levels must be 1 to 16, got 0."),
        ({"features": 3}, "--features must be 1, 2, 4 or 8, got 3."),
        ({"hidden": 48}, "--hidden must be 16, 32, 64 or 128, got 48."),
        ({"occupancy_resolution": 20}, "--occupancy-resolution must be a positive multiple of 8, got 20."),
        ({"finest_resolution": 8}, "--finest-resolution must be at least --base-resolution 16, got 8."),
        ({"extent": -1.0}, "--extent must be a positive length, got -1.0."),
        ({"near": 0.0}, "--near must be a positive distance, got 0.0."),
        ({"n_first_points": -1}, "--n-first-points must be at least 0, got -1."),
    ],
)
def test_options_that_make_no_sense_are_named(changes: dict[str, float], message: str, still_toy: Toy) -> None:
    assert refusal(field_config(still_toy, steps=1, grid=replace(GRID, **changes))) == message


def test_a_mask_needs_our_own_tables(still_toy: Toy) -> None:
    assert refusal(field_config(still_toy, steps=1, hollow=True, grid=replace(GRID, field_backend="tcnn"))) == (
        "--method hollownerf cannot drop entries of tiny-cuda-nn's tables; leave --field-backend tcnn out, or take "
        "--method hashgrid."
    )


@pytest.mark.usefixtures("stand_in")
def test_tiny_cuda_nn_learns_in_the_same_loop(object_toy: Toy, tmp_path: Path) -> None:
    config = field_config(object_toy, steps=6, grid=replace(GRID, field_backend="tcnn"))
    training = training_of(config, object_toy, tmp_path)
    feed, before = make_feed(training), [group.parameter.detach().clone() for group in training.method.groups()]
    for _ in range(6):
        train_step(training, feed)
    for group, was in zip(training.method.groups(), before, strict=True):
        assert group.parameter.isfinite().all()
        assert not torch.equal(group.parameter, was), group.name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distortion_weight": -0.5}, "--distortion-weight must be a number from 0 on, got -0.5."),
        ({"depth_weight": -0.5}, "--depth-weight must be a number from 0 on, got -0.5."),
        ({"huber": -1.0}, "--huber must be a number from 0 on, got -1.0."),
        ({"table_lr": -1.0}, "--table-lr must be a number above 0, got -1.0."),
        ({"networks_lr": math.nan}, "--networks-lr must be a number above 0, got nan."),
        ({"rates_end": 0.0}, "--rates-end must be a number above 0, got 0.0."),
        ({"occupancy_warm_up": -1}, "--occupancy-warm-up must be at least 0, got -1."),
    ],
)
def test_a_field_cannot_be_learned_backwards(changes: dict[str, float], message: str, still_toy: Toy) -> None:
    config = field_config(still_toy, steps=1)
    assert refusal(replace(config, method=HashGrid(GRID, replace(TRAINING, **changes)))) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_target": 2.0}, "--mask-target must be a number above 0 and below 1, got 2.0."),
        ({"mask_first": 1.0}, "--mask-first must be a number above 0 and below 1, got 1.0."),
        ({"harden_below": 1.0}, "--harden-below must be a number above 0 and below 1, got 1.0."),
        ({"mask_lr": 0.0}, "--mask-lr must be a number above 0, got 0.0."),
        ({"pruning_strength": -0.1}, "--pruning-strength must be a number from 0 on, got -0.1."),
        ({"pruning_start": -1.0}, "--pruning-start must be a fraction of the run, got -1.0."),
        ({"sharpness_first": 0.0}, "--sharpness-first must be a number above 0, got 0.0."),
        ({"sharpness_last": math.inf}, "--sharpness-last must be a number above 0, got inf."),
    ],
)
def test_a_mask_that_cannot_be_is_refused(changes: dict[str, float], message: str, still_toy: Toy) -> None:
    config = field_config(still_toy, steps=1)
    assert refusal(replace(config, method=HollowNerf(GRID, TRAINING, replace(HOLLOW, **changes)))) == message


@pytest.mark.parametrize("option", ["ssim_weight", "alpha_weight"])
def test_losses_of_whole_pictures_mean_nothing_to_a_field(option: str, still_toy: Toy) -> None:
    config = replace(field_config(still_toy, steps=1), image=ImageConfig(**{option: 0.5}))
    assert refusal(config) == (
        f"--{option.replace('_', '-')} weighs whole pictures, but hashgrid learns from rays; leave it out."
    )


def test_first_points_tell_for_a_part_of_the_run(still_toy: Toy) -> None:
    config = field_config(still_toy, steps=1)
    assert (
        refusal(replace(config, method=HashGrid(GRID, replace(TRAINING, depth_until=0.0))))
        == "--depth-until must be a fraction of the run above 0, got 0.0."
    )


def test_a_batch_of_pictures_means_nothing_to_a_field(still_toy: Toy) -> None:
    config = replace(field_config(still_toy, steps=1), schedule=ScheduleConfig(batch_size=4))
    assert refusal(config) == "--batch-size counts pictures, but hashgrid learns from rays; set --samples instead."


def test_a_checkpoint_that_does_not_fit_its_config_is_refused(object_toy: Toy, tmp_path: Path) -> None:
    train(field_config(object_toy, steps=2), object_toy.scene(), tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    saved["method"]["grid"]["occupancy_resolution"] = 24
    path.write_text(json.dumps(saved))
    with pytest.raises(InputError, match=r"is incomplete \(occupancy.thickness must have 13824 cells\.\)"):
        load_run(tmp_path, device="cpu")
