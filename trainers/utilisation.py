"""The share of the time in which a GPU ran something, as its driver counts it (NVML).

The driver says for how much of a short time past (a sixth of a second to a second) at least one kernel was running. It
is asked about once a second, and whoever else uses the device is counted too. Where there is no NVML, or it refuses,
nothing is known and nothing is reported.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

import torch

SECONDS_BETWEEN = 1.0
"""Asking takes up to a millisecond, in which nothing is queued."""


class _Rates(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class Utilisation:
    """Samples of a device; `library` is NVML's, found by itself."""

    def __init__(self, device: torch.device, library: Any = None) -> None:
        self._samples: list[float] = []
        self._next = time.monotonic() + SECONDS_BETWEEN
        self._handle: ctypes.c_void_p | None = None
        if device.type == "cuda":
            self._library = library or _load()
            uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            handle = ctypes.c_void_p()
            if (
                self._library is not None
                and self._library.nvmlInit_v2() == 0
                and self._library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) == 0
            ):
                self._handle = handle

    def sample(self) -> None:
        """Ask, if the last time was long enough ago."""
        now = time.monotonic()
        if self._handle is None or now < self._next:
            return
        self._next = now + SECONDS_BETWEEN
        rates = _Rates()
        if self._library.nvmlDeviceGetUtilizationRates(self._handle, ctypes.byref(rates)) == 0:
            self._samples.append(rates.gpu / 100.0)

    @property
    def mean(self) -> float | None:
        """Mean of the samples, in [0, 1]; None when there are none."""
        return sum(self._samples) / len(self._samples) if self._samples else None


def _load() -> Any:
    for name in ("libnvidia-ml.so.1", "nvml.dll"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
