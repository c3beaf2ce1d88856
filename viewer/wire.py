"""The line to one page: pictures go out already encoded, and the page confirms each one.

viser's own `set_background_image` knows no WebP, encodes depth at full size, and never says whether a picture arrived.
So this file, and no other, sends viser's messages itself. A confirmation is the answer to a question about the page's
local storage that travels right behind the picture: the page handles messages in order, so it has the picture by then
(it may still be decoding it).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from urllib.parse import urlsplit

import viser
from viser import _messages as messages

from kinosplat.viewer.encode import Coding

STORAGE_PREFIX = "viser-user:"
"""What viser's page puts before the names in its local storage."""
FOLD_ON_PHONES = """(() => {
  // Once a page: one that lost its line for a moment keeps its panel as it is.
  if (window.kinosplatFolded || !matchMedia("(max-width: 36em)").matches) return;
  window.kinosplatFolded = true;
  let tries = 50;
  const timer = setInterval(() => {
    const bars = [...document.querySelectorAll('div[style*="cursor: pointer"]')];
    const bar = bars.find((e) => e.style.height === "3.5em" && e.closest('div[style*="position: fixed"]'));
    if (bar) {
      const sheet = bar.closest('div[style*="position: fixed"]');
      sheet.style.width = "100%";
      sheet.style.maxHeight = "48%";
      bar.parentElement.style.width = "100%";
      // The grip that says: this can be pulled up.
      bar.style.background = "linear-gradient(#8888, #8888) 50% 5px / 40px 4px no-repeat";
      bar.click();
    }
    if (bar || !--tries) clearInterval(timer);
  }, 100);
})()"""
"""The sheet at the bottom of a narrow page starts open, hides more than half of the scene, and no command folds it.

So its own bar is clicked, once, and the sheet gets the width of the page, and less than half of its height: the middle
of the scene is seen while one changes how it is drawn. Where a later viser looks different, nothing
happens. The width is the one from which on viser has no sheet.
"""


class PageWire:
    """Sends to the page of `client`; `confirmed(number)` is called on viser's thread for every picture that arrived."""

    def __init__(self, client: viser.ClientHandle, confirmed: Callable[[int], None]) -> None:
        self._client = client
        self._connection = client._websock_connection
        self._confirmed = confirmed
        self._connection.register_handler(messages.LocalStorageGetItemResponseMessage, self._on_answer)

    def send_picture(self, number: int, picture: bytes, coding: Coding, depth: bytes | None) -> None:
        """Show `picture` behind viser's own objects, or between them where `depth` (PNG) says so."""
        message = messages.BackgroundImageMessage(format=coding, rgb_data=picture, depth_data=depth)  # type: ignore[arg-type]
        with self._client.atomic():
            self._connection.queue_message(message)
            self._connection.queue_message(
                messages.LocalStorageGetItemRequestMessage(key="picture", request_uuid=f"kinosplat-{number}")
            )
        self._client.flush()

    def run(self, javascript: str) -> None:
        """Run code of this package's in the page; what came from outside is only ever a quoted string in it."""
        self._connection.queue_message(messages.RunJavascriptMessage(source=javascript))
        self._client.flush()

    def fold_on_phones(self) -> None:
        """Fold the controls of a page as narrow as a phone's, so that the scene is seen first."""
        self.run(FOLD_ON_PHONES)

    def copy(self, text: str) -> None:
        """Put `text` on the clipboard, where the page may (over https or on localhost)."""
        self.run(f"if (navigator.clipboard) navigator.clipboard.writeText({json.dumps(text)}).catch(() => {{}})")

    def address(self) -> str:
        """Scheme, host and path of the page as its browser shows them, without the query; empty if it does not say."""
        self.run(f"localStorage.setItem('{STORAGE_PREFIX}address', window.location.href)")
        with contextlib.suppress(RuntimeError, TimeoutError):
            href = urlsplit(self._client.local_storage.get_item("address", timeout=5.0) or "")
            if href.scheme in ("http", "https"):
                return f"{href.scheme}://{href.netloc}{href.path}"
        return ""

    def query(self) -> str:
        """The query of the page's address, which a shared link restores a view by."""
        self.run(f"localStorage.setItem('{STORAGE_PREFIX}address', window.location.href)")
        with contextlib.suppress(RuntimeError, TimeoutError):
            return urlsplit(self._client.local_storage.get_item("address", timeout=5.0) or "").query
        return ""

    def _on_answer(self, client_id: int, message: messages.LocalStorageGetItemResponseMessage) -> None:
        name, _, number = message.request_uuid.partition("-")
        if name == "kinosplat" and number.isdigit():
            self._confirmed(int(number))
