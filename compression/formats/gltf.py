"""Binary glTF with KHR_gaussian_splatting: point primitives with rotation (xyzw), scale, opacity and SH as float
attributes.

Positions are the input's, to the letter. glTF's y axis points up: with `up` given, the node that holds the Gaussians
turns the scene upright, which players do and some converters refuse, as SH would have to turn too. COLOR_0 lets
programs without the extension show points.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinosplat.compression.formats.frame import checked
from kinosplat.compression.formats.packing import color_of, normalised, sigmoid, to_uint8
from kinosplat.render.gaussians import Gaussians

EXTENSION = "KHR_gaussian_splatting"
FLOAT, UNSIGNED_BYTE, ARRAY_BUFFER, POINTS = 5126, 5121, 34962, 0
SH_OF_DEGREE = {0: 1, 1: 3, 2: 5, 3: 7}


def write_gltf(path: Path, gaussians: Gaussians, up: tuple[float, float, float] | None = None) -> None:
    """Write a still set as GLB; `up` is the scene's up axis in the input's frame, None leaves the node unrotated."""
    g = checked(gaussians)
    color = np.concatenate([color_of(g.sh_dc.numpy()), sigmoid(g.opacity_logits.numpy())[:, None]], axis=1)
    quats = normalised(g.quats.numpy()).astype(np.float32)
    attributes: dict[str, NDArray[Any]] = {
        "POSITION": g.means.numpy(),
        "COLOR_0": to_uint8(255 * color),
        f"{EXTENSION}:ROTATION": quats[:, [1, 2, 3, 0]],
        f"{EXTENSION}:SCALE": np.exp(g.log_scales.numpy()),
        f"{EXTENSION}:OPACITY": sigmoid(g.opacity_logits.numpy()).astype(np.float32)[:, None],
    }
    coefficients = np.concatenate([g.sh_dc.numpy()[:, None], g.sh_rest.numpy()], axis=1)
    place = 0
    for degree in range(g.sh_degree + 1):
        for i in range(SH_OF_DEGREE[degree]):
            attributes[f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{i}"] = coefficients[:, place]
            place += 1

    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    blocks, offset = [], 0
    for name, values in attributes.items():
        block = np.ascontiguousarray(values).tobytes()
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": len(block), "target": ARRAY_BUFFER})
        accessor: dict[str, Any] = {
            "bufferView": len(accessors),
            "componentType": UNSIGNED_BYTE if values.dtype == np.uint8 else FLOAT,
            "count": len(values),
            "type": {1: "SCALAR", 3: "VEC3", 4: "VEC4"}[values.shape[1]],
        }
        accessor |= {"normalized": True} if values.dtype == np.uint8 else {}
        if name == "POSITION":
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        accessors.append(accessor)
        blocks.append(block + b"\0" * (-len(block) % 4))
        offset += len(blocks[-1])

    kernel = {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "sortingMethod": "cameraDistance",
        "projection": "perspective",
    }
    primitive = {
        "attributes": {name: i for i, name in enumerate(attributes)},
        "mode": POINTS,
        "extensions": {EXTENSION: kernel},
    }
    document = {
        "asset": {"version": "2.0", "generator": "kinosplat"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0} if up is None else {"mesh": 0, "rotation": upright_rotation(up)}],
        "meshes": [{"primitives": [primitive]}],
        "buffers": [{"byteLength": offset}],
        "bufferViews": views,
        "accessors": accessors,
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    body = b"".join(blocks)
    with path.open("wb") as file:
        file.write(struct.pack("<III", 0x46546C67, 2, 12 + 8 + len(text) + 8 + len(body)))
        file.write(struct.pack("<II", len(text), 0x4E4F534A) + text)
        file.write(struct.pack("<II", len(body), 0x004E4942) + body)


def upright_rotation(up: tuple[float, float, float]) -> list[float]:
    """Quaternion xyzw of the shortest rotation that takes `up` to +y."""
    axis = np.array(up, np.float64)
    axis /= max(float(np.linalg.norm(axis)), 1e-12)
    if axis[1] < -0.999999:
        return [1.0, 0.0, 0.0, 0.0]
    quat = np.array([*np.cross(axis, (0.0, 1.0, 0.0)), 1.0 + axis[1]])
    return [float(value) for value in quat / np.linalg.norm(quat)]
