"""The clock of a clip: where it is at any moment, playing or not. Pure arithmetic; callers bring the time of day."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Playback:
    """A clip from `first` to `last` seconds and how it is being played."""

    first: float
    """Seconds."""
    last: float
    """Seconds, above `first`."""
    fps: float
    """Frames a second of the clip: what one step is."""
    speed: float = 1.0
    """Seconds of the clip a second; negative plays backwards."""
    loop: bool = True
    """Begin again at the other end."""
    started: float | None = None
    """Time of day at which it stood at `anchor`; None while it stands."""
    anchor: float = 0.0
    """Moment of the clip, seconds."""

    @property
    def is_playing(self) -> bool:
        """Whether it moves by itself."""
        return self.started is not None

    def at(self, now: float) -> float:
        """Moment of the clip at the time of day `now`, in [first, last]."""
        if self.started is None:
            return self.anchor
        moment = self.anchor + (now - self.started) * self.speed
        length = self.last - self.first
        if self.loop:
            # One frame longer than the clip, so that the last frame is seen as long as the others.
            return min(self.first + (moment - self.first) % (length + 1 / self.fps), self.last)
        return min(max(moment, self.first), self.last)

    def has_ended(self, now: float) -> bool:
        """Whether it plays no more because it does not begin again."""
        if self.started is None or self.loop:
            return False
        moment = self.anchor + (now - self.started) * self.speed
        return moment >= self.last if self.speed > 0 else moment <= self.first

    def play(self, now: float) -> Playback:
        """Playing from where it is; from the beginning if it stands at the end."""
        moment = self.at(now)
        if not self.loop and self.speed > 0 and moment >= self.last - 1e-6:
            moment = self.first
        if not self.loop and self.speed < 0 and moment <= self.first + 1e-6:
            moment = self.last
        return replace(self, started=now, anchor=moment)

    def pause(self, now: float) -> Playback:
        """Standing where it is."""
        return replace(self, started=None, anchor=self.at(now))

    def seek(self, moment: float, now: float) -> Playback:
        """At another moment, playing on if it played."""
        moment = min(max(moment, self.first), self.last)
        return replace(self, anchor=moment, started=None if self.started is None else now)

    def step(self, frames: int, now: float) -> Playback:
        """Standing `frames` frames later, on a frame; around the end if it loops."""
        n_frames = round((self.last - self.first) * self.fps) + 1
        index = round((self.at(now) - self.first) * self.fps) + frames
        index = index % n_frames if self.loop else min(max(index, 0), n_frames - 1)
        return replace(self, started=None, anchor=min(self.first + index / self.fps, self.last))

    def set_speed(self, speed: float, now: float) -> Playback:
        """The same moment, another speed."""
        moment = self.at(now)
        return replace(self, speed=speed, anchor=moment, started=None if self.started is None else now)

    def set_loop(self, loop: bool, now: float) -> Playback:
        """The same moment, looping or not."""
        moment = self.at(now)
        return replace(self, loop=loop, anchor=moment, started=None if self.started is None else now)
