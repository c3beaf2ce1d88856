"""The example of docs/camera_rig.md is what the reader reads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kinosplat.scenes import load_scene
from kinosplat.scenes.distortion import COEFFICIENTS
from scenes.builders import picture, save_ply, save_video

PAGE = Path(__file__).parents[2] / "docs" / "camera_rig.md"


def test_the_example_of_the_documentation_is_read(tmp_path: Path) -> None:
    blocks = re.findall(r"```json\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    content = json.loads(blocks[0])
    camera = content["cameras"][0]
    content["n_frames"], camera["width"], camera["height"] = 2, 64, 48
    save_video(tmp_path / camera["video"], [picture(0, t) for t in range(2)])
    save_video(tmp_path / camera["mask_video"], [picture(0, t) for t in range(2)])
    save_ply(tmp_path / content["points"])
    (tmp_path / "cameras.json").write_text(json.dumps(content))
    view = load_scene(tmp_path).train[0]
    assert view.camera.K[0, 0].item() == pytest.approx(camera["K"][0][0])
    assert view.mask is not None


def test_the_documentation_names_every_lens() -> None:
    text = PAGE.read_text()
    for model, names in COEFFICIENTS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{model}` |"))
        if names:
            assert names[0] in row
            assert names[-1] in row
