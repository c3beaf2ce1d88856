"""Whatever is in a calibration file, reading it gives a scene with finite cameras or one sentence, nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kinosplat.errors import InputError
from kinosplat.scenes import LoadOptions, load_scene
from scenes.builders import (
    nerfstudio_content,
    save_ply,
    write_blender,
    write_camera_rig,
    write_colmap,
    write_idr,
    write_llff,
    write_nerfstudio,
    write_panoptic,
)

STRANGE = (
    None,
    True,
    -1,
    0,
    10**30,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "text",
    "../../x",
    [],
    [[]],
    {},
    [1, "a"],
    {"a": 1},
)


def write_full_nerfstudio(root: Path) -> Path:
    """With lens, points and a listed split."""
    root.mkdir(parents=True, exist_ok=True)
    save_ply(root / "p.ply")
    more = {"k1": 0.01, "ply_file_path": "p.ply", "train_filenames": ["images/frame_00001.png"], "test_filenames": []}
    return write_nerfstudio(root, n=3, content=nerfstudio_content(3) | more)


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every container with every key in it."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else []
    return [place for key in keys for place in [(content, key), *places(content[key])]]


def reads_or_says_why(root: Path) -> str:
    """Load and check; gives the sentence, or nothing."""
    try:
        scene = load_scene(root, LoadOptions(test_every=0))
    except InputError as error:
        return str(error)
    for view in scene.views:
        assert torch.isfinite(view.camera.world_to_camera).all()
        assert torch.isfinite(view.camera.K).all()
    return ""


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (lambda root: write_camera_rig(root, n=2, n_frames=2), "cameras.json"),
        (lambda root: write_panoptic(root, n=3, n_frames=2), "train_meta.json"),
        (write_full_nerfstudio, "transforms.json"),
        (lambda root: write_blender(root, n=3, times=True), "transforms_train.json"),
    ],
    ids=["camera_rig", "panoptic", "nerfstudio", "dnerf"],
)
def test_strange_values_in_json(tmp_path: Path, write: Callable[[Path], Path], name: str) -> None:
    root = write(tmp_path / "toy")
    original = (root / name).read_text()
    draw = random.Random(1)
    n_refused = 0
    for _ in range(80):
        content = json.loads(original)
        container, key = draw.choice(places(content))
        if draw.random() < 0.2:
            del container[key]
        else:
            container[key] = draw.choice(STRANGE)
        (root / name).write_text(json.dumps(content))
        said = reads_or_says_why(root)
        assert "\n" not in said
        n_refused += bool(said)
    # Some damage does not matter (a name, a time), but most does.
    assert n_refused > 20


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (lambda root: write_colmap(root, n=3), "sparse/0/cameras.bin"),
        (lambda root: write_colmap(root, n=3), "sparse/0/images.bin"),
        (lambda root: write_colmap(root, n=3), "sparse/0/points3D.bin"),
        (lambda root: write_colmap(root, n=3, binary=False), "sparse/0/cameras.txt"),
        (lambda root: write_colmap(root, n=3, binary=False), "sparse/0/images.txt"),
        (lambda root: write_colmap(root, n=3, binary=False), "sparse/0/points3D.txt"),
        (lambda root: write_idr(root, n=3), "cameras_sphere.npz"),
        (lambda root: write_llff(root, n=3), "poses_bounds.npy"),
        (write_full_nerfstudio, "p.ply"),
        (write_full_nerfstudio, "transforms.json"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_flipped_and_missing_bytes(tmp_path: Path, write: Callable[[Path], Path], name: str) -> None:
    root = write(tmp_path / "toy")
    original = (root / name).read_bytes()
    draw = random.Random(2)
    for _ in range(30):
        content = bytearray(original)
        if draw.random() < 0.3:
            content = content[: draw.randrange(len(content))]
        else:
            for _ in range(draw.choice((1, 1, 4))):
                content[draw.randrange(len(content))] = draw.randrange(256)
        (root / name).write_bytes(content)
        assert "\n" not in reads_or_says_why(root)
