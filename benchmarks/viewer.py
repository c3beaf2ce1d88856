"""Delivered frames a second of the viewer, counted by a client without a browser that receives and decodes every frame.

    python benchmarks/viewer.py RUN --resolution 480 360 --seconds 10
    python benchmarks/viewer.py --n-gaussians 1000000 --resolution 1280 720 --target-fps 120

The client is a process of its own. It speaks viser's protocol over a websocket on this machine, turns its camera around
the scene at the target rate, decodes each JPEG, and confirms it as a page does. Printed beside it: the bare renderer on
the same orbit and size, and what a frame costs above it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import math
import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
import tyro
import viser
import websockets.asyncio.client
import zstandard
from PIL import Image

from kinosplat.opening import cameras_around, open_subject
from kinosplat.render import Camera
from kinosplat.viewer.lens import orbit_to_show, pose_of, vertical_fov
from kinosplat.viewer.measure import benchmark
from kinosplat.viewer.server import ServerOptions, ViewerServer
from kinosplat.viewer.subject import GaussianSubject, Subject
from scenes import random_gaussians


@dataclass(frozen=True)
class Arguments:
    """What to show, and to whom."""

    what: Annotated[Path | None, tyro.conf.Positional] = None
    """Run or file; random Gaussians when left out."""
    n_gaussians: int = 1_000_000
    """Of random Gaussians."""
    resolution: tuple[int, int] = (1280, 720)
    """Size of the client's canvas."""
    target_fps: float = 60.0
    """Frames a second that the client asks for."""
    adaptive: bool = False
    """Let pictures shrink while moving, as the page does; without, every frame has full size."""
    seconds: float = 10.0
    """How long the client turns, after two seconds that do not count."""
    device: str = "auto"
    """cpu, cuda, or auto."""


def main(arguments: Arguments) -> None:
    """Serve, let the client look, print."""
    subject = make_subject(arguments)
    width, height = arguments.resolution
    bare = benchmark(subject, width, height, n_frames=100)
    cameras = orbit_to_show(subject.cameras, 120, subject.times, width, height)
    with ViewerServer(subject, ServerOptions(port=0)) as server:
        messages = [camera_message(camera) for camera in cameras]
        context = multiprocessing.get_context("spawn")
        answers: Any = context.Queue()
        client = context.Process(target=look, args=(server.port, messages, arguments, answers))
        client.start()
        while not server.sessions:
            time.sleep(0.02)
        session = server.sessions[0]
        stream = session.stream
        stream.set_settings(
            dataclasses.replace(stream.settings, target_fps=arguments.target_fps, adaptive=arguments.adaptive)
        )
        counted = answers.get(timeout=arguments.seconds + 120)
        meter = stream.meter
        last = meter.last()
        client.join()
    stages = {stage: round(meter.median_ms(stage), 2) for stage in ("render", "read", "encode", "send", "latency")}
    report = {
        "bare_renderer_ms": round(bare.median_ms, 3),
        "delivered_fps": round(counted["n_frames"] / counted["seconds"], 1),
        "median_size": counted["median_size"],
        "stages_ms": stages,
        "kib_a_frame": None if last is None else round(last.n_bytes / 1024, 1),
        "device": bare.device,
        "n_primitives": bare.n_primitives,
    }
    print(json.dumps(report, indent=1))


def make_subject(arguments: Arguments) -> Subject:
    """What is shown."""
    if arguments.what is not None:
        return open_subject(arguments.what, device=arguments.device)
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    gaussians = random_gaussians(arguments.n_gaussians, device=device)
    cameras = cameras_around(gaussians, (0.0, -1.0, 0.0), None)
    return GaussianSubject("random", gaussians, cameras, torch.zeros(3, device=device))


def camera_message(camera: Camera) -> dict[str, Any]:
    """What a page sends when its camera moves."""
    wxyz, position = pose_of(camera)
    return {
        "type": "ViewerCameraMessage",
        "wxyz": wxyz,
        "position": position,
        "fov": vertical_fov(camera),
        "near": 0.01,
        "far": 1000.0,
        "image_height": camera.height,
        "image_width": camera.width,
        "look_at": (0.0, 0.0, 0.0),
        "up_direction": (0.0, 0.0, 1.0),
    }


def look(port: int, messages: list[dict[str, Any]], arguments: Arguments, answers: Any) -> None:
    """The client's process."""
    answers.put(asyncio.run(_look(port, messages, arguments)))


async def _look(port: int, messages: list[dict[str, Any]], arguments: Arguments) -> dict[str, Any]:
    url = f"ws://localhost:{port}"
    protocol = f"viser-v{viser.__version__}"
    decompressor = zstandard.ZstdDecompressor()
    sizes: list[tuple[int, int]] = []
    counts_from = math.inf

    async with websockets.asyncio.client.connect(url, subprotocols=[protocol], max_size=None) as socket:  # type: ignore[list-item]

        async def turn() -> None:
            i = 0
            while True:
                await socket.send(msgspec.msgpack.encode(messages[i % len(messages)]))
                i += 1
                await asyncio.sleep(1 / arguments.target_fps)

        turning = asyncio.create_task(turn())
        began = time.monotonic()
        while time.monotonic() - began < arguments.seconds + 2:
            raw = await socket.recv()
            assert isinstance(raw, bytes)
            n_bytes, n_packed = int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:16], "little")
            content = msgspec.msgpack.decode(decompressor.decompress(raw[16 : 16 + n_packed], max_output_size=n_bytes))
            for message in content["messages"]:
                if message["type"] == "BackgroundImageMessage" and message["rgb_data"] is not None:
                    image = Image.open(io.BytesIO(message["rgb_data"]))
                    image.load()
                    if time.monotonic() - began > 2:
                        counts_from = min(counts_from, time.monotonic())
                        sizes.append(image.size)
                elif message["type"] == "LocalStorageGetItemRequestMessage":
                    answer = {
                        "type": "LocalStorageGetItemResponseMessage",
                        "value": "",
                        "error": None,
                        "request_uuid": message["request_uuid"],
                    }
                    await socket.send(msgspec.msgpack.encode(answer))
        turning.cancel()
    sizes.sort()
    return {
        "n_frames": len(sizes),
        "seconds": time.monotonic() - counts_from if sizes else arguments.seconds,
        "median_size": list(sizes[len(sizes) // 2]) if sizes else None,
    }


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
