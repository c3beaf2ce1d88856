"""Where the page is: a free port, and the addresses to print for somebody at this machine or far from it."""

from __future__ import annotations

import errno
import getpass
import os
import socket
from collections.abc import Mapping

from kinosplat.errors import InputError
from kinosplat.viewer.gate import is_loopback

N_TRIED = 100
"""Ports that are tried one after another."""
ANY = ("0.0.0.0", "::")
"""Addresses that stand for all of this machine's."""


def free_port(host: str, wanted: int) -> int:
    """`wanted`, or the next free port above it; 0 lets the system choose. InputError where there is none."""
    if not 0 <= wanted <= 65535:
        raise InputError(f"--port must be from 0 to 65535, got {wanted}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(wanted, min(wanted + N_TRIED, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) or isinstance(error, socket.gaierror):
                    raise InputError(
                        f"--host {host} is no address of this machine; use localhost, or 0.0.0.0 for all of them."
                    ) from error
                continue
            return int(probe.getsockname()[1])
    raise InputError(f"--port {wanted} and the {N_TRIED - 1} ports above it cannot be used; choose another.")


def page_address(host: str, port: int, token: str | None) -> str:
    """What to open in a browser that reaches this machine directly."""
    name = "localhost" if is_loopback(host) else _outward_address() if host in ANY else host
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def _outward_address() -> str:
    """The address this machine has on the way out; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # An address of the block reserved for documentation: the system only looks up the way there.
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def ssh_line(port: int, environment: Mapping[str, str] | None = None) -> str | None:
    """The command that brings the page to where the user sits; None when they did not come by ssh."""
    parts = (os.environ if environment is None else environment).get("SSH_CONNECTION", "").split()
    if len(parts) != 4:
        return None
    address, ssh_port = parts[2], parts[3]
    other_port = "" if ssh_port == "22" else f"-p {ssh_port} "
    return f"ssh {other_port}-L {port}:localhost:{port} {getpass.getuser()}@{address}"
