"""Binary glTF with KHR_gaussian_splatting: point primitives with rotation (xyzw), scale, opacity and SH as float
attributes.

Positions are the input's, to the letter. glTF's y axis points up: with `up` given, the node that holds the Gaussians
turns the scene upright, which players do and some converters refuse, as SH would have to turn too. COLOR_0 lets
programs without the extension show points.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinosplat.compression.formats.frame import checked
from kinosplat.compression.formats.packing import color_of, normalised, sigmoid, to_uint8
from kinosplat.render.gaussians import Gaussians

EXTENSION = "KHR_gaussian_splatting"
FLOAT, UNSIGNED_BYTE, ARRAY_BUFFER, POINTS = 5126, 5121, 34962, 0
VECTORS = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
GLB_HEADER, CHUNK_HEADER = struct.Struct("<III"), struct.Struct("<II")
GLB, JSON_CHUNK, BINARY_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942


def write_gltf(path: Path, gaussians: Gaussians, up: tuple[float, float, float] | None = None) -> None:
    """Write a still set as GLB; `up` is the scene's up axis in the input's frame, None leaves the node unrotated."""
    attributes = _attributes(checked(gaussians))
    views, accessors, body = _buffers(attributes)
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
        "buffers": [{"byteLength": len(body)}],
        "bufferViews": views,
        "accessors": accessors,
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    with path.open("wb") as file:
        file.write(GLB_HEADER.pack(GLB, 2, GLB_HEADER.size + 2 * CHUNK_HEADER.size + len(text) + len(body)))
        file.write(CHUNK_HEADER.pack(len(text), JSON_CHUNK) + text)
        file.write(CHUNK_HEADER.pack(len(body), BINARY_CHUNK) + body)


def _attributes(g: Gaussians) -> dict[str, NDArray[Any]]:
    """The arrays (N, 1 | 3 | 4) of a primitive by the names that glTF gives them."""
    color = np.concatenate([color_of(g.sh_dc.numpy()), sigmoid(g.opacity_logits.numpy())[:, None]], axis=1)
    attributes: dict[str, NDArray[Any]] = {
        "POSITION": g.means.numpy(),
        "COLOR_0": to_uint8(255 * color),
        f"{EXTENSION}:ROTATION": normalised(g.quats.numpy()).astype(np.float32)[:, [1, 2, 3, 0]],
        f"{EXTENSION}:SCALE": np.exp(g.log_scales.numpy()),
        f"{EXTENSION}:OPACITY": sigmoid(g.opacity_logits.numpy()).astype(np.float32)[:, None],
    }
    coefficients = np.concatenate([g.sh_dc.numpy()[:, None], g.sh_rest.numpy()], axis=1)
    return attributes | {name: coefficients[:, i] for i, name in enumerate(sh_names(g.sh_degree))}


def sh_names(degree: int) -> list[str]:
    """Attributes of the coefficients up to a degree, in our order of them."""
    return [f"{EXTENSION}:SH_DEGREE_{d}_COEF_{i}" for d in range(degree + 1) for i in range(2 * d + 1)]


def _buffers(attributes: Mapping[str, NDArray[Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], bytes]:
    """Buffer views, accessors, and the bytes they point into."""
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    blocks: list[bytes] = []
    offset = 0
    for name, values in attributes.items():
        block = np.ascontiguousarray(values).tobytes()
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": len(block), "target": ARRAY_BUFFER})
        accessor: dict[str, Any] = {
            "bufferView": len(accessors),
            "componentType": UNSIGNED_BYTE if values.dtype == np.uint8 else FLOAT,
            "count": len(values),
            "type": VECTORS[values.shape[1]],
        }
        accessor |= {"normalized": True} if values.dtype == np.uint8 else {}
        if name == "POSITION":
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        accessors.append(accessor)
        blocks.append(block + b"\0" * (-len(block) % 4))
        offset += len(blocks[-1])
    return views, accessors, b"".join(blocks)


def upright_rotation(up: tuple[float, float, float]) -> list[float]:
    """Quaternion xyzw of the shortest rotation that takes `up` to +y."""
    axis = np.array(up, np.float64)
    axis /= max(float(np.linalg.norm(axis)), 1e-12)
    if axis[1] < -0.999999:
        return [1.0, 0.0, 0.0, 0.0]
    quat = np.array([*np.cross(axis, (0.0, 1.0, 0.0)), 1.0 + axis[1]])
    return [float(value) for value in quat / np.linalg.norm(quat)]
