"""Neural 3D Video (Plenoptic Video, DyNeRF; Li et al. 2022) and other video rigs calibrated with LLFF.

    poses_bounds.npy            see `poses_bounds`; a row a video
    cam00.mp4, cam01.mp4, ...   in the order of their sorted names; videos of one size and length, all started together

Frames are decoded when they are needed. Split: cam00, the camera in the middle of the rig, is held out, as in the
paper.
"""

from __future__ import annotations

from pathlib import Path

from kinosplat.errors import InputError
from kinosplat.scenes.capture import Capture, RawPicture, Shot
from kinosplat.scenes.formats.folders import VIDEO_SUFFIXES
from kinosplat.scenes.formats.poses_bounds import read_poses_bounds
from kinosplat.scenes.options import LoadOptions
from kinosplat.scenes.video import index_video

USUAL_FPS = 30.0
"""Of the published scenes; used when a video does not tell."""


def matches(root: Path) -> bool:
    """Whether poses_bounds.npy and videos are there."""
    return (root / "poses_bounds.npy").is_file() and bool(_videos(root))


def read(root: Path, options: LoadOptions) -> Capture:
    """Read a folder in this layout."""
    cameras, depth = read_poses_bounds(root / "poses_bounds.npy")
    videos = [index_video(path) for path in _videos(root)]
    if len(videos) != len(cameras):
        raise InputError(
            f"{root} holds {len(videos)} videos but poses_bounds.npy has {len(cameras)} rows; "
            "remove what does not belong."
        )
    n_frames = max(video.n_frames for video in videos)
    short = min(videos, key=lambda video: video.n_frames)
    if short.n_frames < _n_needed(options, n_frames):
        raise InputError(
            f"{short.path} has {short.n_frames} frames where others have {n_frames}; "
            f"record it again, or choose frames 0 {short.n_frames}."
        )
    fps = videos[0].fps or USUAL_FPS
    shots = []
    for index, (video, camera) in enumerate(zip(videos, cameras, strict=True)):
        K = camera.K_at(video.width, video.height, video.path)
        for t in range(video.n_frames):
            shots.append(
                Shot(
                    name=f"{video.path.stem}/{t:06d}",
                    camera_index=index,
                    world_to_camera=camera.world_to_camera,
                    K=K,
                    width=video.width,
                    height=video.height,
                    picture=RawPicture(video.path, t),
                    time=t / fps,
                    frame=t,
                    split="test" if index == 0 and len(videos) > 1 else "train",
                )
            )
    return Capture(format="n3dv", shots=tuple(shots), fps=fps, depth=depth)


def _videos(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("cam*") if path.suffix.lower() in VIDEO_SUFFIXES)


def _n_needed(options: LoadOptions, n_frames: int) -> int:
    if options.frame is not None:
        return options.frame + 1
    return options.frames[1] if options.frames is not None else n_frames
