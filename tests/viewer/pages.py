"""What tests do with a page in a real browser: open it, wait for its picture, use its controls, look at it.

With $KINOSPLAT_SCREENSHOTS the pictures are kept in that folder, to be looked at.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kinosplat.viewer.server import ViewerServer
from kinosplat.viewer.session import Session

PATIENCE = 60.0
"""Seconds; a browser without a GPU on a busy machine takes its time."""
HARMLESS = ("GPU stall due to ReadPixels", "THREE.Clock: This module has been deprecated")


Serve = Callable[..., ViewerServer]
"""The fixture `serve`."""
Visit = Callable[..., tuple[Any, Session]]
"""The fixture `visit`."""


def open_page(browser: Any, server: ViewerServer, complaints: list[str], size: tuple[int, int]) -> tuple[Any, Session]:
    """A page that shows its first picture of full quality, and the session it belongs to.

    What it writes to its console as an error or a warning is added to `complaints`.
    """
    known = {session.client.client_id for session in server.sessions}
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})

    def note(message: Any) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in HARMLESS):
            complaints.append(message.text)

    page.set_default_timeout(1000 * PATIENCE)
    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(server.address)

    def newcomer() -> Session | None:
        return next((s for s in server.sessions if s.client.client_id not in known), None)

    assert wait_for(page, lambda: newcomer() is not None), "The page never connected."
    session = newcomer()
    assert session is not None
    assert settled(page, session), "The page never got a full picture."
    return page, session


def wait_for(page: Any, condition: Any) -> bool:
    """Like `wait_until`, while the browser's events are handled."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return True
        page.wait_for_timeout(50)
    return bool(condition())


def settled(page: Any, session: Session) -> bool:
    """Whether the newest picture is of full size and on the screen."""

    def is_full() -> bool:
        last, wished = session.stream.meter.last(), session.stream.wished
        now = time.monotonic()
        return (
            last is not None
            and wished is not None
            and last.width == wished.camera.width
            and not session.stream.is_moving(now)
            and session.stream.due(now) is None
        )

    reached = wait_for(page, is_full)
    page.wait_for_timeout(700)
    return reached


def screenshot(page: Any, name: str) -> np.ndarray:
    """(H, W, 3) pixels of the whole page."""
    content = page.screenshot()
    folder = os.environ.get("KINOSPLAT_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.png").write_bytes(content)
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(float)


def control(page: Any, label: str) -> Any:
    """The inputs that stand beside a label; of a slider the last one is its number."""
    return page.locator(f"//label[.='{label}']/ancestor::*[.//input][1]//input >> visible=true")


def enter(page: Any, label: str, value: str) -> None:
    """Type a number beside a label."""
    box = control(page, label).last
    box.fill(value)
    box.press("Enter")


def choose(page: Any, label: str, option: str) -> None:
    """Take an option of a list, which closes again where the panel scrolls while it opens."""
    wanted = page.get_by_role("option", name=option, exact=True).locator("visible=true")
    for _ in range(5):
        control(page, label).first.click()
        page.wait_for_timeout(300)
        if wanted.count():
            break
    wanted.click()


def click_in_the_middle(page: Any, condition: Any) -> bool:
    """Click on the object of viser's in the middle of the scene until `condition` is true.

    The page looks once a frame what is under the pointer, and a slow page has fewer pixels than it is wide.
    """
    box = page.locator("canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def clicked() -> bool:
        page.mouse.move(x - 40, y)
        page.mouse.move(x, y)
        page.wait_for_timeout(500)
        page.mouse.click(x, y)
        page.wait_for_timeout(1000)
        return bool(condition())

    return wait_for(page, clicked)


def press(page: Any, name: str) -> None:
    """Click the button of that name."""
    page.get_by_role("button", name=name, exact=True).click()


def saved(page: Any, button: str) -> Path:
    """The file that a button lets the browser download."""
    with page.expect_download(timeout=1000 * PATIENCE) as download:
        press(page, button)
    return Path(download.value.path())


def upload(page: Any, button: str, file: Path) -> None:
    """Give a file to a button that asks for one."""
    with page.expect_file_chooser() as chooser:
        press(page, button)
    chooser.value.set_files(str(file))
