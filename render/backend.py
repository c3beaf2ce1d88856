"""Which native backend there is, and the passes of the one that fits a device.

A backend is two modules: `native_cpu`, or its CUDA twin, has the frame (`render_forward`, `render_backward`) and owns
the layout of its scratch memory; `native_cpu_step` has what else a training step asks for, from the loss to Adam.
Asking for a backend this build or machine lacks raises BackendError, which says what to install.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

from kinosplat.errors import BackendError

MISSING_NATIVE = (
    "The native module kinosplat._native is not built; "
    "run 'pip install .' in the checkout with a C++ compiler installed."
)
MISSING_CUDA = (
    "This build of kinosplat has no CUDA backend; install the CUDA toolkit and reinstall kinosplat, or use the CPU."
)
MISSING_GPU = "PyTorch finds no usable CUDA device; install a driver and a CUDA build of PyTorch, or use the CPU."
MISSING_GSPLAT = "The gsplat rasterizer is not installed; run 'pip install gsplat', or use the native rasterizer."
GSPLAT_NEEDS_CUDA = "The gsplat rasterizer draws on a CUDA device only; use one, or the native rasterizer."


def load_native() -> ModuleType:
    """The compiled module; raises BackendError when it is missing."""
    try:
        from kinosplat import _native
    except ModuleNotFoundError as error:
        raise BackendError(MISSING_NATIVE) from error
    except ImportError as error:
        raise BackendError(str(error)) from error
    return _native


def call_native(function: Callable[..., Any], **arguments: Any) -> Any:
    """Call a pass of the native module.

    Tensors go in as DLPack capsules: 2 microseconds each, where asking a tensor for its own from C++ takes 11.
    """
    return function(
        **{name: _capsule(value) if isinstance(value, Tensor) else value for name, value in arguments.items()}
    )


def call_cpu(name: str, **arguments: Any) -> Any:
    """Call a pass of the CPU backend on as many threads as torch has."""
    return call_native(getattr(load_native().cpu, name), **arguments, n_threads=torch.get_num_threads())


def _capsule(tensor: Tensor) -> Any:
    return to_dlpack(tensor.detach() if tensor.requires_grad else tensor)


@cache
def passes_for(device: torch.device) -> ModuleType:
    """The frame's passes for tensors on `device`; raises BackendError when there are none."""
    if _is_cuda(device):
        from kinosplat.render import native_cuda

        return native_cuda
    from kinosplat.render import native_cpu

    return native_cpu


@cache
def step_passes_for(device: torch.device) -> ModuleType:
    """The passes of a training step for tensors on `device`; raises BackendError when there are none."""
    if _is_cuda(device):
        from kinosplat.render import native_cuda_step

        return native_cuda_step
    from kinosplat.render import native_cpu_step

    return native_cpu_step


def _is_cuda(device: torch.device) -> bool:
    native = load_native()
    if device.type == "cuda" and not native.has_cuda:
        raise BackendError(MISSING_CUDA)
    if device.type not in ("cpu", "cuda"):
        raise BackendError(f"Tensors on '{device.type}' cannot be rendered; move them to the CPU or a CUDA device.")
    return device.type == "cuda"


def check_gsplat(device: torch.device) -> None:
    """Raise BackendError where gsplat cannot draw what is on `device`."""
    if device.type != "cuda":
        raise BackendError(GSPLAT_NEEDS_CUDA)
    if not find_spec("gsplat"):
        raise BackendError(MISSING_GSPLAT)


def load_cuda() -> tuple[ModuleType, ModuleType]:
    """The native module's CUDA part and how its passes are called (cuda_call); BackendError where there is none."""
    native = load_native()
    if not native.has_cuda:
        raise BackendError(MISSING_CUDA)
    from kinosplat.render import cuda_call

    return native.gpu, cuda_call


def render_backends() -> dict[str, str | None]:
    """Every rasterizer by name, with None where it can be used here, else one sentence on what is missing."""
    try:
        has_cuda, missing = load_native().has_cuda, None
    except BackendError as error:
        has_cuda, missing = False, str(error)
    if missing is None and not has_cuda:
        cuda: str | None = MISSING_CUDA
    else:
        cuda = missing or (None if torch.cuda.is_available() else MISSING_GPU)
    gsplat = None
    try:
        check_gsplat(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    except BackendError as error:
        gsplat = str(error)
    return {"native-cpu": missing, "native-cuda": cuda, "reference": None, "gsplat": gsplat}
