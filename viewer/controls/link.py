"""Numbers in the query of a shared link. What is missing, or is no number, is as if the link did not say it."""

from __future__ import annotations

import math
from collections.abc import Iterable

NOTHING = 1e-7
"""What is smaller was zero before somebody calculated with it."""


def to_words(*values: float) -> str:
    """Numbers as they stand in a link."""
    return ",".join("0" if abs(value) < NOTHING else f"{value:.6g}" for value in values)


def changes(now: dict[str, float], start: dict[str, float]) -> dict[str, str]:
    """Those of the numbers that are not what a page starts with."""
    return {key: to_words(value) for key, value in now.items() if value != start[key]}


def number(query: dict[str, str], key: str, low: float, high: float) -> float | None:
    """The number called `key`, brought into [low, high]."""
    values = numbers(query, key, 1)
    return None if values is None else min(max(values[0], low), high)


def numbers(query: dict[str, str], key: str, count: int) -> list[float] | None:
    """The `count` finite numbers called `key`."""
    values = _finite(query.get(key, "").split(","))
    return values if values is not None and len(values) == count else None


def _finite(words: Iterable[str]) -> list[float] | None:
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None
