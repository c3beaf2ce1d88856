"""Work on several views at once, rather than with several threads on every operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_n_workers: ContextVar[int] = ContextVar("n_workers", default=1)


@contextmanager
def views_in_parallel() -> Iterator[None]:
    """Inside, operations on the CPU stay on their thread and `each_view` uses as many threads as torch would.

    The operations are small: sharing out every single one gains little, and costs twenty times what it should when
    something else keeps the cores busy (measured on two cores).
    """
    n_threads = torch.get_num_threads()
    token = _n_workers.set(n_threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
        _n_workers.reset(token)


def each_view(work: Callable[[int], None], views: Iterable[int], device: torch.device) -> None:
    """Call `work` for every view: on a CPU in several threads inside `views_in_parallel`, else one after the other."""
    n_workers = _n_workers.get() if device.type == "cpu" else 1
    if n_workers == 1:
        for view in views:
            work(view)
        return
    with ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in pool.map(work, views):
            pass


def each_group(work: Callable[[list[int]], None], views: Iterable[int], n_at_once: int, device: torch.device) -> None:
    """Call `work` for groups of at most `n_at_once` views on a GPU, and for one at a time as `each_view` does on a
    CPU.
    """
    if device.type == "cpu":
        each_view(lambda view: work([view]), views, device)
        return
    remaining = list(views)
    size = max(n_at_once, 1)
    for i in range(0, len(remaining), size):
        work(remaining[i : i + size])
