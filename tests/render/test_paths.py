"""Camera paths: orbits stay where the cameras were, key frames are passed smoothly, files are checked by field."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from kinosplat.errors import InputError
from kinosplat.render.camera import Camera, look_at
from kinosplat.render.paths import (
    CameraPath,
    Keyframe,
    load_camera_path,
    look_at_point,
    orbit,
    save_camera_path,
)

K = torch.tensor([[100.0, 0, 64], [0, 100, 48], [0, 0, 1]])
UP = torch.tensor([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Doubled:
    """x_input = 2 x_scene + (1, 0, 0), like `Scene.to_input`."""

    def apply(self, points: Tensor) -> Tensor:
        return 2 * points + torch.tensor([1.0, 0, 0], dtype=points.dtype)

    def invert(self, points: Tensor) -> Tensor:
        return (points - torch.tensor([1.0, 0, 0], dtype=points.dtype)) / 2


def camera_at(
    x: float, y: float, z: float, target: tuple[float, float, float] = (0, 0, 0), time: float | None = None
) -> Camera:
    return look_at(
        torch.tensor([x, y, z], dtype=torch.float32),
        torch.tensor(target, dtype=torch.float32),
        UP,
        K=K,
        width=128,
        height=96,
        time=time,
    )


def ring(
    radius_x: float, radius_y: float, height: float, degrees: range, target: tuple[float, float, float]
) -> list[Camera]:
    cameras = []
    for degree in degrees:
        angle = math.radians(degree)
        x, y = radius_x * math.cos(angle), radius_y * math.sin(angle)
        cameras.append(camera_at(target[0] + x, target[1] + y, target[2] + height, target))
    return cameras


def positions(cameras: list[Camera]) -> Tensor:
    return torch.stack([camera.position for camera in cameras])


class TestTheLookAtPoint:
    def test_it_is_where_the_axes_meet(self) -> None:
        cameras = ring(3, 3, 1, range(0, 360, 40), (0.5, -0.25, 2.0))
        assert look_at_point(cameras).tolist() == pytest.approx([0.5, -0.25, 2.0], abs=1e-5)

    def test_parallel_cameras_look_at_a_point_in_front_of_their_middle(self) -> None:
        cameras = [camera_at(x, 0, 0, (x, 5, 0)) for x in (-1.0, 0.0, 1.0)]
        assert look_at_point(cameras).tolist() == pytest.approx([0, 3, 0], abs=1e-5)


class TestTheOrbit:
    def test_around_a_ring_it_is_the_ring(self) -> None:
        path = orbit(ring(3, 3, 1, range(0, 360, 30), (0, 0, 2)), 24)
        places = positions(path)
        assert torch.allclose(places[:, :2].norm(dim=1), torch.full((24,), 3.0), atol=1e-4)
        assert torch.allclose(places[:, 2], torch.full((24,), 3.0), atol=1e-4)
        assert look_at_point(path).tolist() == pytest.approx([0, 0, 2], abs=1e-4)
        assert torch.allclose(path[0].position, torch.tensor([3.0, 0, 3]), atol=1e-4)
        assert all(-camera.world_to_camera[1, 2] > 0.5 for camera in path)

    def test_around_an_ellipse_it_is_the_ellipse(self) -> None:
        places = positions(orbit(ring(4, 2, 1, range(0, 360, 20), (0, 0, 0)), 36))
        on_it = (places[:, 0] / 4) ** 2 + (places[:, 1] / 2) ** 2
        assert torch.allclose(on_it, torch.ones(36), atol=1e-4)

    def test_cameras_on_an_arc_give_a_swing_that_stays_on_it(self) -> None:
        places = positions(orbit(ring(3, 3, 1, range(-40, 41, 10), (0, 0, 0)), 40))
        azimuths = torch.rad2deg(torch.atan2(places[:, 1], places[:, 0]))
        assert azimuths.min().item() == pytest.approx(-40, abs=0.1)
        assert azimuths.max().item() == pytest.approx(40, abs=0.1)
        assert azimuths.diff().abs().max() < 8

    def test_cameras_that_look_outwards_give_an_orbit_that_looks_outwards(self) -> None:
        inside = [camera_at(x, y, 0, (9 * x, 9 * y, 0)) for x, y in ((1, 0), (0, 1), (-1, 0), (0, -1), (0.7, 0.7))]
        for camera in orbit(inside, 8):
            assert (camera.position @ camera.forward).item() == pytest.approx(1.0, abs=0.05)

    def test_one_camera_is_enough(self) -> None:
        for camera in orbit([camera_at(0, -2, 0)], 5):
            assert camera.world_to_camera.isfinite().all()
            assert (camera.position - torch.tensor([0.0, -2, 0])).norm() < 0.2

    def test_time_advances_from_the_first_to_the_last_moment(self) -> None:
        moving = [camera.at(0.5 * i) for i, camera in enumerate(ring(3, 3, 1, range(0, 360, 60), (0, 0, 0)))]
        assert [camera.time for camera in orbit(moving, 6)] == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5])
        assert [camera.time for camera in orbit(moving, 3, times=(1.0, 2.0))] == pytest.approx([1, 1.5, 2])
        assert orbit([camera.at(None) for camera in moving], 3)[1].time is None

    def test_it_needs_a_camera_and_a_frame(self) -> None:
        for cameras, n_frames in (([], 5), ([camera_at(1, 0, 0)], 0)):
            with pytest.raises(ValueError, match=r"^orbit needs at least one camera and one frame\.$"):
                orbit(cameras, n_frames)


def turned(degrees: float) -> tuple[float, float, float, float]:
    """About the world's z axis."""
    half = math.radians(degrees) / 2
    return math.cos(half), 0.0, 0.0, math.sin(half)


PATH = CameraPath(
    (
        Keyframe((0, 0, 0), turned(0), 40, 0.0, 0.0),
        Keyframe((1, 0, 0), turned(30), 50, 1.0, 0.5),
        Keyframe((2, 1, 0), turned(80), 50, 1.5, 0.5),
        Keyframe((2, 3, 1), turned(60), 60, 3.0, 2.0),
    )
)


def distance(a: Keyframe, b: Keyframe) -> float:
    """Largest difference in place, in rotation and in what the camera sees."""
    quats = np.array(a.wxyz), np.array(b.wxyz)
    angle = 2 * math.acos(min(1.0, abs(quats[0] @ quats[1]) / np.linalg.norm(quats[0]) / np.linalg.norm(quats[1])))
    numbers = [abs(x - y) for x, y in zip(a.position, b.position, strict=True)]
    numbers += [angle, math.radians(abs(a.fov - b.fov)), abs((a.time or 0) - (b.time or 0))]
    return max(numbers)


def rotation(key: Keyframe) -> Rotation:
    w, x, y, z = key.wxyz
    return Rotation.from_quat([x, y, z, w])


class TestTheWayBetweenKeyFrames:
    @pytest.mark.parametrize("path", [PATH, replace(PATH, seconds_to_start=2.0)])
    def test_it_passes_every_key_frame(self, path: CameraPath) -> None:
        for key, passed in zip(path.keyframes, path.at([key.seconds for key in path.keyframes]), strict=True):
            assert distance(key, passed) < 1e-7  # acos near 1 has half of the digits; measured 0

    @pytest.mark.parametrize("path", [PATH, replace(PATH, seconds_to_start=2.0)])
    def test_velocity_does_not_jump_at_a_key_frame(self, path: CameraPath) -> None:
        step = 1e-5
        for knot in [1.0, 1.5] if path.seconds_to_start is None else [0.0, 1.0, 1.5, 3.0]:
            before, here, after = path.at([knot - step, knot, knot + step])
            speeds = [np.subtract(b.position, a.position) / step for a, b in pairwise((before, here, after))]
            turns = [rotation(a).inv() * rotation(b) for a, b in pairwise((before, here, after))]
            spins = [turn.as_rotvec() / step for turn in turns]
            # Measured at most 5.7e-5, and in proportion to the step.
            assert np.abs(speeds[0] - speeds[1]).max() < 2e-4
            assert np.abs(spins[0] - spins[1]).max() < 2e-4

    def test_a_turn_at_constant_speed_stays_one(self) -> None:
        path = CameraPath(tuple(Keyframe((i, 0, 0), turned(40 * i), 50, float(i)) for i in range(5)))
        for key in path.at([0.3, 1.7, 3.9]):
            assert distance(key, Keyframe((key.seconds, 0, 0), turned(40 * key.seconds), 50, key.seconds)) < 1e-7

    def test_quaternions_of_either_sign_take_the_short_way(self) -> None:
        flipped = replace(PATH.keyframes[1], wxyz=tuple(-x for x in PATH.keyframes[1].wxyz))
        other = CameraPath((PATH.keyframes[0], flipped, *PATH.keyframes[2:]))
        for a, b in zip(PATH.at([0.5, 1.2]), other.at([0.5, 1.2]), strict=True):
            assert distance(a, b) < 1e-7

    def test_the_clip_never_runs_backwards_between_keys_that_do_not(self) -> None:
        times = [key.time for key in PATH.at(np.linspace(0, 3, 200).tolist())]
        assert all(after >= before for before, after in pairwise(times))
        assert [key.time for key in PATH.at([1.1, 1.4])] == [0.5, 0.5]

    def test_it_rests_at_its_ends_and_a_loop_goes_on(self) -> None:
        assert distance(PATH.at([-1.0])[0], PATH.keyframes[0]) < 1e-7
        assert distance(PATH.at([9.0])[0], PATH.keyframes[-1]) < 1e-7
        loop = replace(PATH, seconds_to_start=2.0)
        assert loop.duration == 5.0
        assert distance(loop.at([0.7])[0], loop.at([0.7 + 2 * 5.0])[0]) < 1e-7

    def test_one_key_frame_is_a_camera_that_stands(self) -> None:
        for path in (CameraPath(PATH.keyframes[:1]), CameraPath(PATH.keyframes[:1], seconds_to_start=1.0)):
            assert [key.position for key in path.at([0.0, 0.5])] == [(0, 0, 0)] * 2

    def test_frames_of_a_video_do_not_repeat_the_first_of_a_loop(self) -> None:
        assert len(PATH.cameras(64, 48, fps=10)) == 31
        assert len(replace(PATH, seconds_to_start=2.0).cameras(64, 48, fps=10)) == 50

    def test_a_key_frame_and_its_camera_are_the_same(self) -> None:
        camera = camera_at(1, 2, 3, time=0.5)
        again = Keyframe.from_camera(camera, 0.0).camera(128, 96)
        assert torch.allclose(again.world_to_camera, camera.world_to_camera, atol=1e-6)
        assert torch.allclose(again.K, camera.K, atol=1e-4)
        assert again.time == 0.5

    @pytest.mark.parametrize(
        ("keyframes", "back", "message"),
        [
            ((), None, "keyframes must hold at least one key frame."),
            (PATH.keyframes[::-1], None, "keyframes must have increasing seconds."),
            (
                (PATH.keyframes[0], replace(PATH.keyframes[1], time=None)),
                None,
                "keyframes must all have a time, or all have none.",
            ),
            (PATH.keyframes, 0.0, "seconds_to_start must be above 0."),
        ],
    )
    def test_a_path_that_cannot_be_played_is_refused(self, keyframes: Any, back: float | None, message: str) -> None:
        with pytest.raises(ValueError) as error:  # noqa: PT011
            CameraPath(keyframes, back)
        assert str(error.value) == message


class TestTheFile:
    def test_it_keeps_a_path(self, tmp_path: Path) -> None:
        for path in (PATH, replace(PATH, seconds_to_start=2.0)):
            save_camera_path(tmp_path / "path.json", path)
            assert load_camera_path(tmp_path / "path.json") == path
        assert [file.name for file in tmp_path.iterdir()] == ["path.json"]

    def test_its_positions_are_in_the_frame_of_the_input(self, tmp_path: Path) -> None:
        save_camera_path(tmp_path / "path.json", PATH, Doubled())
        content = json.loads((tmp_path / "path.json").read_text())
        assert content["keyframes"][3]["position"] == [5, 6, 2]
        assert load_camera_path(tmp_path / "path.json", Doubled()) == PATH

    def test_a_matrix_may_stand_for_position_and_rotation(self, tmp_path: Path) -> None:
        camera = camera_at(1, 2, 3)
        matrix = camera.world_to_camera.tolist()
        self.write(tmp_path, [{"seconds": 0, "fov": 50, "world_to_camera": matrix}])
        key = load_camera_path(tmp_path / "path.json", Doubled()).keyframes[0]
        assert key.position == pytest.approx((0, 1, 1.5), abs=1e-6)
        assert torch.allclose(key.camera(8, 8).world_to_camera[:3, :3], camera.world_to_camera[:3, :3], atol=1e-6)

    @staticmethod
    def write(folder: Path, keyframes: Any, **fields: Any) -> None:
        content = {"format": "kinosplat-camera-path", "version": 1, "keyframes": keyframes, **fields}
        (folder / "path.json").write_text(json.dumps(content))

    KEY = {"seconds": 0.0, "fov": 50.0, "position": [0, 0, 0], "wxyz": [1, 0, 0, 0]}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"seconds": None}, "keyframes[1].seconds must be a finite number, got None."),
            ({"seconds": float("nan")}, "keyframes[1].seconds must be a finite number, got nan."),
            ({"seconds": True}, "keyframes[1].seconds must be a finite number, got True."),
            ({"seconds": 0.0}, "keyframes[1].seconds must be above 0.0, that of the one before."),
            ({"fov": "wide"}, "keyframes[1].fov must be a finite number, got 'wide'."),
            ({"fov": 180}, "keyframes[1].fov must be between 0 and 180 degrees, got 180.0."),
            ({"time": 1.0}, "keyframes[1].time must be given for all key frames or for none."),
            ({"time": []}, "keyframes[1].time must be a finite number, got []."),
            ({"position": [0, 0]}, "keyframes[1].position must be a list of 3 finite numbers, got [0, 0]."),
            ({"wxyz": [0, 0, 0, 0]}, "keyframes[1].wxyz must not be all zero; 1, 0, 0, 0 is no rotation."),
            ({"wxyz": None}, "keyframes[1].wxyz must be a list of 4 finite numbers, got None."),
            ({"world_to_camera": 3}, "keyframes[1].world_to_camera must be four rows of four numbers."),
            (
                {"world_to_camera": [[1, 0, 0, 0], [0, 1], [0, 0, 1, 0], [0, 0, 0, 1]]},
                "keyframes[1].world_to_camera[1] must be a list of 4 finite numbers, got [0, 1].",
            ),
            (
                {"world_to_camera": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]]},
                "keyframes[1].world_to_camera must be a rotation and a translation above the row 0, 0, 0, 1.",
            ),
            (
                {"world_to_camera": [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]},
                "keyframes[1].world_to_camera must be a rotation and a translation above the row 0, 0, 0, 1.",
            ),
        ],
    )
    def test_a_bad_key_frame_is_named(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        self.write(tmp_path, [self.KEY, {**self.KEY, "seconds": 1.0, **change}])
        with pytest.raises(InputError) as error:
            load_camera_path(tmp_path / "path.json")
        assert str(error.value) == f"{tmp_path / 'path.json'}: {message}"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{\n", "line 2 is not JSON (Expecting property name enclosed in double quotes); save the path again."),
            ("[]", '"format" must be "kinosplat-camera-path"; save the path with kinosplat\'s viewer.'),
            ('{"frames": []}', '"format" must be "kinosplat-camera-path"; save the path with kinosplat\'s viewer.'),
            (
                '{"format": "kinosplat-camera-path", "version": 2}',
                '"version" must be 1, got 2; update kinosplat.',
            ),
            (
                '{"format": "kinosplat-camera-path", "version": 1, "keyframes": []}',
                '"keyframes" must be a list of at least one key frame.',
            ),
            (
                '{"format": "kinosplat-camera-path", "version": 1, "keyframes": [7]}',
                "keyframes[0] must be an object with seconds, fov, position and wxyz.",
            ),
        ],
    )
    def test_another_file_is_refused(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "path.json").write_text(text)
        with pytest.raises(InputError) as error:
            load_camera_path(tmp_path / "path.json")
        assert str(error.value) == f"{tmp_path / 'path.json'}: {message}"

    def test_a_way_back_takes_time(self, tmp_path: Path) -> None:
        self.write(tmp_path, [self.KEY], seconds_to_start=-1)
        with pytest.raises(InputError) as error:
            load_camera_path(tmp_path / "path.json")
        assert str(error.value) == f"{tmp_path / 'path.json'}: seconds_to_start must be above 0, got -1.0."

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError) as error:
            load_camera_path(tmp_path / "none.json")
        assert str(error.value) == f"{tmp_path / 'none.json'}: there is no such file; give the JSON of a camera path."
