"""Real data for tests that want it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def real_data() -> Path:
    """The folder of real scenes; the test is skipped where there is none."""
    folder = os.environ.get("KINOSPLAT_DATA")
    if not folder:
        pytest.skip("KINOSPLAT_DATA is not set, so there are no real scenes to read.")
    return Path(folder)
