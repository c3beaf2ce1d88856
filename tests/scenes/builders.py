"""Tiny data sets of every format, written to a folder, and the truth they were made from.

All formats show the same rig: cameras on a circle that look at `TARGET`, with pictures that are a colour gradient whose
blue channel tells camera and frame. Reading any of them must give these cameras and pictures back.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from kinosplat.render.camera import look_at
from kinosplat.scenes import Scene

WIDTH, HEIGHT = 64, 48
K = np.array([[70.0, 0.0, 33.0], [0.0, 72.0, 22.0], [0.0, 0.0, 1.0]])
TARGET = np.array([0.5, -0.25, 1.0])
RADIUS = 4.0
UP = (0.0, 0.0, 1.0)
OPENCV_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
POINTS = np.array([[0.5, -0.25, 1.0], [0.75, 0.0, 1.25], [0.25, -0.5, 0.75]])
COLORS = np.array([[255, 0, 0], [0, 200, 0], [10, 20, 30]], np.uint8)


@dataclass(frozen=True)
class Rig:
    """The truth: n cameras in the input's frame."""

    n: int

    @property
    def poses(self) -> list[NDArray[np.float64]]:
        """world_to_camera (4, 4), OpenCV axes."""
        poses = []
        for i in range(self.n):
            angle = 0.4 + 2 * np.pi * i / max(self.n, 1)
            position = TARGET + RADIUS * np.array([np.cos(angle) * 0.8, np.sin(angle) * 0.8, 0.6])
            camera = look_at(
                *(torch.tensor(v, dtype=torch.float64) for v in (position, TARGET, UP)),
                K=torch.from_numpy(K),
                width=WIDTH,
                height=HEIGHT,
            )
            poses.append(camera.world_to_camera.numpy())
        return poses

    @property
    def positions(self) -> NDArray[np.float64]:
        """Camera centres (n, 3)."""
        return np.stack([-pose[:3, :3].T @ pose[:3, 3] for pose in self.poses])


def picture(camera: int, frame: int = 0, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """(H, W, 3) gradient in red and green; blue is 20 * camera + 2 * frame, modulo 256."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(10, 250, width)[None]
    pixels[..., 1] = np.linspace(10, 250, height)[:, None]
    pixels[..., 2] = (20 * camera + 2 * frame) % 256
    return pixels


def mask(camera: int) -> NDArray[np.uint8]:
    """(H, W) white on the right half, one column narrower a camera."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[:, WIDTH // 2 + camera :] = 255
    return pixels


def save(path: Path, pixels: NDArray[Any]) -> Path:
    """Write an image file, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def save_video(path: Path, frames: Sequence[NDArray[np.uint8]], fps: int = 15) -> Path:
    """Write a video without loss in luma and with full colour resolution."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv444p"
        stream.options = {"crf": "0", "preset": "ultrafast"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def save_json(path: Path, content: object) -> Path:
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def save_ply(path: Path, n: int = len(POINTS), layout: str = "ascii") -> Path:
    """The first n of POINTS with their colours."""
    header = (
        f"ply\nformat {layout} 1.0\ncomment made by hand\nelement vertex {n}\nproperty float x\nproperty float y\n"
        "property float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    )
    if layout == "ascii":
        rows = [" ".join(map(str, [*p, *c])) + "\n" for p, c in zip(POINTS[:n], COLORS[:n].tolist(), strict=True)]
        path.write_text(header + "".join(rows))
    else:
        order = "<" if layout == "binary_little_endian" else ">"
        rows_packed = [
            struct.pack(f"{order}3f3B", *p, *c) for p, c in zip(POINTS[:n], COLORS[:n].tolist(), strict=True)
        ]
        path.write_bytes(header.encode() + b"".join(rows_packed))
    return path


def write_idr(
    root: Path, n: int = 4, scale: float = 2.5, offset: Sequence[float] = (1.0, -2.0, 3.0), masks: bool = True
) -> Path:
    """IDR: world_mat in the input's frame, scale_mat as given."""
    scale_mat = np.diag([scale, scale, scale, 1.0])
    scale_mat[:3, 3] = offset
    arrays: dict[str, NDArray[np.float64]] = {}
    K4 = np.eye(4)
    K4[:3, :3] = K
    for i, pose in enumerate(Rig(n).poses):
        arrays[f"world_mat_{i}"], arrays[f"scale_mat_{i}"] = K4 @ pose, scale_mat
        save(root / "image" / f"{i:06d}.png", picture(i))
        if masks:
            save(root / "mask" / f"{i:03d}.png", np.repeat(mask(i)[..., None], 3, axis=2))
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / "cameras_sphere.npz", **arrays)
    return root


def write_panoptic(root: Path, n: int = 4, n_frames: int = 3, test: Sequence[int] = (2,), masks: bool = False) -> Path:
    """Dynamic 3D Gaussians: camera ids are 10 times their index."""
    poses = Rig(n).poses
    for name, members in (("train", [i for i in range(n) if i not in test]), ("test", list(test))):
        frames = range(n_frames)
        meta = {
            "w": WIDTH,
            "h": HEIGHT,
            "k": [[K.tolist() for _ in members] for _ in frames],
            "w2c": [[poses[i].tolist() for i in members] for _ in frames],
            "fn": [[f"{10 * i}/{t:06d}.jpg" for i in members] for t in frames],
            "cam_id": [[10 * i for i in members] for _ in frames],
        }
        save_json(root / f"{name}_meta.json", meta)
    for i in range(n):
        for t in range(n_frames):
            path = root / "ims" / str(10 * i) / f"{t:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(i, t)).save(path, quality=100, subsampling=0)
            if masks:
                save(root / "seg" / str(10 * i) / f"{t:06d}.png", (mask(i) > 0).astype(np.uint8))
    return root


def camera_rig_content(n: int = 3, n_frames: int = 4) -> dict[str, Any]:
    """What cameras.json of `write_camera_rig` holds; cam00 is the test camera."""
    return {
        "format": "kinosplat-camera-rig",
        "version": 1,
        "fps": 15.0,
        "n_frames": n_frames,
        "up": list(UP),
        "points": "points.ply",
        "cameras": [
            {
                "name": f"cam{i:02d}",
                "video": f"videos/cam{i:02d}.mp4",
                "width": WIDTH,
                "height": HEIGHT,
                "K": K.tolist(),
                "world_to_camera": pose.tolist(),
                "split": "test" if i == 0 else "train",
            }
            for i, pose in enumerate(Rig(n).poses)
        ],
    }


def write_camera_rig(root: Path, n: int = 3, n_frames: int = 4, content: dict[str, Any] | None = None) -> Path:
    """Our own layout."""
    for i in range(n):
        save_video(root / "videos" / f"cam{i:02d}.mp4", [picture(i, t) for t in range(n_frames)])
    save_ply(root / "points.ply")
    save_json(root / "cameras.json", content or camera_rig_content(n, n_frames))
    return root


def camera_to_world_opengl(pose: NDArray[np.float64]) -> list[list[float]]:
    """What transforms.json stores."""
    return (np.linalg.inv(pose) @ OPENCV_TO_OPENGL).tolist()


def nerfstudio_content(n: int = 4) -> dict[str, Any]:
    """transforms.json with shared intrinsics."""
    return {
        "camera_model": "OPENCV",
        "fl_x": K[0, 0],
        "fl_y": K[1, 1],
        "cx": K[0, 2],
        "cy": K[1, 2],
        "w": WIDTH,
        "h": HEIGHT,
        "frames": [
            {"file_path": f"images/frame_{i:05d}.png", "transform_matrix": camera_to_world_opengl(pose)}
            for i, pose in enumerate(Rig(n).poses)
        ],
    }


def write_nerfstudio(root: Path, n: int = 4, content: dict[str, Any] | None = None) -> Path:
    """Nerfstudio."""
    for i in range(n):
        save(root / "images" / f"frame_{i:05d}.png", picture(i))
    save_json(root / "transforms.json", content or nerfstudio_content(n))
    return root


def write_blender(root: Path, n: int = 4, times: bool = False) -> Path:
    """Blender synthetic (or D-NeRF with times): square pixels, RGBA, train and test files, names without extension."""
    for split, members in (("train", range(n - 1)), ("test", range(n - 1, n)), ("val", range(n - 1, n))):
        frames = []
        for i in members:
            name = f"./{split}/r_{i:03d}"
            alpha = mask(i)
            save(root / f"{name}.png", np.concatenate([picture(i), alpha[..., None]], axis=2))
            frame: dict[str, Any] = {"file_path": name, "transform_matrix": camera_to_world_opengl(Rig(n).poses[i])}
            frames.append(frame | ({"time": i / (n - 1)} if times else {}))
        save_json(
            root / f"transforms_{split}.json", {"camera_angle_x": 2 * np.arctan(WIDTH / (2 * 70.0)), "frames": frames}
        )
    return root


def quat_of(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Wxyz of a rotation matrix whose angle is not 180 degrees, by Cayley's formula."""
    w = np.sqrt(max(1 + np.trace(rotation), 1e-12)) / 2
    skew = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    return np.array([w, *(skew / (4 * w))])


def write_colmap(
    root: Path,
    n: int = 4,
    model: tuple[int, str, Sequence[float]] = (1, "PINHOLE", (70.0, 72.0, 33.0, 22.0)),
    binary: bool = True,
    names: Sequence[str] | None = None,
    folder: str = "sparse/0",
    n_points: int = len(POINTS),
) -> Path:
    """COLMAP with one camera for all pictures."""
    names = names or [f"photo {i}.png" for i in range(n)]
    sparse = root / folder
    sparse.mkdir(parents=True, exist_ok=True)
    model_id, model_name, parameters = model
    poses = [(quat_of(pose[:3, :3]), pose[:3, 3]) for pose in Rig(n).poses]
    if binary:
        cameras = struct.pack("<Q", 1) + struct.pack(
            f"<iiQQ{len(parameters)}d", 7, model_id, WIDTH, HEIGHT, *parameters
        )
        images = struct.pack("<Q", n)
        for i, ((q, t), name) in enumerate(zip(poses, names, strict=True)):
            images += struct.pack("<I7dI", i + 1, *q, *t, 7) + name.encode() + b"\0"
            images += struct.pack("<Q", i) + struct.pack("<2dq", 1.5, 2.5, -1) * i
        points = struct.pack("<Q", n_points)
        for i in range(n_points):
            points += struct.pack("<Q3d3BdQ", i, *POINTS[i], *COLORS[i].tolist(), 0.5, 2) + struct.pack(
                "<4i", 1, 0, 2, 0
            )
        (sparse / "cameras.bin").write_bytes(cameras)
        (sparse / "images.bin").write_bytes(images)
        (sparse / "points3D.bin").write_bytes(points)
    else:
        line = f"7 {model_name} {WIDTH} {HEIGHT} {' '.join(map(repr, map(float, parameters)))}\n"
        (sparse / "cameras.txt").write_text(f"# Camera list\n{line}")
        images_text = "# Image list with two lines of data per image:\n"
        for i, ((q, t), name) in enumerate(zip(poses, names, strict=True)):
            images_text += f"{i + 1} {' '.join(map(str, [*q, *t]))} 7 {name}\n"
            images_text += "1.5 2.5 -1 3.0 4.0 1\n" if i % 2 else "\n"
        (sparse / "images.txt").write_text(images_text)
        rows = [f"{i} {' '.join(map(str, [*POINTS[i], *COLORS[i]]))} 0.5 1 0 2 0\n" for i in range(n_points)]
        (sparse / "points3D.txt").write_text("# 3D point list\n" + "".join(rows))
    for i, name in enumerate(names):
        save(root / "images" / name, picture(i))
    return root


def poses_bounds(n: int) -> NDArray[np.float64]:
    """LLFF's table of the rig, with the focal length 70."""
    rows = []
    for pose in Rig(n).poses:
        camera_to_world = np.linalg.inv(pose)
        right, down, forward, position = camera_to_world[:3].T
        hwf = np.array([HEIGHT, WIDTH, 70.0])
        rows.append(np.concatenate([np.stack([down, right, -forward, position, hwf], axis=1).ravel(), [2.0, 8.0]]))
    return np.stack(rows)


def write_llff(root: Path, n: int = 4) -> Path:
    """LLFF photos."""
    for i in range(n):
        save(root / "images" / f"IMG_{i:04d}.png", picture(i))
    np.save(root / "poses_bounds.npy", poses_bounds(n))
    return root


def write_n3dv(root: Path, n: int = 3, n_frames: int = 4) -> Path:
    """N3DV videos."""
    for i in range(n):
        save_video(root / f"cam{i:02d}.mp4", [picture(i, t) for t in range(n_frames)], fps=30)
    np.save(root / "poses_bounds.npy", poses_bounds(n))
    return root


def assert_shows_the_rig(scene: Scene, n: int, expected_K: NDArray[np.float64] = K) -> None:
    """All n cameras, in the input's frame after `to_input`, with the right rotation, K, size and picture."""
    rig = Rig(n)
    assert len({view.camera_index for view in scene.views}) == n
    for view in scene.views:
        camera = view.camera
        i = next(i for i in range(n) if np.allclose(camera.world_to_camera[:3, :3], rig.poses[i][:3, :3], atol=1e-5))
        # Scenes are float32 at coordinates of about 4; measured 5e-7.
        np.testing.assert_allclose(scene.to_input.apply(camera.position).numpy(), rig.positions[i], atol=3e-6)
        np.testing.assert_allclose(camera.K.numpy(), expected_K, rtol=1e-6)
        assert (camera.width, camera.height) == (WIDTH, HEIGHT)
        pixels = view.image.load()
        frame = 0 if camera.time is None or scene.fps is None else round(camera.time * scene.fps)
        # PNGs are exact; JPEG and YUV rounding was measured to stay within 4 grey levels, other cameras differ by 20.
        assert np.abs(pixels[..., :3].astype(int) - picture(i, frame)).max() <= 4
