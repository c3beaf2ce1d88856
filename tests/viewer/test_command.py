"""`kinosplat view` as a process: from its start to a page, and what is left when it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinosplat.compression.kino import Metadata, write_kino
from viewer.pages import PATIENCE, screenshot, wait_for
from viewer.toys import toy_gaussians, wait_until


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "toy.kino"
    write_kino(path, toy_gaussians(), metadata=Metadata(fps=10.0, duration=1.0, up=(0.0, 0.0, 1.0)))
    return path


def heed_signals() -> None:
    """Tests in the background of a shell, or under nohup, ignore signals that a child would ignore as they do."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def viewing(file: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process in a session of its own, as a terminal's, and the address that it printed."""
    command = [sys.executable, "-P", "-m", "kinosplat", "view", str(file), "--device", "cpu", "--port", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_signals
    ) as process:
        try:
            assert process.stdout is not None
            opened = next((m for line in process.stdout if (m := re.match(r"Open (http\S+)", line))), None)
            assert opened is not None
            yield process, opened[1]
        finally:
            if process.poll() is None:
                process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def nobody_is_left(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_page_is_served_where_port_says_until_ctrl_c(file: Path, browser: Any) -> None:
    port = free_port()
    with viewing(file, port) as (process, address):
        assert address == f"http://localhost:{port}/"
        page = browser.new_page(viewport={"width": 800, "height": 600})
        page.goto(address)
        page.get_by_text("toy.kino").first.wait_for(timeout=1000 * PATIENCE)
        # Blobs of many colours stand in the middle of the picture: 18.8; an empty page is of one.
        assert wait_for(page, lambda: np.std(screenshot(page, "command")[250:350, 200:300]) > 10)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE) == 0
        assert process.stdout is not None
        assert process.stdout.read() == "Closed.\n"
        assert wait_until(lambda: nobody_is_left(process.pid))
        assert wait_until(lambda: is_free(port))
        page.close()


def test_closing_the_terminal_ends_everything(file: Path) -> None:
    port = free_port()
    with viewing(file, port) as (process, address):
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            assert answer.status == 200
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGHUP)
        assert process.wait(timeout=PATIENCE) == -signal.SIGHUP
        # 0.1 s when nothing else runs.
        assert time.monotonic() - began < 10
        assert wait_until(lambda: nobody_is_left(process.pid))
        assert wait_until(lambda: is_free(port))


def test_help_does_not_wait_for_what_renders() -> None:
    code = """import sys
from kinosplat.cli import main
try:
    main(["view", "--help"])
except SystemExit:
    print(sorted({"torch", "viser"} & set(sys.modules)))"""
    answer = subprocess.run([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert answer.stdout.startswith("usage: ")
    assert answer.stdout.splitlines()[-1] == "[]"
