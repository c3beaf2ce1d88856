"""A real browser for the tests that need one: Debian's chromium, driven by Playwright; skipped where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kinosplat.viewer.server import ServerOptions, ViewerServer
from viewer.chromium import CHROMIUM, FLAGS, MISSING
from viewer.toys import toy_subject


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
    )
    if CHROMIUM is None:
        pytest.skip(MISSING)
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def server() -> Iterator[ViewerServer]:
    with ViewerServer(toy_subject(), ServerOptions(port=0)) as made:
        yield made


@pytest.fixture
def complaints() -> list[str]:
    """What pages wrote to their console as errors or warnings."""
    return []
