"""A page beside a run sees it learn and changes nothing about it."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kinosplat.scenes import load_scene
from kinosplat.trainers.callbacks import Callbacks
from kinosplat.trainers.checkpoint import checkpoint_path
from kinosplat.trainers.config import TrainConfig
from kinosplat.trainers.method import Method
from kinosplat.trainers.methods.config import FourDGS
from kinosplat.trainers.run import train
from kinosplat.trainers.training import scene_for
from kinosplat.watching import Watching

from .toys import Toy, tiny_config

pytest.importorskip("viser", reason="viser is not installed: pip install 'kinosplat[viewer]'")


class Visited(Watching):
    """Somebody looks at the page from the first step on."""

    def __init__(self, config: TrainConfig) -> None:
        from kinosplat.viewer.server import ServerOptions

        self.said: list[str] = []
        self.stop = threading.Event()
        self.visitor: threading.Thread | None = None
        self.n_seen = 0
        super().__init__(
            Callbacks(), lambda: scene_for(config, load_scene(config.scene)), ServerOptions(port=0), self.said.append
        )

    def _look(self) -> None:
        from viewer.lines import confirm, connected
        from websockets.exceptions import ConnectionClosed

        assert self.server is not None
        # The page may end before the visitor has noticed that it should.
        with contextlib.suppress(ConnectionClosed), connected(self.server) as line:
            confirm(line, self.stop)

    def pause(self, method: Method, step: int) -> None:
        super().pause(method, step)
        assert self.server is not None
        if self.visitor is None:
            self.visitor = threading.Thread(target=self._look, daemon=True)
            self.visitor.start()
            # Whoever comes needs the model for a moment, which they only get between two steps.
            while not self.server.sessions:
                super().pause(method, step)
            self.server.sessions[0].change_playback(lambda clock, now: clock.play(now))
        self.n_seen = self.server.sessions[0].stream.meter.n_confirmed


def test_ctrl_c_closes_a_page_that_stayed_open(monkeypatch: pytest.MonkeyPatch) -> None:
    class Server:
        def wait(self) -> None:
            raise KeyboardInterrupt

    watching = Visited(TrainConfig())
    monkeypatch.setattr(watching, "server", Server())
    watching.stay()
    assert watching.said == ["The page stays open; Ctrl-C ends it.", "The page is closed."]


def test_a_run_with_a_visitor_is_the_run_without_one(moving_toy: Toy, tmp_path: Path) -> None:
    config = tiny_config(FourDGS(), moving_toy)
    config = replace(config, image=replace(config.image, background="white"))
    train(config, moving_toy.scene(), tmp_path / "alone")
    watching = Visited(config)
    train(config, moving_toy.scene(), tmp_path / "visited", watching)
    assert watching.n_seen > 2, "The visitor saw the model while it was learned."
    assert watching.said[0].startswith("Open http://localhost:")
    assert watching.server is not None
    assert watching.server.training is not None
    assert watching.server.training.state == "finished"
    assert watching.server.subject.version == config.schedule.steps
    # What held-out views are drawn over.
    assert watching.server.subject.background.tolist() == [1.0, 1.0, 1.0]
    watching.stop.set()
    watching.close()
    alone, visited = (load_file(checkpoint_path(tmp_path / name)) for name in ("alone", "visited"))
    assert alone.keys() == visited.keys()
    for name, tensor in alone.items():
        assert torch.equal(tensor, visited[name]), name
