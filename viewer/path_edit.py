"""The key frames of a path while it is being made: what is chosen, what changes, and what was before.

Key frames are in the order of their seconds. What cannot be done raises InputError, which the page shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kinosplat.errors import InputError
from kinosplat.render.camera import Camera
from kinosplat.render.paths import CameraPath, Keyframe

REMEMBERED = 100
"""Changes that can be undone."""


@dataclass(frozen=True)
class _State:
    keys: tuple[Keyframe, ...] = ()
    chosen: int | None = None


class PathEdit:
    """Key frames, of which one may be chosen."""

    def __init__(self) -> None:
        self._now = _State()
        self._before: list[_State] = []

    @property
    def keys(self) -> tuple[Keyframe, ...]:
        """All of them, in time."""
        return self._now.keys

    @property
    def chosen(self) -> int | None:
        """Place of the chosen one; None while there is none at all."""
        return self._now.chosen

    def path(self, seconds_to_start: float | None) -> CameraPath:
        """The path through all of them; `seconds_to_start` closes it, if there are two at least."""
        if not self.keys:
            raise InputError("The path has no key frame yet; add views first.")
        return CameraPath(self.keys, seconds_to_start if len(self.keys) > 1 else None)

    def add(self, camera: Camera, seconds: float) -> None:
        """One more at the end, `seconds` after the last; it becomes the chosen one."""
        last = self.keys[-1].seconds + seconds if self.keys else 0.0
        self._become((*self.keys, Keyframe.from_camera(camera, last)), len(self.keys))

    def choose(self, place: int) -> Keyframe:
        """Let that one be the chosen one; it is returned."""
        if not 0 <= place < len(self.keys):
            raise InputError(f"There is no key frame {place + 1}.")
        self._now = replace(self._now, chosen=place)
        return self.keys[place]

    def replace(self, camera: Camera) -> None:
        """The chosen one is the view of `camera` from now on, and its moment of the clip; its second stays."""
        self._change(Keyframe.from_camera(camera, self._key().seconds))

    def move(self, seconds: float) -> None:
        """The chosen one is passed at another second, which may bring it before or behind others."""
        key = replace(self._key(), seconds=seconds)
        if any(other.seconds == seconds for other in self._others()):
            raise InputError(f"Another key frame is at {seconds:g} s; choose another second.")
        self._change(key)

    def set_moment(self, time: float) -> None:
        """The chosen one looks at another moment of the clip."""
        self._change(replace(self._key(), time=time))

    def delete(self) -> None:
        """Without the chosen one; the one before it is chosen then."""
        self._key()
        others = self._others()
        self._become(others, max((self.chosen or 0) - 1, 0) if others else None)

    def become(self, keys: tuple[Keyframe, ...]) -> None:
        """Other key frames instead, such as none, or those of a file."""
        self._become(keys, 0 if keys else None)

    def undo(self) -> None:
        """Take back the last change."""
        if self._before:
            self._now = self._before.pop()

    def _key(self) -> Keyframe:
        if self.chosen is None:
            raise InputError("The path has no key frame yet; add views first.")
        return self.keys[self.chosen]

    def _others(self) -> tuple[Keyframe, ...]:
        return tuple(key for place, key in enumerate(self.keys) if place != self.chosen)

    def _change(self, key: Keyframe) -> None:
        keys = tuple(sorted((*self._others(), key), key=lambda other: other.seconds))
        self._become(keys, keys.index(key))

    def _become(self, keys: tuple[Keyframe, ...], chosen: int | None) -> None:
        self._before = [*self._before[1 - REMEMBERED :], self._now]
        self._now = _State(keys, chosen)
