"""Checkpoints written beside training: a copy is taken between two steps, and a thread brings it to the disk."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import torch

from kinosplat.errors import InputError
from kinosplat.scenes import free_memory_bytes
from kinosplat.trainers.checkpoint import Checkpoint, save_checkpoint

ROOM = 2
"""A copy is taken where so many times its bytes are free: memory that a GPU copies to comes in powers of two."""


class CheckpointWriter(AbstractContextManager["CheckpointWriter"]):
    """At most one checkpoint is on its way; what goes wrong with it is raised in the thread that trains, once.

    A context manager that waits for the one on its way.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._on_its_way: tuple[Future[None], Callable[[], None]] | None = None

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.wait()
            return
        # What ended training is the error to show.
        with suppress(InputError):
            self.wait()

    def begin(self, path: Path, checkpoint: Checkpoint, written: Callable[[], None] = lambda: None) -> None:
        """Write `checkpoint` as it is now; its tensors may change once this returns.

        `written` is called by `poll` or `wait` when it is on the disk. Waits for the one before. Where there is no
        memory for a copy, it is on the disk when this returns.
        """
        self.wait()
        try:
            held = _Held(checkpoint)
        except MemoryError:
            save_checkpoint(path, checkpoint)
            written()
        else:
            self._on_its_way = self._thread.submit(held.save, path), written

    def poll(self) -> None:
        """Take note of what is done; costs next to nothing, and may raise as `wait` does."""
        if self._on_its_way is not None and self._on_its_way[0].done():
            self.wait()

    def wait(self) -> None:
        """Return when nothing is on its way any more; an InputError when it could not be written."""
        if self._on_its_way is None:
            return
        (future, written), self._on_its_way = self._on_its_way, None
        future.result()
        written()


class _Held:
    """A copy of a checkpoint in the host's memory; from a GPU it arrives while training goes on."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Raises MemoryError when there is no room for it."""
        if ROOM * sum(tensor.nbytes for tensor in checkpoint.tensors.values()) > free_memory_bytes():
            raise MemoryError
        try:
            tensors = {
                name: torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
                for name, tensor in checkpoint.tensors.items()
            }
        except RuntimeError as error:
            raise MemoryError from error
        for name, tensor in checkpoint.tensors.items():
            tensors[name].copy_(tensor.detach(), non_blocking=True)
        self._checkpoint = Checkpoint(tensors, copy.deepcopy(checkpoint.metadata))
        device = next((tensor.device for tensor in checkpoint.tensors.values() if tensor.is_cuda), None)
        self._copied = None if device is None else torch.cuda.current_stream(device).record_event()

    def save(self, path: Path) -> None:
        """Write it, once it has arrived."""
        if self._copied is not None:
            self._copied.synchronize()
        save_checkpoint(path, self._checkpoint)
