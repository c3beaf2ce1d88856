"""Pictures to the project's own layout for multi-view video: cameras.json and one H.264 file a camera."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from make_tabletop.cameras import RigCamera
from make_tabletop.render import picture_path
from make_tabletop.stage import FPS, N_FRAMES
from PIL import Image

QUALITY = "10"
"""x264's constant rate factor; see README.md for the PSNR that it gives."""
KEY_FRAMES = 10
"""Frames from one key frame to the next at most, so that seeking is cheap."""


def write_rig(output: Path, renders: Path, rig: Sequence[RigCamera]) -> None:
    """Writes videos/CAMERA.mp4 and cameras.json from the pictures in `renders`."""
    videos = output / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    for camera in rig:
        pictures = [picture_path(renders, camera.name, frame) for frame in range(N_FRAMES)]
        write_video(videos / f"{camera.name}.mp4", pictures)
    description = {
        "format": "kinosplat-camera-rig",
        "version": 1,
        "fps": FPS,
        "n_frames": N_FRAMES,
        "up": [0, 0, 1],
        "cameras": [
            {
                "name": camera.name,
                "video": f"videos/{camera.name}.mp4",
                "width": camera.width,
                "height": camera.height,
                "K": camera.K.tolist(),
                "world_to_camera": camera.world_to_camera.tolist(),
                "split": camera.split,
            }
            for camera in rig
        ],
    }
    (output / "cameras.json").write_text(json.dumps(description, indent=1) + "\n")


def write_video(path: Path, pictures: Sequence[Path]) -> None:
    """H.264 without chroma subsampling; colours are turned by BT.601 in the limited range, and the file says so."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS).limit_denominator())
        first = np.asarray(Image.open(pictures[0]).convert("RGB"))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv444p"
        context = stream.codec_context
        context.colorspace, context.color_range = Colorspace.ITU601, ColorRange.MPEG
        # One thread, so that the file does not depend on the machine's number of cores.
        stream.options = {"crf": QUALITY, "preset": "veryslow", "g": str(KEY_FRAMES), "threads": "1", "tune": "ssim"}
        for picture in pictures:
            image = np.asarray(Image.open(picture).convert("RGB"))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(
                stream.encode(
                    frame.reformat(format="yuv444p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG)
                )
            )
        container.mux(stream.encode())
