"""Reads binary glTF with KHR_gaussian_splatting as `gltf.py` writes it: one primitive of float attributes.

The Gaussians stay in the frame of their node. Where the node is turned, its rotation says which axis points up; one
that is moved or scaled is refused, as are buffers outside the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kinosplat.compression.formats.gltf import (
    BINARY_CHUNK,
    CHUNK_HEADER,
    EXTENSION,
    FLOAT,
    GLB,
    GLB_HEADER,
    JSON_CHUNK,
    VECTORS,
    sh_names,
)
from kinosplat.compression.formats.imported import Imported
from kinosplat.compression.formats.packing import logit
from kinosplat.compression.kino.metadata import Metadata
from kinosplat.errors import InputError
from kinosplat.render.gaussians import Gaussians

SMALLEST_SCALE = 1e-12


def read_gltf(path: Path) -> Imported:
    """The first primitive of Gaussians and the axis that its node turns up; InputError where there is none that can be
    read.
    """
    try:
        document, body = _chunks(path.read_bytes())
        node, primitive = _primitive(document)
        return Imported(_gaussians(document, body, primitive["attributes"]), Metadata(up=_up(node)))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a GLB of Gaussians that can be read ({error}); export it again.") from error


def _chunks(data: bytes) -> tuple[dict[str, Any], bytes]:
    if len(data) < GLB_HEADER.size or GLB_HEADER.unpack_from(data)[:2] != (GLB, 2):
        raise ValueError("it does not begin like one")
    chunks, place = {}, GLB_HEADER.size
    while place + CHUNK_HEADER.size <= len(data):
        n_bytes, kind = CHUNK_HEADER.unpack_from(data, place)
        place += CHUNK_HEADER.size
        chunks[kind] = data[place : place + n_bytes]
        place += n_bytes
    if place > len(data):
        raise ValueError("it is cut off")
    return json.loads(chunks[JSON_CHUNK]), chunks.get(BINARY_CHUNK, b"")


def _primitive(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first node whose mesh has Gaussians, and that primitive."""
    for node in document["nodes"]:
        meshes = [document["meshes"][node["mesh"]]] if "mesh" in node else []
        for primitive in (primitive for mesh in meshes for primitive in mesh["primitives"]):
            if EXTENSION in primitive.get("extensions", {}):
                return node, primitive
    raise ValueError(f"no primitive has {EXTENSION}")


def _gaussians(document: dict[str, Any], body: bytes, attributes: dict[str, int]) -> Gaussians:
    def read(name: str, components: int) -> NDArray[np.float32]:
        return _array(document, body, attributes[name], name, components)

    scales = np.maximum(read(f"{EXTENSION}:SCALE", 3), SMALLEST_SCALE)
    degree = max(d for d in range(4) if all(name in attributes for name in sh_names(d)))
    coefficients = np.stack([read(name, 3) for name in sh_names(degree)], axis=1)
    return Gaussians(
        means=torch.from_numpy(read("POSITION", 3)),
        quats=torch.from_numpy(np.ascontiguousarray(read(f"{EXTENSION}:ROTATION", 4)[:, [3, 0, 1, 2]])),
        log_scales=torch.from_numpy(np.log(scales)),
        opacity_logits=torch.from_numpy(logit(read(f"{EXTENSION}:OPACITY", 1)[:, 0])),
        sh_dc=torch.from_numpy(np.ascontiguousarray(coefficients[:, 0])),
        sh_rest=torch.from_numpy(np.ascontiguousarray(coefficients[:, 1:])),
    )


def _array(document: dict[str, Any], body: bytes, index: int, name: str, components: int) -> NDArray[np.float32]:
    """(count, components) of an accessor, copied; finite numbers only."""
    accessor = document["accessors"][index]
    view = document["bufferViews"][accessor["bufferView"]]
    if accessor["componentType"] != FLOAT or accessor["type"] != VECTORS[components] or "sparse" in accessor:
        raise ValueError(f"{name} is not stored as {VECTORS[components]} of floats")
    if "uri" in document["buffers"][view["buffer"]] or view.get("byteStride", 4 * components) != 4 * components:
        raise ValueError(f"{name} lies outside the file or between others")
    n_numbers, start = components * accessor["count"], view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    if n_numbers < 0 or not 0 <= start <= len(body) - 4 * n_numbers:
        raise ValueError(f"{name} is cut off")
    values = np.frombuffer(body, "<f4", n_numbers, start).reshape(-1, components).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    return values


def _up(node: dict[str, Any]) -> tuple[float, float, float]:
    """The axis that the node's rotation takes to +y, which is up in glTF."""
    moved = any(node.get(key, rest) != rest for key, rest in (("translation", [0, 0, 0]), ("scale", [1, 1, 1])))
    if moved or "matrix" in node:
        raise ValueError("its node is moved or scaled, which has to be applied first")
    x, y, z, w = (float(value) for value in node.get("rotation", (0, 0, 0, 1)))
    up = np.array([2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)])
    length = float(np.linalg.norm(up))
    if not 0.0 < length < np.inf:
        raise ValueError("its node has a rotation that is none")
    up /= length
    return float(up[0]), float(up[1]), float(up[2])
