"""The stage at one moment as a NeRF-synthetic data set: transparent pictures and transforms_{train,test}.json.

Layout as in the Blender scenes of NeRF (Mildenhall et al. 2020): camera-to-world matrices with OpenGL axes, one field
of view, `train/r_N.png` with alpha. The world is the table's in units of 1 / SCALE metres, so that everything lies
within 1.5 units of the origin and the cameras at 4 units, as readers of that layout expect. Pictures there are kept.
"""

import json
from pathlib import Path

import numpy as np
from make_tabletop.blender import OPENCV_TO_BLENDER, Studio
from make_tabletop.cameras import intrinsics, look_at, on_sphere
from make_tabletop.stage import make_stage

MOMENT = 1.6
"""Seconds; everything has appeared by then."""
SCALE = 1.5
"""Units a metre."""
DISTANCE = 4.0
"""Units from the origin to the cameras."""
CAMERA_ANGLE_X = 0.6911112070083618
"""Horizontal field of view in radians, that of NeRF's scenes."""
SEED = 5


def make(folder: Path, n_views: dict[str, int], size: int, samples: int) -> None:
    """Renders `n_views["train"]` views spread over the upper hemisphere and `n_views["test"]` along a spiral."""
    studio = Studio([thing for thing in make_stage() if thing.on_table], samples, transparent=True)
    studio.set_time(MOMENT)
    K = intrinsics(0.5 * size / np.tan(0.5 * CAMERA_ANGLE_X), size, size)
    for split, count in n_views.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        frames = []
        for index, position in enumerate(_positions(split, count)):
            world_to_camera = look_at(position, np.zeros(3))
            path = folder / split / f"r_{index}.png"
            if not path.exists():
                studio.render(path, world_to_camera, K, size, size)
            camera_to_world = np.linalg.inv(world_to_camera) @ OPENCV_TO_BLENDER
            camera_to_world[:3, 3] *= SCALE
            frames.append({"file_path": f"./{split}/r_{index}", "transform_matrix": camera_to_world.tolist()})
        description = {"camera_angle_x": CAMERA_ANGLE_X, "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(description, indent=1) + "\n")


def _positions(split: str, count: int) -> list[np.ndarray]:
    """Camera positions in metres."""
    radius = DISTANCE / SCALE
    if split == "test":
        share = (np.arange(count) + 0.5) / count
        return [on_sphere(720.0 * s, 15.0 + 60.0 * s, radius) for s in share]
    generator = np.random.default_rng(SEED)
    azimuths = generator.uniform(0.0, 360.0, count)
    # Uniform in the sine of the elevation is uniform over the sphere's area.
    elevations = np.degrees(np.arcsin(generator.uniform(np.sin(np.radians(5.0)), 1.0, count)))
    return [on_sphere(a, min(e, 89.0), radius) for a, e in zip(azimuths, elevations, strict=True)]
