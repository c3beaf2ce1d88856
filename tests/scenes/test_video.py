"""Videos are decoded as a stream: any frame can be asked for, and a damaged file is named with the frame."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from kinosplat.errors import InputError
from kinosplat.scenes.lenses import Delivery
from kinosplat.scenes.video import VideoDecoder, VideoFrame, index_video

WIDTH, HEIGHT = 64, 48


def picture(i: int) -> NDArray[np.uint8]:
    """A grey level of its own for every frame, under noise that makes every frame weigh something in the file."""
    noise = np.random.default_rng(i).integers(-15, 16, (HEIGHT, WIDTH, 1))
    pixels = np.full((HEIGHT, WIDTH, 3), 20 + 5 * i) + noise - round(noise.mean())
    pixels[:, WIDTH // 2 :] += 40
    return pixels.clip(0, 255).astype(np.uint8)


def write_video(
    path: Path, n_frames: int = 24, gop: int = 8, b_frames: int = 2, options: dict[str, str] | None = None
) -> Path:
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.gop_size = gop
        stream.options = {"bf": str(b_frames), "crf": "10", "sc_threshold": "0"}
        for i in range(n_frames):
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture(i), "rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def level(pixels: NDArray[np.uint8]) -> int:
    """Which frame a picture is."""
    return round((float(pixels[:, : WIDTH // 2].mean()) - 20) / 5)


@pytest.mark.parametrize("b_frames", [0, 3])
def test_frames_are_numbered_in_the_order_in_which_they_are_shown(tmp_path: Path, b_frames: int) -> None:
    index = index_video(write_video(tmp_path / "a.mp4", b_frames=b_frames))
    assert (index.n_frames, index.width, index.height, index.fps) == (24, WIDTH, HEIGHT, 10.0)
    assert index.key_frames == (0, 8, 16)
    with VideoDecoder(index) as decoder:
        assert [level(decoder.read(i)) for i in range(24)] == list(range(24))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_any_frame_can_be_asked_for_in_any_order(tmp_path: Path, suffix: str) -> None:
    index = index_video(write_video(tmp_path / f"a.{suffix}", gop=7))
    order = [23, 0, 13, 12, 14, 3, 23, 22, 7, 6]
    with VideoDecoder(index) as decoder:
        assert [level(decoder.read(i)) for i in order] == order


def test_a_frame_is_the_same_whether_decoding_went_on_or_began_at_its_key_frame(tmp_path: Path) -> None:
    index = index_video(write_video(tmp_path / "a.mp4"))
    with VideoDecoder(index) as decoder:
        in_order = [decoder.read(i) for i in range(24)]
        for i in (21, 5, 11):
            np.testing.assert_array_equal(decoder.read(i), in_order[i])


def test_going_on_is_preferred_to_seeking(tmp_path: Path) -> None:
    with VideoDecoder(index_video(write_video(tmp_path / "a.mp4"))) as decoder:
        decoder.read(9)
        assert decoder.n_frames_to(11) == 2
        assert decoder.n_frames_to(9) == 2
        assert decoder.n_frames_to(22) == 7
        assert [i for i, _ in decoder.until(11)] == [10, 11]


def test_frames_before_the_start_of_an_edit_list_do_not_count(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", gop=8, b_frames=0)
    # A stream copy from the middle of a group keeps the key frame and hides what comes before the cut by an edit list.
    with av.open(str(whole)) as source, av.open(str(tmp_path / "cut.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        ticks = round(1 / (10 * source.streams.video[0].time_base))
        for packet in source.demux(source.streams.video[0]):
            if packet.pts is not None and packet.pts >= 8 * ticks:
                packet.pts -= 11 * ticks
                packet.dts -= 11 * ticks
                packet.stream = stream
                target.mux(packet)
    index = index_video(tmp_path / "cut.mp4")
    assert index.n_frames == 13
    with VideoDecoder(index) as decoder:
        assert [level(decoder.read(i)) for i in (0, 12, 4)] == [11, 23, 15]


def test_colours_follow_the_matrix_that_the_file_names(tmp_path: Path) -> None:
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[...] = (200, 30, 40)
    path = tmp_path / "709.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_range = ColorRange.MPEG
        frame = av.VideoFrame.from_ndarray(red, "rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, src_color_range=2, dst_color_range=1
        )
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with VideoDecoder(index_video(path)) as decoder:
        # Measured: off by at most 2; with the other matrix the red is off by 17.
        assert np.abs(decoder.read(0).astype(int) - red).max() <= 4


def test_a_frame_loads_by_itself(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    frame = VideoFrame(path, 13, Delivery(WIDTH, HEIGHT, WIDTH // 2, HEIGHT // 2))
    assert frame.description == f"{path} frame 13"
    assert frame.load().shape == (HEIGHT // 2, WIDTH // 2, 3)
    assert round((float(frame.load()[:, : WIDTH // 4].mean()) - 20) / 5) == 13


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(InputError) as missing:
        index_video(path)
    assert str(missing.value) == f"{path} does not exist; check the path of the video."
    path.write_text("no video")
    with pytest.raises(InputError) as foreign:
        index_video(path)
    assert str(foreign.value) == (
        f"{path} cannot be read as a video (Invalid data found when processing input); copy or convert it again."
    )


def test_a_truncated_video_is_refused_before_training_begins(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", options={"movflags": "faststart"}, gop=24, b_frames=0)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError) as caught:
        index_video(path)
    n_left = int(str(caught.value).split(" of ")[0].split()[-1])
    assert 0 < n_left < 24
    assert str(caught.value) == f"{path} ends after {n_left} of 24 frames; copy or convert it again."
    path.write_bytes(write_video(tmp_path / "b.mp4").read_bytes()[:900])
    with pytest.raises(InputError, match="cannot be read as a video"):
        index_video(path)


def test_a_damaged_frame_is_named_and_later_groups_are_still_good(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", b_frames=0)
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
        start, size = packets[8].pos, packets[8].size
    content = bytearray(path.read_bytes())
    content[start + 40 : start + size] = bytes(255 - byte for byte in content[start + 40 : start + size])
    path.write_bytes(content)
    with VideoDecoder(index_video(path)) as decoder:
        assert level(decoder.read(7)) == 7
        for asked in (8, 10):
            with pytest.raises(InputError) as caught:
                decoder.read(asked)
            assert str(caught.value) == f"{path} is damaged at frame 8 of 24; copy or convert it again."
        assert level(decoder.read(17)) == 17


def test_a_frame_beyond_the_end_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    with pytest.raises(InputError) as caught:
        VideoFrame(path, 24, Delivery(WIDTH, HEIGHT, WIDTH, HEIGHT)).load()
    assert str(caught.value) == (
        f"{path} has 24 frames but frame 24 is needed; check the number of frames or name another video."
    )
