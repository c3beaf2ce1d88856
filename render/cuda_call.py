"""How Python calls a pass of the CUDA backend: checked arrays go over as addresses, on the current stream of torch.

A tensor of the wrong device, dtype, shape or layout raises InputError (a ValueError) naming it; what CUDA reports comes
out as BackendError. Only for builds that have the CUDA backend (render/backend.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kinosplat._native import gpu as native
from kinosplat.errors import BackendError, InputError


class Checked:
    """Addresses of tensors on one device, each checked first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(
        self,
        name: str,
        tensor: Tensor | None,
        shape: tuple[int, ...],
        dtype: torch.dtype = torch.float32,
        alignment: int = 4,
    ) -> int:
        """Address of `tensor`, 0 for None; a multiple of `alignment` bytes."""
        if tensor is None:
            return 0
        address = tensor.data_ptr()
        fits = tensor.shape == shape and tensor.dtype == dtype and tensor.is_contiguous()
        if fits and tensor.device == self.device and not address % alignment:
            return address
        raise InputError(self._objection(name, tensor, shape, dtype, alignment))

    def _objection(self, name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, alignment: int) -> str:
        if tensor.device != self.device:
            return f"{name} must be on {self.device}, got {tensor.device}; move it there first."
        if tensor.dtype != dtype:
            return f"{name} must be {_name(dtype)}, got {_name(tensor.dtype)}; convert it first."
        if tensor.shape != shape:
            return f"{name} must have shape {shape}, got {tuple(tensor.shape)}."
        if not tensor.is_contiguous():
            return f"{name} must be contiguous; call .contiguous() on it first."
        return f"{name} must start at a multiple of {alignment} bytes; call .clone() on it first."


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def current_queue(device: torch.device) -> Any:
    """The current stream of `device`, as the native module takes it."""
    # What torch.cuda.current_stream says, without an object around it: a frame asks for it twice.
    return native.Queue(device.index, torch._C._cuda_getCurrentRawStream(device.index))


def address_of(tensor: Tensor | None) -> int:
    """Address of a tensor allocated here, which needs no check; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def run_pass(function: Any, *arguments: Any) -> Any:
    """Call a native pass; what CUDA reports comes out as BackendError in one sentence, a lack of memory as torch's."""
    try:
        return function(*arguments)
    except RuntimeError as error:
        if "out of memory" in str(error):
            raise torch.OutOfMemoryError(str(error)) from error
        if "no kernel image" in str(error) or "unsupported toolchain" in str(error):
            device = next((a.device for a in arguments if isinstance(a, native.Queue)), None)
            capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
            raise BackendError(
                f"This build of kinosplat has no code for this GPU (compute capability {capability}); reinstall it "
                "from source on this machine."
            ) from error
        if "driver version is insufficient" in str(error):
            raise BackendError(
                "The NVIDIA driver is older than the CUDA toolkit this build of kinosplat needs; update the driver, or "
                "reinstall kinosplat with the toolkit of the driver."
            ) from error
        raise BackendError(f"The CUDA backend failed: {error}.") from error
