"""The one thread that renders, for all clients of a server; whose turn it is says scheduler.py."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kinosplat.render.pass_times import PassTimes
from kinosplat.viewer.draw import draw
from kinosplat.viewer.encode import PictureEncoder
from kinosplat.viewer.jobs import Job
from kinosplat.viewer.scheduler import next_turn
from kinosplat.viewer.stream import ClientStream
from kinosplat.viewer.subject import Subject


class Renderer:
    """Renders from its construction to `close`."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.encoder = PictureEncoder()
        self._streams: list[ClientStream] = []
        self._woken = threading.Condition()
        self._exclusive = threading.RLock()
        self._n_wakes = 0
        self._closed = False
        self._printed: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="kinosplat-render", daemon=True)
        self._thread.start()

    def add(self, stream: ClientStream) -> None:
        """Serve a client from now on."""
        with self._woken:
            self._streams.append(stream)
        self.wake()

    def remove(self, stream: ClientStream) -> None:
        """Serve it no more."""
        with self._woken:
            if stream in self._streams:
                self._streams.remove(stream)

    def wake(self) -> None:
        """Look again who is due."""
        with self._woken:
            self._n_wakes += 1
            self._woken.notify_all()

    @contextmanager
    def alone(self) -> Iterator[Subject]:
        """The subject for the caller alone: nothing is rendered for clients and nobody changes the model meanwhile."""
        with self._exclusive, self.subject.turn():
            yield self.subject

    def close(self) -> None:
        """End the thread."""
        with self._woken:
            self._closed = True
            self._woken.notify_all()
        self._thread.join(timeout=5.0)
        self.encoder.close()

    def _run(self) -> None:
        seen = -1
        while True:
            with self._woken:
                if self._closed:
                    return
                streams, seen = list(self._streams), self._n_wakes
            now = time.monotonic()
            stream, wait = next_turn(streams, now)
            if stream is None:
                with self._woken:
                    if self._n_wakes == seen and not self._closed:
                        self._woken.wait(wait)
                continue
            n_moving = sum(other.is_moving(now) for other in streams)
            job = stream.take_job(now, n_moving)
            if job is not None:
                self._render(stream, job)

    def _render(self, stream: ClientStream, job: Job) -> None:
        """One picture; a failure costs that picture only, and whoever wished it is told."""
        try:
            with self.alone() as subject:
                times = PassTimes()
                began = time.perf_counter()
                drawn = draw(subject, job.camera, job.look, depth=job.depth, times=times)
                wait_for(subject.device)
                render = time.perf_counter() - began
                stream.hand_over(job, drawn, render, times.seconds())
        except Exception as error:
            if str(error) not in self._printed:
                self._printed.add(str(error))
                traceback.print_exc()
            stream.fail(error)


def wait_for(device: torch.device) -> None:
    """Until everything queued on `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
