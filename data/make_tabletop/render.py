"""Renders every camera at every frame; pictures that are already on disk are kept."""

import time
from collections.abc import Sequence
from pathlib import Path

from make_tabletop.blender import Studio
from make_tabletop.cameras import RigCamera
from make_tabletop.stage import FPS, make_stage


def picture_path(folder: Path, camera: str, frame: int) -> Path:
    return folder / camera / f"{frame:03d}.png"


def render_rig(folder: Path, cameras: Sequence[RigCamera], frames: Sequence[int], samples: int) -> None:
    """Fills `folder` with CAMERA/FRAME.png, frame by frame so that the scene is rebuilt only once a frame."""
    studio = Studio(make_stage(), samples)
    for frame in frames:
        missing = [camera for camera in cameras if not picture_path(folder, camera.name, frame).exists()]
        if not missing:
            continue
        begin = time.perf_counter()
        studio.set_time(frame / FPS)
        for camera in missing:
            path = picture_path(folder, camera.name, frame)
            path.parent.mkdir(parents=True, exist_ok=True)
            studio.render(path, camera.world_to_camera, camera.K, camera.width, camera.height)
        seconds = (time.perf_counter() - begin) / len(missing)
        print(f"frame {frame}: {len(missing)} pictures, {seconds:.2f} s each", flush=True)
