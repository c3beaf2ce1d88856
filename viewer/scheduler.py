"""Whose picture is rendered next.

Clients that move come before clients whose picture is only to become sharper, and among equals the one that has waited
longest since its last turn. So each of n moving clients gets every n-th turn, whatever the others do. A client whose
page has not confirmed its last pictures is not due, and costs the others nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Due(Protocol):
    """Someone who may want a picture."""

    last_turn: float
    """When it had its last turn, seconds."""

    def due(self, now: float) -> float | None:
        """When it may have its next picture, which may be in the past; None while it wants or can take none."""

    def is_moving(self, now: float) -> bool:
        """Whether it waits for the picture to follow the hand."""


D = TypeVar("D", bound=Due)


def next_turn(clients: Iterable[D], now: float) -> tuple[D | None, float | None]:
    """The client to serve now, if there is one, else the seconds until one is due (None if nobody is)."""
    ready: list[D] = []
    earliest: float | None = None
    for client in clients:
        when = client.due(now)
        if when is None:
            continue
        if when <= now:
            ready.append(client)
        elif earliest is None or when < earliest:
            earliest = when
    if ready:
        return min(ready, key=lambda client: (not client.is_moving(now), client.last_turn)), 0.0
    return None, None if earliest is None else earliest - now
