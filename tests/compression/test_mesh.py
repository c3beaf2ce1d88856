"""Meshes: files, surfaces of densities and of depth, and the distance from what is known to be true."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kinosplat.compression.mesh.chamfer import Observed, chamfer, read_observed, surface_points, thinned
from kinosplat.compression.mesh.fusion import DepthPicture, fuse
from kinosplat.compression.mesh.marching import mesh_of_density
from kinosplat.compression.mesh.mesh import Mesh, Points, read_mesh, read_points, write_mesh
from kinosplat.data.ground_truth import load_depth, load_ground_truth
from kinosplat.errors import BackendError, InputError
from kinosplat.render.camera import Camera, look_at
from kinosplat.scenes import load_scene

RADIUS = 0.7


def globe(n: int = 64, radius: float = RADIUS) -> Mesh:
    """A ball of 2 n^2 triangles around the origin, normals outwards."""
    polar = np.linspace(0, math.pi, n + 1)
    around = np.linspace(0, 2 * math.pi, 2 * n, endpoint=False)
    p, a = np.meshgrid(polar, around, indexing="ij")
    vertices = radius * np.stack([np.sin(p) * np.cos(a), np.sin(p) * np.sin(a), np.cos(p)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(n), np.arange(2 * n), indexing="ij")
    here, right = i * 2 * n + j, i * 2 * n + (j + 1) % (2 * n)
    below, across = here + 2 * n, right + 2 * n
    faces = np.concatenate([np.stack([here, below, across], -1), np.stack([here, across, right], -1)]).reshape(-1, 3)
    return Mesh(vertices, faces.astype(np.int64))


def together(a: Mesh, b: Mesh) -> Mesh:
    return Mesh(np.concatenate([a.vertices, b.vertices]), np.concatenate([a.faces, b.faces + len(a.vertices)]))


def on_sphere(n: int, radius: float = RADIUS) -> Points:
    points = np.random.default_rng(1).normal(size=(n, 3))
    return radius * points / np.linalg.norm(points, axis=1, keepdims=True)


class Ball:
    """A density that falls through 10 at the radius; red in front, seen from +x."""

    density_box = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
    density_device = torch.device("cpu")

    def density_at(self, points: Tensor) -> Tensor:
        return 10 * torch.exp(20 * (RADIUS - points.norm(dim=1)))

    def colour_at(self, points: Tensor, directions: Tensor) -> Tensor:
        return (0.5 - 0.5 * directions) * torch.tensor([1.0, 0.0, 0.0])


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


def volume(mesh: Mesh) -> float:
    """Positive where triangles are anticlockwise seen from outside."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def test_a_mesh_comes_back_from_its_file(tmp_path: Path) -> None:
    mesh = globe(8)
    coloured = Mesh(mesh.vertices, mesh.faces, np.full((len(mesh.vertices), 3), 200, np.uint8))
    write_mesh(tmp_path / "ball.ply", coloured)
    back = read_mesh(tmp_path / "ball.ply")
    assert np.allclose(back.vertices, mesh.vertices, atol=1e-7)
    assert np.array_equal(back.faces, mesh.faces)
    assert len(read_points(tmp_path / "ball.ply")) == len(mesh.vertices)
    assert [file.name for file in tmp_path.iterdir()] == ["ball.ply"]


def test_what_is_no_mesh_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "points.ply"
    write_mesh(path, Mesh(np.zeros((3, 3)), np.zeros((0, 3), np.int64)))
    assert refusal(lambda: read_mesh(path)) == (
        f"{path} has no triangles; give a mesh, such as `kinosplat export --format mesh` writes."
    )
    write_mesh(path, Mesh(np.zeros((3, 3)), np.full((1, 3), 7)))
    assert "has triangles of vertices that are not there" in refusal(lambda: read_mesh(path))
    write_mesh(path, Mesh(np.full((3, 3), np.nan), np.zeros((1, 3), np.int64)))
    assert "some that are no numbers" in refusal(lambda: read_mesh(path))
    content = bytearray((tmp_path / "points.ply").read_bytes())
    content[-13] = 4
    path.write_bytes(content)
    assert (
        refusal(lambda: read_mesh(path)) == f"{path} has faces that are no triangles; export it again with triangles."
    )


def test_specks_go_and_the_large_part_stays() -> None:
    ball, speck = globe(16), globe(2, 0.05)
    both = together(ball, Mesh(speck.vertices + 3, speck.faces))
    cleaned = both.without_specks(0.1)
    assert len(cleaned.faces) == len(ball.faces)
    assert np.abs(cleaned.vertices).max() < 1
    assert volume(cleaned) == pytest.approx(volume(ball))


def test_distances_to_a_sphere_are_what_they_should_be() -> None:
    """A ball that is too large by 5 mm is 5 mm away in both directions; lengths in metres."""
    measured = chamfer(globe(128, RADIUS + 0.005), on_sphere(40_000), spacing=0.004, cap=0.1)
    # The offset, and beside it the gaps between points: 0.0062 m on average among 40,000, of which 0.0082 results.
    assert measured.accuracy == pytest.approx(0.0082, abs=0.0004)
    assert measured.completeness == pytest.approx(0.0055, abs=0.0008)
    assert measured.mean == pytest.approx(0.5 * (measured.accuracy + measured.completeness))


def test_distances_of_the_cap_and_more_do_not_count() -> None:
    ball = globe(32)
    away = together(ball, Mesh(ball.vertices + 50, ball.faces))
    truth = on_sphere(20_000)
    alone, beside = (chamfer(mesh, truth, spacing=0.02, cap=0.5) for mesh in (ball, away))
    assert beside.accuracy == pytest.approx(alone.accuracy, rel=0.05)
    assert beside.n_mesh > 1.9 * alone.n_mesh
    assert "within 0.5 of a true one" in refusal(lambda: chamfer(ball, truth + 50, spacing=0.02, cap=0.5))


def test_points_cover_triangles_and_no_two_are_too_near() -> None:
    square = Mesh(
        np.array([[0.0, 0, 0], [3, 0, 0], [3, 1, 0], [0, 1, 0]]), np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int64)
    )
    points = surface_points(square, 0.05)
    # One point for each square of the spacing, fewer along the edges: 3 / 0.05^2 = 1200.
    assert 1000 < len(points) < 1500
    left = thinned(points, 0.1, np.random.default_rng(0))
    gaps = np.linalg.norm(left[:, None] - left[None], axis=-1) + 10 * np.eye(len(left))
    assert gaps.min() > 0.1
    grid = np.stack(np.meshgrid(np.linspace(0, 3, 61), np.linspace(0, 1, 21)), -1).reshape(-1, 2)
    reach = np.linalg.norm(grid[:, None] - left[None, :, :2], axis=-1).min(axis=1)
    # Every point that was thinned out is within 0.1 of one that stayed, and gaps of the grid are 0.05 wide.
    assert reach.max() < 0.15


def test_only_what_was_observed_counts(tmp_path: Path) -> None:
    from scipy.io import savemat

    cells = np.zeros((21, 21, 21), np.uint8)
    cells[:, :, 10:] = 1
    savemat(tmp_path / "mask.mat", {"ObsMask": cells, "BB": np.array([[-1.0] * 3, [1.0] * 3]), "Res": 0.1})
    savemat(tmp_path / "plane.mat", {"P": np.array([[0.0], [0.0], [1.0], [0.0]])})
    observed = read_observed(tmp_path / "mask.mat", tmp_path / "plane.mat")
    assert isinstance(observed, Observed)
    truth = on_sphere(20_000)
    upper = Mesh(globe(64).vertices * [1, 1, 1], globe(64).faces)
    below = upper.vertices[:, 2] < -0.1
    upper.vertices[below] *= 1.2
    whole, masked = (chamfer(upper, truth, spacing=0.02, cap=0.5, observed=o) for o in (None, observed))
    # The lower half is wrong by 0.14, and nobody has seen it.
    assert whole.accuracy > 0.05
    assert masked.accuracy < 0.02
    assert masked.n_truth == pytest.approx(10_000, rel=0.05)
    assert "is not" not in refusal(lambda: read_observed(tmp_path / "plane.mat", tmp_path / "plane.mat"))


def test_a_density_becomes_the_surface_where_it_has_the_level() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed: pip install 'kinosplat[mesh]'")
    mesh = mesh_of_density(Ball(), resolution=40, level=10.0)
    distances = np.linalg.norm(mesh.vertices, axis=1)
    # Linear interpolation of an exponential over cells of 0.05: 5.6e-3 at most.
    assert np.abs(distances - RADIUS).max() < 8e-3
    assert volume(mesh) == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.02)
    assert mesh.colours is not None
    front, back = mesh.vertices[:, 0] > 0.6, mesh.vertices[:, 0] < -0.6
    assert mesh.colours[front, 0].mean() > 200
    assert mesh.colours[back, 0].mean() < 55
    assert "nowhere 1e+12" in refusal(lambda: mesh_of_density(Ball(), resolution=10, level=1e12))


def need_open3d() -> None:
    pytest.importorskip("open3d", reason="no Open3D: pip install 'kinosplat[mesh]'", exc_type=ImportError)


def ball_pictures(n: int = 24) -> list[DepthPicture]:
    """Exact depth of the ball from all around."""
    K = torch.tensor([[200.0, 0, 80], [0, 200, 80], [0, 0, 1]], dtype=torch.float64)
    pictures = []
    for i in range(n):
        angle, height = 2 * math.pi * i * 0.618, 1 - 2 * (i + 0.5) / n
        ring = math.sqrt(1 - height**2)
        place = 2.5 * torch.tensor([ring * math.cos(angle), ring * math.sin(angle), height], dtype=torch.float64)
        up = torch.tensor([0.1, 0.0, 1.0], dtype=torch.float64)
        camera = look_at(place, torch.zeros(3, dtype=torch.float64), up, K=K, width=160, height=160)
        pictures.append(DepthPicture(camera, np.full((160, 160, 3), 128, np.uint8), ball_depth(camera)))
    return pictures


def ball_depth(camera: Camera) -> np.ndarray:
    y, x = torch.meshgrid(torch.arange(160) + 0.5, torch.arange(160) + 0.5, indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], -1).double() @ torch.linalg.inv(camera.K).T
    center = camera.world_to_camera[:3, 3]
    a, b, c = rays.square().sum(-1), rays @ center, center.square().sum() - RADIUS**2
    root = b.square() - a * c
    return torch.where(root > 0, (b - root.clamp_min(0).sqrt()) / a, 0.0).float().numpy()


def test_depth_from_all_around_becomes_the_surface() -> None:
    need_open3d()
    mesh = fuse(ball_pictures(), voxel=0.02, farthest=5.0).without_specks(0.1)
    measured = chamfer(mesh, on_sphere(40_000), spacing=0.01, cap=0.1)
    # Half the voxel at most, and the gaps between 40,000 points (0.0062 on average).
    assert measured.accuracy < 0.009
    assert measured.completeness < 0.009
    assert volume(mesh) == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.03)


def test_true_depth_of_the_shipped_scene_becomes_its_true_surface() -> None:
    need_open3d()
    scene = load_scene("tabletop")
    folder = scene.root / "evaluation"
    truth = load_ground_truth(folder)
    pictures = []
    for view in {view.camera_index: view for view in reversed(scene.test)}.values():
        # The scene is scaled; true lengths are metres.
        depth = load_depth(folder, view.name.split("/")[0])[0].astype(np.float32) / np.float32(scene.to_input.scale)
        grey = np.full((*depth.shape, 3), 128, np.uint8)
        pictures.append(DepthPicture(view.camera, grey, depth))
    mesh = fuse(pictures, voxel=0.01 / scene.to_input.scale, farthest=10.0)
    mesh = replace(mesh, vertices=scene.to_input.apply(torch.from_numpy(mesh.vertices)).numpy())
    points = truth.points(0)[truth.is_visible(0) & truth.is_present(0)]
    measured = chamfer(mesh, points, spacing=0.01, cap=0.2)
    # 26 mm, which is how far apart the true points are on the floor and the table.
    assert measured.accuracy < 0.03
    # 14 mm: four cameras do not see everything.
    assert measured.completeness < 0.016
    raised = chamfer(replace(mesh, vertices=mesh.vertices + np.array([0, 0, 0.05])), points, spacing=0.01, cap=0.2)
    assert raised.mean > measured.mean + 0.015


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "open3d", None)
    monkeypatch.setitem(__import__("sys").modules, "skimage.measure", None)
    with pytest.raises(BackendError, match=r"needs Open3D; run 'pip install \"kinosplat\[mesh\]\"'\."):
        fuse([], voxel=1.0, farthest=1.0)
    with pytest.raises(BackendError, match=r"scikit-image; run 'pip install \"kinosplat\[mesh\]\"'\."):
        mesh_of_density(Ball(), resolution=4, level=1.0)
