"""The page: one viser server, one rendering thread, one session for every visitor.

Binds to this machine alone unless told otherwise. A visitor who leaves is forgotten at once; one who comes back is a
new visitor. `stop` ends every thread.
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
import traceback
import warnings
from dataclasses import dataclass

import viser

from kinosplat.render.paths import look_at_point
from kinosplat.render.paths.orbit import up_direction
from kinosplat.viewer.address import free_port, page_address, ssh_line
from kinosplat.viewer.gate import Gate, installed
from kinosplat.viewer.lens import vertical_fov
from kinosplat.viewer.renderer import Renderer
from kinosplat.viewer.session import Session
from kinosplat.viewer.subject import Subject
from kinosplat.viewer.training import TrainingWatch

TICK = 0.1
"""Seconds between two looks at sliders, numbers and plots; pictures do not wait for it."""
BRAND = (47, 108, 223)


@dataclass(frozen=True)
class ServerOptions:
    """Where the page is served."""

    host: str = "localhost"
    """Address to listen on; localhost keeps it to this machine, 0.0.0.0 opens it to the network."""
    port: int = 8080
    """Port, or the next free one above it; 0 takes any."""
    share_token: str | None = None
    """Word that visitors must bring in the address; None asks for nothing."""


class ViewerServer:
    """Serves the page from its construction to `stop`; a context manager."""

    def __init__(
        self, subject: Subject, options: ServerOptions | None = None, training: TrainingWatch | None = None
    ) -> None:
        """`training` puts a panel with pause and progress on the page."""
        self.options = options or ServerOptions()
        host = "127.0.0.1" if self.options.host == "localhost" else self.options.host
        self.port = free_port(host, self.options.port)
        gate = Gate(host, self.port, self.options.share_token)
        self.subject, self.training = subject, training
        # A page may leave at any moment, also between two numbers that are written to it.
        warnings.filterwarnings("ignore", message=r"Queued a \w+ on a closed connection")
        # viser prints a box with an address that has no token and is wrong from afar; ours is printed instead.
        with installed(lambda: gate), contextlib.redirect_stdout(io.StringIO()):
            self.viser = viser.ViserServer(
                host=host, port=self.port, label=f"kinosplat · {subject.label}", verbose=False
            )
        if self.viser.get_port() != self.port:
            self.viser.stop()
            raise OSError(f"Port {self.port} was taken meanwhile; start again.")
        self._sessions: dict[int, Session] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.renderer = Renderer(subject)
        self._prepare_scene()
        self.viser.on_client_connect(self._come)
        self.viser.on_client_disconnect(self._go)
        self._ticker = threading.Thread(target=self._tick, name="kinosplat-tick", daemon=True)
        self._ticker.start()

    def __enter__(self) -> ViewerServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """What to open in a browser on this machine, or in the network where it is bound there."""
        return page_address(self.viser.get_host(), self.port, self.options.share_token)

    @property
    def sessions(self) -> list[Session]:
        """Who is here now."""
        with self._lock:
            return list(self._sessions.values())

    def announcement(self) -> list[str]:
        """Lines to print once the page can be opened."""
        lines = []
        if self.options.port not in (0, self.port):
            lines.append(f"Port {self.options.port} is taken; using {self.port}.")
        lines.append(f"Open {self.address}")
        line = ssh_line(self.port)
        if line is not None:
            lines.append(f"From afar, first run there: {line}")
        if not Gate(self.viser.get_host(), self.port).is_local and self.options.share_token is None:
            lines.append("Everybody who reaches this port can look; add --share-token to ask for a token.")
        return lines

    def wait(self) -> None:
        """Until `stop`, or KeyboardInterrupt."""
        while not self._stopped.wait(timeout=0.5):
            pass

    def stop(self) -> None:
        """Close the page and end every thread; may be called twice."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        for session in self.sessions:
            session.close()
        self.renderer.close()
        with contextlib.redirect_stdout(io.StringIO()):
            self.viser.stop()

    def _prepare_scene(self) -> None:
        """What all visitors share: theme, the axis that points up, where to start."""
        gui, subject = self.viser.gui, self.subject
        gui.configure_theme(
            dark_mode=True, show_logo=False, show_share_button=False, control_width="medium", brand_color=BRAND
        )
        # Beside the picture instead of on it, so that the middle of the picture is the middle of the scene.
        gui.main_panel.dock_right()
        with subject.turn():
            cameras = list(subject.cameras)
            up = subject.up
        first = cameras[0]
        axis = up_direction(cameras).tolist() if up is None else list(up)
        self.viser.scene.set_up_direction((axis[0], axis[1], axis[2]))
        position, forward = first.position.double().cpu(), first.forward.double().cpu()
        distance = max(float((look_at_point(cameras) - position) @ forward), 1e-2)
        start = self.viser.initial_camera
        start.position = tuple(position.tolist())
        start.look_at = tuple((position + distance * forward).tolist())
        start.fov = vertical_fov(first)
        start.near, start.far = 0.01 * distance, 1000 * distance

    def _come(self, client: viser.ClientHandle) -> None:
        session = Session(client, self.renderer, self.training)
        with self._lock:
            self._sessions[client.client_id] = session
        if client.client_id not in self.viser.get_clients():
            # Gone while the controls were being made.
            self._go(client)

    def _go(self, client: viser.ClientHandle) -> None:
        with self._lock:
            session = self._sessions.pop(client.client_id, None)
        if session is not None:
            session.close()

    def _tick(self) -> None:
        told: set[str] = set()
        while not self._stopped.wait(timeout=TICK):
            for session in self.sessions:
                try:
                    session.tick(time.monotonic())
                except Exception as error:
                    if str(error) not in told:
                        told.add(str(error))
                        traceback.print_exc()
