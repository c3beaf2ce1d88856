"""Background workers that bring pictures into a cache.

Whatever goes wrong in a worker surfaces in the thread that asks for the picture, and only there; nobody waits for a
worker that is gone. Frames of one video are decoded by one worker at a time, in the order of the file as far as
possible.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from kinosplat.errors import InputError
from kinosplat.scenes.frame_cache import FrameCache
from kinosplat.scenes.lenses import Delivery
from kinosplat.scenes.scene import ImageSource
from kinosplat.scenes.video import VideoDecoder, VideoFrame, VideoIndex, index_video, to_rgb

SHORT_WAY = 16
"""Frames that an open decoder rather runs through than have another one opened for the video."""
DECODERS_PER_VIDEO = 4
"""A video may be read at this many places in turn without seeking; `ViewSampler` asks for no more."""
DECODER_SHARE = 0.5
"""Open decoders take at most this share of the cache's bytes, on top of them; at least one for each worker stays."""


class _Video:
    """The frames that are asked of one video, and the decoders that are open for it."""

    def __init__(self, frame: VideoFrame) -> None:
        self.path = frame.path
        self.delivery: Delivery = frame.delivery
        self.keys: dict[int, int] = {}
        self.index: VideoIndex | None = None
        self.idle: list[VideoDecoder] = []
        self.busy = False


class Fetcher:
    """Loads pictures, known by their place in `sources`, ahead of time and on demand; a context manager that stops its
    workers.
    """

    def __init__(self, sources: Sequence[ImageSource], n_bytes: Sequence[int], cache: FrameCache, n_workers: int):
        """`n_bytes` is what each picture is expected to take in the cache."""
        self._sources = sources
        self._n_bytes = n_bytes
        self._cache = cache
        self.all_fit = sum(n_bytes) <= cache.limit_bytes
        """Whether the cache has room for all pictures, so that none has to go for another."""
        self._changed = threading.Condition()
        self._waiting: dict[int, int] = {}
        """How many threads stand waiting for a picture."""
        self._arrived: dict[int, NDArray[np.uint8]] = {}
        """Pictures somebody waits for, so that they reach him even if the cache has no room."""
        self._wanted: dict[int, None] = {}
        """What will be asked for next, soonest first."""
        self._in_flight: set[int] = set()
        self._errors: dict[int, Exception] = {}
        self._closed = False
        self._broken: BaseException | None = None
        self._videos: dict[tuple[object, object], _Video] = {}
        self._video_of: dict[int, _Video] = {}
        self._idle_order: list[tuple[_Video, VideoDecoder]] = []
        self._decoder_bytes = 0
        self._max_decoder_bytes = int(cache.limit_bytes * DECODER_SHARE)
        for key, source in enumerate(sources):
            if isinstance(source, VideoFrame):
                video = self._videos.setdefault((source.path, source.delivery), _Video(source))
                video.keys[source.index] = key
                self._video_of[key] = video
        self._workers = [threading.Thread(target=self._work, name=f"frames-{i}", daemon=True) for i in range(n_workers)]
        for worker in self._workers:
            worker.start()

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers (each finishes the picture it is at) and free the decoders; whoever waits gets a
        RuntimeError.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()
        for _, decoder in self._idle_order:
            decoder.close()
        self._idle_order.clear()

    def want(self, keys: Sequence[int]) -> None:
        """Say what will be asked for next, soonest first; replaces what was said before."""
        with self._changed:
            self._wanted = dict.fromkeys(keys)
            # Workers that wake up only to find everything here would take turns with the thread that trains.
            if any(self._is_open(key) for key in self._wanted):
                self._changed.notify_all()

    def take(self, keys: Sequence[int]) -> list[NDArray[np.uint8]]:
        """The pictures, waiting for those not at hand; the caller must not write to them. Raises what went wrong with
        one of them.
        """
        taken: dict[int, NDArray[np.uint8]] = {}
        with self._changed:
            for key in keys:
                self._waiting[key] = self._waiting.get(key, 0) + 1
            try:
                while True:
                    if self._closed:
                        raise RuntimeError("The frame loader is closed; ask for pictures inside its `with` block.")
                    for key in keys:
                        frame = taken.get(key, self._arrived.get(key))
                        frame = self._cache.get(key) if frame is None else frame
                        if frame is not None:
                            taken[key] = frame
                        elif key in self._errors:
                            raise self._errors.pop(key)
                    if len(taken) == len(set(keys)):
                        return [taken[key] for key in keys]
                    if self._broken is not None:
                        raise RuntimeError("A worker that loads pictures has stopped.") from self._broken
                    self._changed.notify_all()
                    self._changed.wait()
            finally:
                for key in keys:
                    self._waiting[key] -= 1
                    if self._waiting[key] == 0:
                        del self._waiting[key]
                        self._arrived.pop(key, None)

    def _work(self) -> None:
        try:
            while (key := self._next()) is not None:
                try:
                    self._fetch(key)
                except MemoryError:
                    self._fail(
                        key,
                        InputError(
                            f"There is no memory left for {self._sources[key].description}; "
                            "lower --cache-memory or the resolution."
                        ),
                    )
                except Exception as error:
                    self._fail(key, error)
                finally:
                    self._finish(key)
        except BaseException as error:
            with self._changed:
                self._broken = error
                self._changed.notify_all()

    def _next(self) -> int | None:
        """Wait for something to do and reserve it; None when it is time to stop."""
        with self._changed:
            while not self._closed:
                key = self._choose()
                if key is not None:
                    self._in_flight.add(key)
                    if key in self._video_of:
                        self._video_of[key].busy = True
                    return key
                self._changed.wait()
        return None

    def _choose(self) -> int | None:
        for key in self._waiting:
            if self._is_open(key) and key not in self._arrived:
                return key
        for key in self._wanted:
            if self._is_open(key):
                # The list is in order of need, so what is further down has to wait as well.
                return key if self.all_fit or self._cache.could_take(self._n_bytes[key], self._wanted) else None
        return None

    def _is_open(self, key: int) -> bool:
        """Whether the picture is neither here nor on its way, and its video is free."""
        if key in self._cache or key in self._in_flight or key in self._errors:
            return False
        return key not in self._video_of or not self._video_of[key].busy

    def _fetch(self, key: int) -> None:
        video = self._video_of.get(key)
        if video is None:
            self._deliver(key, self._sources[key].load())
            return
        frame = self._sources[key]
        assert isinstance(frame, VideoFrame)
        if video.index is None:
            video.index = index_video(video.path)
        decoder = self._decoder(video, video.index, frame.index)
        try:
            for i, decoded in decoder.until(frame.index):
                passed = video.keys.get(i)
                near = frame.index - i <= SHORT_WAY
                if passed is not None and (passed == key or self._is_worth_keeping(passed, near)):
                    pixels = video.delivery.apply(to_rgb(decoded), self._sources[passed].description)
                    self._deliver(passed, pixels)
        finally:
            with self._changed:
                video.idle.append(decoder)
                self._idle_order.append((video, decoder))

    def _is_worth_keeping(self, key: int, near: bool) -> bool:
        """Whether a frame that is decoded only because it lies on the way, maybe near its end, should be converted and
        kept.
        """
        with self._changed:
            if key in self._cache or key in self._arrived:
                return False
            if key in self._waiting or key in self._wanted:
                return True
            return (near or self.all_fit) and self._cache.has_room(self._n_bytes[key])

    def _decoder(self, video: _Video, index: VideoIndex, target: int) -> VideoDecoder:
        """The open decoder with the shortest way to frame `target`, or a new one when all have a long way and there is
        memory for it.
        """
        with self._changed:
            best = min(video.idle, key=lambda decoder: decoder.n_frames_to(target), default=None)
            full = self._decoder_bytes + index.decoder_bytes > self._max_decoder_bytes
            if best is not None and (
                best.n_frames_to(target) <= SHORT_WAY or full or len(video.idle) >= DECODERS_PER_VIDEO
            ):
                video.idle.remove(best)
                self._idle_order.remove((video, best))
                return best
            while full and self._idle_order:
                old_video, old = self._idle_order.pop(0)
                old_video.idle.remove(old)
                old.close()
                self._decoder_bytes -= old.index.decoder_bytes
                full = self._decoder_bytes + index.decoder_bytes > self._max_decoder_bytes
            self._decoder_bytes += index.decoder_bytes
        try:
            return VideoDecoder(index)
        except Exception:
            with self._changed:
                self._decoder_bytes -= index.decoder_bytes
            raise

    def _deliver(self, key: int, frame: NDArray[np.uint8]) -> None:
        frame = np.require(frame, requirements=["C_CONTIGUOUS", "WRITEABLE"])
        with self._changed:
            if self._cache.put(key, frame, keep=self._wanted) and self.all_fit:
                # Nobody has to look at it again, however many are wanted.
                self._wanted.pop(key, None)
            if key in self._waiting:
                self._arrived[key] = frame
            self._changed.notify_all()

    def _fail(self, key: int, error: Exception) -> None:
        with self._changed:
            self._errors[key] = error

    def _finish(self, key: int) -> None:
        with self._changed:
            self._in_flight.discard(key)
            if key in self._video_of:
                self._video_of[key].busy = False
            self._changed.notify_all()
