"""Named tensors that all chunks share: codebooks, networks, tables. Each is one zstd frame of byte planes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kinosplat.compression.kino.codings import dequantise, quantise, value_range
from kinosplat.compression.kino.layout import TENSOR_ITEM_BYTES, TensorEntry, TensorType
from kinosplat.compression.kino.parse import refuse
from kinosplat.compression.kino.planes import compress, decompress


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in the form in which it goes to the file."""

    values: NDArray[Any]
    """Numbers of the stored type."""
    minimum: tuple[float, ...] = ()
    """One a column when `values` are integers that stand for minimum + step * value."""
    step: tuple[float, ...] = ()
    """See `minimum`."""


def store_tensor(values: NDArray[np.float32], bits: int, *, one_range: bool = False) -> StoredTensor:
    """Float values (..., d) in 8 bits with a range a column (or one for all), in float16, or in float32."""
    if not np.isfinite(values).all():
        raise ValueError("a tensor holds values that are not finite.")
    if one_range and bits == 8:
        stored = store_tensor(values.reshape(-1, 1), 8)
        return replace(stored, values=stored.values.reshape(values.shape))
    if bits == 8 and values.ndim >= 1:
        columns = values.reshape(-1, values.shape[-1])
        minimum, step = value_range(columns.astype(np.float32), 8)
        integers = quantise(columns, minimum, step, 8).astype(np.uint8).reshape(values.shape)
        return StoredTensor(integers, tuple(minimum.tolist()), tuple(step.tolist()))
    return StoredTensor(values.astype(np.float16 if bits == 16 else np.float32))


def encode_tensor(name: str, tensor: StoredTensor, offset: int) -> tuple[TensorEntry, bytes]:
    """The table entry and the stored bytes of a tensor that starts `offset` bytes after the header."""
    dtype = cast(TensorType, tensor.values.dtype.name)
    item = TENSOR_ITEM_BYTES[dtype]
    octets = np.ascontiguousarray(tensor.values).reshape(-1).view(np.uint8).reshape(-1, item)
    data = compress(np.ascontiguousarray(octets.T).tobytes())
    entry = TensorEntry(
        name, dtype, tensor.values.shape, offset, len(data), zlib.crc32(data), tensor.minimum, tensor.step
    )
    return entry, data


def decode_tensor(entry: TensorEntry, data: bytes, file_name: str) -> NDArray[Any]:
    """Values of a tensor: float32 for floats and for integers with a range, else the stored integers."""
    item = TENSOR_ITEM_BYTES[entry.dtype]
    if len(data) != entry.n_bytes or zlib.crc32(data) != entry.crc32:
        refuse(file_name, f"is damaged in its tensor `{entry.name}`")
    try:
        octets = np.frombuffer(decompress(data, entry.n_items * item), np.uint8).reshape(item, -1)
    except ValueError as error:
        refuse(file_name, f"is damaged in its tensor `{entry.name}` ({error})")
    values = np.ascontiguousarray(octets.T).view(entry.dtype).reshape(entry.shape)
    if entry.minimum:
        with np.errstate(over="ignore"):
            minimum, step = (np.array(values, np.float32).astype(np.float64) for values in (entry.minimum, entry.step))
        if not (np.isfinite(minimum).all() and np.isfinite(step).all()):
            refuse(file_name, f"has a range that is not finite in its tensor `{entry.name}`")
        return dequantise(values, minimum, step)
    return values.astype(np.float32) if entry.dtype.startswith("float") else values
