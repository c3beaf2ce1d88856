"""A real browser for the tests that need one: Debian's chromium, driven by Playwright; skipped where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from kinosplat.viewer.server import ServerOptions, ViewerServer
from kinosplat.viewer.session import Session
from kinosplat.viewer.subject import Subject
from kinosplat.viewer.training import TrainingWatch
from viewer.chromium import CHROMIUM, FLAGS, MISSING
from viewer.pages import Serve, Visit, open_page
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
def serve() -> Iterator[Serve]:
    """Opens viewers, each at a free port; they end when the pages of `visit` are closed."""
    with ExitStack() as stack:

        def opened(
            subject: Subject, watch: TrainingWatch | None = None, share_token: str | None = None
        ) -> ViewerServer:
            options = ServerOptions(port=0, share_token=share_token)
            return stack.enter_context(ViewerServer(subject, options, watch))

        yield opened


@pytest.fixture
def server(serve: Serve) -> ViewerServer:
    return serve(toy_subject())


@pytest.fixture
def visit(browser: Any, serve: Serve) -> Iterator[Visit]:
    """Opens pages of viewers; in the end they are closed, and none may have written an error or a warning."""
    visited, complaints = [], list[str]()

    def opened(server: ViewerServer, size: tuple[int, int] = (800, 600)) -> tuple[Any, Session]:
        page, session = open_page(browser, server, complaints, size)
        visited.append(page)
        return page, session

    yield opened
    for page in visited:
        page.close()
    assert not complaints
