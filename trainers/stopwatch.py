"""Adds up what the calls of a function take."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Stopwatch:
    """Wall time of the functions it was given, all calls together."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[P, R]) -> Callable[P, R]:
        """The same function, watched."""

        @functools.wraps(function)
        def watched(*arguments: P.args, **keywords: P.kwargs) -> R:
            began = time.monotonic()
            try:
                return function(*arguments, **keywords)
            finally:
                self.seconds += time.monotonic() - began

        return watched
