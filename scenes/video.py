"""Frames of video files, streamed: nothing but the frames on their way is ever held.

Frame i is the i-th picture in presentation order that the container shows: frames cut off by an edit list do not count,
and the order of B-frames in the file does not matter. `VideoDecoder` goes on from where it stands when that is the
shortest way and otherwise starts at the last key frame before the one asked for.

Bad input: a file that is no video, that ends before the last frame its header declares, a frame beyond the end, and a
damaged frame (or one that was predicted from a damaged frame) raise InputError naming the file and the frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import av
import av.error
import numpy as np
from av.video.frame import VideoFrame as DecodedFrame
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from kinosplat.errors import InputError
from kinosplat.scenes.lenses import Delivery

DECODER_BYTES_PER_PIXEL = 12
"""Memory of one open decoder per pixel of the video: 8 reference frames of 1.5 bytes; measured 16 MB at 1352x1014 with
H.264.
"""


@dataclass(frozen=True)
class VideoIndex:
    """What a pass over the packets of a video, without decoding, tells about it."""

    path: Path
    """The file."""
    width: int
    """Width in pixels as shown, that is after the rotation a phone notes in the file."""
    height: int
    """Height in pixels as shown."""
    n_frames: int
    """Number of frames shown."""
    fps: float | None
    """Average frames a second, when the file tells."""
    timestamps: tuple[int, ...]
    """Presentation timestamp of each frame in increasing order; empty for files without timestamps, which are decoded
    from the start.
    """
    key_frames: tuple[int, ...]
    """Increasing indices of the frames where decoding can begin; 0 is always one of them."""

    def key_frame_before(self, index: int) -> int:
        """The last key frame at or before frame `index`."""
        return self.key_frames[bisect_right(self.key_frames, index) - 1]

    @property
    def decoder_bytes(self) -> int:
        """What an open decoder of this video takes, roughly."""
        return self.width * self.height * DECODER_BYTES_PER_PIXEL


def index_video(path: Path) -> VideoIndex:
    """Read all packets of a video (not its pictures): how many frames there are, when they are shown, where decoding
    can begin.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} holds no video stream; name a file with one.")
            stream = container.streams.video[0]
            packets = [
                (packet.pts, packet.is_keyframe, packet.is_discard)
                for packet in container.demux(stream)
                if packet.size > 0 and not packet.is_corrupt
            ]
            n_declared = stream.frames
            fps = float(stream.average_rate) if stream.average_rate else None
            width, height = stream.codec_context.width, stream.codec_context.height
            rotation = _rotation(container, stream) if packets else 0
            # AVI stores no presentation times; those FFmpeg guesses differ between seeking and reading on.
            has_times = container.format.name != "avi"
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path of the video.") from None
    except (OSError, av.error.FFmpegError) as error:
        raise InputError(f"{path} cannot be read as a video ({_reason(error)}); copy or convert it again.") from error
    if len(packets) < max(n_declared, 1):
        raise InputError(f"{path} ends after {len(packets)} of {max(n_declared, 1)} frames; copy or convert it again.")
    if rotation % 180:
        width, height = height, width
    shown = sorted((pts, key) for pts, key, discarded in packets if not discarded and pts is not None)
    timestamps = tuple(pts for pts, _ in shown)
    n_shown = sum(not discarded for _, _, discarded in packets)
    if not has_times or len(timestamps) < n_shown or len(set(timestamps)) < n_shown:
        return VideoIndex(path, width, height, len(packets), fps, (), (0,))
    key_frames = sorted({0} | {index for index, (_, key) in enumerate(shown) if key})
    return VideoIndex(path, width, height, len(timestamps), fps, timestamps, tuple(key_frames))


class VideoDecoder:
    """One open video; gives frames as (H, W, 3) uint8 sRGB arrays, cheapest in increasing order. Not for several
    threads at once.
    """

    def __init__(self, index: VideoIndex) -> None:
        self.index = index
        self.position = 0
        """The frame that would come next without seeking."""
        self._frame_of = {pts: i for i, pts in enumerate(index.timestamps)}
        self._damaged: int | None = None
        try:
            self._container = av.open(str(index.path))
        except (OSError, av.error.FFmpegError) as error:
            raise InputError(
                f"{index.path} cannot be read as a video ({_reason(error)}); copy or convert it again."
            ) from error
        self._stream = self._container.streams.video[0]
        # The workers are what runs in parallel; threads inside the decoder would each hold more frames.
        self._stream.codec_context.thread_count = 1
        self._decoded = self._container.decode(self._stream)

    def __enter__(self) -> VideoDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the decoder."""
        self._container.close()

    def n_frames_to(self, target: int) -> int:
        """How many frames have to be decoded to get frame `target` from here, by going on or by seeking."""
        start = self.index.key_frame_before(target)
        if start <= self.position <= target:
            start = self.position
        return target - start + 1

    def until(self, target: int) -> Iterator[tuple[int, DecodedFrame]]:
        """Decode up to and including frame `target`; gives every frame passed on the way, so that callers may keep
        those too.
        """
        if not 0 <= target < self.index.n_frames:
            raise InputError(
                f"{self.index.path} has {self.index.n_frames} frames but frame {target} is needed; "
                "check the number of frames or name another video."
            )
        start = self.index.key_frame_before(target)
        if not start <= self.position <= target:
            self._seek(start)
        while self.position <= target:
            yield self._next(target)

    def read(self, target: int) -> NDArray[np.uint8]:
        """Frame `target`."""
        *_, (_, frame) = self.until(target)
        return to_rgb(frame)

    def _next(self, target: int) -> tuple[int, DecodedFrame]:
        try:
            frame = next(self._decoded)
            while (found := self._number_of(frame)) < self.position:
                frame = next(self._decoded)
        except (StopIteration, OSError, av.error.FFmpegError) as error:
            raise self._damage(self.position) from error
        if frame.is_corrupt and self._damaged is None:
            self._damaged = found
        elif found in self.index.key_frames:
            self._damaged = None
        if found > target or self._damaged is not None:
            damaged = self.position if self._damaged is None else self._damaged
            self.position = found + 1
            raise self._damage(damaged)
        self.position = found + 1
        return found, frame

    def _number_of(self, frame: DecodedFrame) -> int:
        """Which frame this is; -1 if it is none of those shown."""
        if not self._frame_of:
            return self.position
        return -1 if frame.pts is None else self._frame_of.get(frame.pts, -1)

    def _damage(self, frame: int) -> InputError:
        return InputError(
            f"{self.index.path} is damaged at frame {frame} of {self.index.n_frames}; copy or convert it again."
        )

    def _seek(self, start: int) -> None:
        """Make frame `start`, a key frame, the next one."""
        self._damaged = None
        if start == 0 or not self.index.timestamps:
            # Reopening is the one rewind that every container and codec agrees about.
            self._container.close()
            self._container = av.open(str(self.index.path))
            self._stream = self._container.streams.video[0]
            self._stream.codec_context.thread_count = 1
        else:
            self._container.seek(self.index.timestamps[start], stream=self._stream, backward=True)
        self._decoded = self._container.decode(self._stream)
        self.position = start


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video, as an image source; `FrameLoader` knows it and decodes neighbours together."""

    path: Path
    """The video."""
    index: int
    """Which frame, in presentation order."""
    delivery: Delivery
    """What happens to the raw frame."""

    @property
    def description(self) -> str:
        """File and frame."""
        return f"{self.path} frame {self.index}"

    def load(self) -> NDArray[np.uint8]:
        """The frame alone, as delivered; decodes from the key frame before it."""
        with VideoDecoder(index_video(self.path)) as decoder:
            return self.delivery.apply(decoder.read(self.index), self.description)


def to_rgb(frame: DecodedFrame) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 sRGB, turned upright.

    Uses the matrix and the range the frame names; where it names none, BT.601 and limited range, as FFmpeg and OpenCV
    do.
    """
    matrix = Colorspace.ITU709 if frame.colorspace == Colorspace.ITU709 else Colorspace.ITU601
    full = frame.color_range == ColorRange.JPEG
    pixels = frame.to_ndarray(
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def _rotation(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """Degrees by which the file asks its pictures to be turned; known only with the first picture."""
    container.seek(0)
    first = next(container.decode(stream), None)
    return 0 if first is None else first.rotation


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
