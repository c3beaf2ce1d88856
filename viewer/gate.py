"""Who may talk to the server: the page it served itself, under a name this machine answers to, with the token if any.

Every request passes here before viser sees it. A page of another origin gets nothing: its websockets are refused by
their Origin, its requests by Sec-Fetch-Site, and a name that somebody made point here (DNS rebinding) by its Host.
The token comes once in the address and then in a cookie that no script can read, so it does not stay in
the address bar.
"""

from __future__ import annotations

import contextlib
import hmac
import http
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import websockets.asyncio.server
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from kinosplat.errors import BackendError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SECURITY_HEADERS = {
    "X-Frame-Options": "SAMEORIGIN",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Verdict:
    """What to answer instead of going on."""

    status: http.HTTPStatus
    """403 or 303."""
    text: str
    """One sentence for whoever opened the page."""
    location: str | None = None
    """Where a 303 leads."""
    cookie: str | None = None
    """Set-Cookie of a 303."""


@dataclass(frozen=True)
class Gate:
    """The rules of one server."""

    host: str
    """Address it is bound to."""
    port: int
    """In the name of the cookie, because browsers share cookies between ports."""
    token: str | None = None
    """What visitors must bring; None asks for nothing."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    def decide(self, path: str, headers: Headers) -> Verdict | None:
        """None to go on; `path` may have a query."""
        host = headers.get("Host", "")
        address = urlsplit(path)
        wants_socket = headers.get("Upgrade", "").lower() == "websocket"
        given = dict(parse_qsl(address.query)).get("token")
        has_token = self._is_token(given) or self._is_token(self._cookie(headers))
        if self.token is not None and not has_token:
            return Verdict(
                http.HTTPStatus.FORBIDDEN, "This scene asks for a token; open the whole address that was printed."
            )
        if self.token is None and not self._answers_to(host):
            return Verdict(http.HTTPStatus.FORBIDDEN, "This server does not answer to that name; use its address.")
        origin = headers.get("Origin")
        if wants_socket and origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return Verdict(http.HTTPStatus.FORBIDDEN, "A page of another origin may not connect.")
        if headers.get("Sec-Fetch-Site", "none") == "cross-site" and headers.get("Sec-Fetch-Mode") != "navigate":
            return Verdict(http.HTTPStatus.FORBIDDEN, "A page of another origin gets nothing.")
        if self.token is not None and not wants_socket and self._is_token(given):
            kept = [(name, value) for name, value in parse_qsl(address.query) if name != "token"]
            # A path of several slashes would be read as the name of another host.
            place = "/" + address.path.lstrip("/") + (f"?{urlencode(kept)}" if kept else "")
            cookie = f"{self._cookie_name}={self.token}; Path=/; HttpOnly; SameSite=Strict"
            return Verdict(http.HTTPStatus.SEE_OTHER, "Come in.", place, cookie)
        return None

    @property
    def _cookie_name(self) -> str:
        return f"kinosplat_{self.port}"

    def _cookie(self, headers: Headers) -> str | None:
        try:
            morsel = SimpleCookie(headers.get("Cookie", "")).get(self._cookie_name)
        except CookieError:
            return None
        return None if morsel is None else morsel.value

    def _is_token(self, given: str | None) -> bool:
        return self.token is not None and given is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def _answers_to(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in LOOPBACK or name.endswith(".localhost"):
            return True
        if self.is_local:
            return False
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(name)
            return True
        return name in {self.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}


def is_loopback(host: str) -> bool:
    """Whether an address to bind to is reached from this machine alone."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


@contextlib.contextmanager
def installed(gate: Callable[[], Gate]) -> Iterator[None]:
    """While a viser server is made inside, put the gate before it; BackendError if that viser cannot be guarded.

    viser has no place for this, so the function it serves with is wrapped for that moment. `gate` is asked at every
    request, because the port is known only once the server stands.
    """
    module: Any = websockets.asyncio.server
    original = module.serve
    n_served = 0

    def serve(*arguments: Any, process_request: Any = None, **options: Any) -> Any:
        nonlocal n_served
        n_served += 1

        async def guarded(connection: ServerConnection, request: Request) -> Response | None:
            verdict = gate().decide(request.path, request.headers)
            if verdict is not None:
                return _response(verdict)
            response = None if process_request is None else process_request(connection, request)
            if isinstance(response, Awaitable):
                response = await response
            if response is not None:
                for name, value in SECURITY_HEADERS.items():
                    response.headers[name] = value
            return response

        return original(*arguments, process_request=guarded, **options)

    module.serve = serve
    try:
        yield
    finally:
        module.serve = original
    if n_served == 0:
        raise BackendError(
            "This version of viser cannot be guarded; install one that works: pip install 'viser==1.1.1'."
        )


def _response(verdict: Verdict) -> Response:
    body = f"{verdict.text}\n".encode()
    headers = Headers(
        {**SECURITY_HEADERS, "Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
    )
    if verdict.location is not None:
        headers["Location"] = verdict.location
    if verdict.cookie is not None:
        headers["Set-Cookie"] = verdict.cookie
    return Response(int(verdict.status), verdict.status.phrase, headers, body)
