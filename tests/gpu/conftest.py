"""Everything in this room needs a CUDA device."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def cuda_device() -> torch.device:
    """The current device; the test is skipped where there is none."""
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device.")
    return torch.device("cuda", torch.cuda.current_device())
