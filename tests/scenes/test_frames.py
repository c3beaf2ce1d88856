"""Pictures come from workers and a bounded cache, and are the same whatever the cache holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kinosplat.errors import InputError
from kinosplat.render.camera import Camera
from kinosplat.scenes import FrameLoader, View, prefetch
from kinosplat.scenes.frame_cache import FrameCache, default_cache_bytes
from kinosplat.scenes.lenses import Delivery
from kinosplat.scenes.scene import ImageSource
from kinosplat.scenes.video import VideoFrame
from scenes.test_video import level, write_video

WIDTH, HEIGHT = 64, 48
FRAME_BYTES = WIDTH * HEIGHT * 3


@dataclass(frozen=True)
class Fake:
    """A picture that says how often it was loaded, or fails."""

    pixels: NDArray[np.uint8] = field(compare=False)
    name: str = "pictures/0.png"
    loads: list[str] = field(default_factory=list, compare=False)
    error: Exception | None = field(default=None, compare=False)
    wait: Callable[[], object] = field(default=lambda: None, compare=False)

    @property
    def description(self) -> str:
        return self.name

    def load(self) -> NDArray[np.uint8]:
        self.loads.append(self.name)
        self.wait()
        if self.error is not None:
            raise self.error
        return self.pixels.copy()


def view(image: ImageSource, mask: ImageSource | None = None, width: int = WIDTH, height: int = HEIGHT) -> View:
    return View(image.description, Camera(torch.eye(4), torch.eye(3), width, height), 0, image, mask)


def fakes(n: int, channels: int = 3, loads: list[str] | None = None) -> list[Fake]:
    random = np.random.default_rng(0)
    loads = [] if loads is None else loads
    return [
        Fake(random.integers(0, 256, (HEIGHT, WIDTH, channels), np.uint8), f"pictures/{i}.png", loads) for i in range(n)
    ]


def clip_views(path: Path, n_frames: int) -> list[View]:
    delivery = Delivery(WIDTH, HEIGHT, WIDTH, HEIGHT)
    return [view(VideoFrame(path, i, delivery)) for i in range(n_frames)]


def test_a_picture_arrives_as_floats_with_its_alpha_and_mask() -> None:
    image = fakes(1, channels=4)[0]
    mask = Fake(np.full((HEIGHT, WIDTH, 1), 51, np.uint8), "masks/0.png")
    with FrameLoader([view(image, mask)], cache_bytes=10**6) as loader:
        frame = loader.get(0)
    assert frame.image.dtype == torch.float32
    np.testing.assert_array_equal(frame.image.numpy(), image.pixels[..., :3].astype(np.float32) / 255)
    assert frame.alpha is not None
    assert frame.mask is not None
    np.testing.assert_array_equal(frame.alpha.numpy(), image.pixels[..., 3].astype(np.float32) / 255)
    assert frame.mask.shape == (HEIGHT, WIDTH)
    assert frame.mask.unique().tolist() == [pytest.approx(0.2)]
    assert frame.foreground is not None
    assert torch.equal(frame.foreground, frame.mask * frame.alpha)


def test_a_batch_fills_in_what_only_some_pictures_have() -> None:
    plain, see_through = fakes(2)[0], fakes(2, channels=4)[1]
    mask = Fake(np.zeros((HEIGHT, WIDTH), np.uint8), "masks/0.png")
    with FrameLoader([view(plain, mask), view(see_through)], cache_bytes=10**6) as loader:
        batch = loader.get_batch([0, 1])
        assert batch.images.shape == (2, HEIGHT, WIDTH, 3)
        assert batch.alphas is not None
        assert batch.masks is not None
        assert batch.alphas[0].min() == 1.0
        assert (batch.masks[0].max(), batch.masks[1].min()) == (0.0, 1.0)
        assert loader.get_batch([0]).alphas is None
        assert loader.get_batch([1]).masks is None


def test_writing_to_a_delivered_picture_does_not_change_the_next_one() -> None:
    with FrameLoader([view(fakes(1)[0])], cache_bytes=10**6) as loader:
        first = loader.get(0).image
        before = first.clone()
        first.zero_()
        assert torch.equal(loader.get(0).image, before)


def test_pictures_are_the_same_whatever_the_cache_holds(tmp_path: Path) -> None:
    views = [*clip_views(write_video(tmp_path / "a.mp4"), 24), *(view(image) for image in fakes(6))]
    order = np.random.default_rng(1).integers(0, len(views), 80).tolist()
    seen = []
    for cache_bytes, n_workers in ((10**9, 1), (10**9, 4), (4 * FRAME_BYTES, 3), (0, 2)):
        with FrameLoader(views, cache_bytes=cache_bytes, n_workers=n_workers) as loader:
            pictures = []
            for step, index in enumerate(order):
                loader.prefetch(order[step : step + 5])
                pictures.append(loader.get(index).image)
            seen.append(torch.stack(pictures))
    assert all(torch.equal(seen[0], other) for other in seen[1:])
    assert [level(seen[0][i].numpy() * 255) for i, index in enumerate(order) if index < 24] == [
        index for index in order if index < 24
    ]


def test_the_cache_never_holds_more_than_its_limit() -> None:
    images = fakes(12)
    with FrameLoader([view(image) for image in images], cache_bytes=5 * FRAME_BYTES) as loader:
        for index in [*range(12), *range(12)]:
            loader.prefetch(range(index, 12))
            loader.get(index)
            assert loader.cache.n_bytes <= 5 * FRAME_BYTES
    assert len(loader.cache) == 5


def test_a_picture_is_loaded_once_while_it_stays_in_the_cache() -> None:
    loads: list[str] = []
    with FrameLoader([view(image) for image in fakes(4, loads=loads)], cache_bytes=10**6) as loader:
        for _ in range(3):
            loader.prefetch(range(4))
            for index in range(4):
                loader.get(index)
    assert sorted(loads) == [f"pictures/{i}.png" for i in range(4)]


def test_prefetched_pictures_are_loaded_without_being_asked_for() -> None:
    loads: list[str] = []
    with FrameLoader([view(image) for image in fakes(3, loads=loads)], cache_bytes=10**6) as loader:
        loader.prefetch([2, 0])
        deadline = time.monotonic() + 10
        while len(loader.cache) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
    assert sorted(loads) == ["pictures/0.png", "pictures/2.png"]


@pytest.mark.parametrize(("room", "n_loaded"), [(6, 6), (5, 0)])
def test_all_pictures_are_loaded_in_the_background_if_there_is_room_for_all(room: int, n_loaded: int) -> None:
    loads: list[str] = []
    views = [view(image) for image in fakes(6, loads=loads)]
    with FrameLoader(views, cache_bytes=room * FRAME_BYTES, n_workers=1) as loader:
        loader.prefetch_all()
        deadline = time.monotonic() + 10
        while len(loader.cache) < n_loaded and time.monotonic() < deadline:
            time.sleep(0.005)
    assert loads == [f"pictures/{i}.png" for i in range(n_loaded)]


def test_what_is_prefetched_is_not_dropped_for_what_is_wanted_later() -> None:
    images = fakes(8)
    with FrameLoader([view(image) for image in images], cache_bytes=3 * FRAME_BYTES, n_workers=1) as loader:
        loader.prefetch(range(8))
        deadline = time.monotonic() + 10
        while len(loader.cache) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        loader.get(0)
    assert [images[i].loads.count(images[i].name) for i in range(3)] == [1, 1, 1]


@pytest.mark.timeout(30)
def test_an_error_in_a_worker_reaches_whoever_asks_for_the_picture() -> None:
    good, bad = fakes(2)
    bad = Fake(bad.pixels, "pictures/bad.png", error=InputError("pictures/bad.png is cut off; copy it again."))
    with FrameLoader([view(good), view(bad)], cache_bytes=10**6) as loader:
        loader.prefetch([1, 0])
        loader.get(0)
        for _ in range(2):
            with pytest.raises(InputError) as caught:
                loader.get(1)
            assert str(caught.value) == "pictures/bad.png is cut off; copy it again."
        loader.get(0)


@pytest.mark.timeout(30)
def test_memory_that_ends_is_an_error_and_no_hang() -> None:
    image = Fake(fakes(1)[0].pixels, "pictures/0.png", error=MemoryError())
    with FrameLoader([view(image)], cache_bytes=10**6) as loader, pytest.raises(InputError) as caught:
        loader.get(0)
    assert str(caught.value) == ("There is no memory left for pictures/0.png; lower --cache-memory or the resolution.")


@pytest.mark.timeout(30)
def test_a_fault_in_the_code_is_raised_as_it_is() -> None:
    image = Fake(fakes(1)[0].pixels, error=ZeroDivisionError("a bug"))
    with FrameLoader([view(image)], cache_bytes=10**6) as loader, pytest.raises(ZeroDivisionError, match="a bug"):
        loader.get(0)


@pytest.mark.timeout(30)
def test_nobody_waits_for_a_closed_loader() -> None:
    release = threading.Event()
    images = [Fake(image.pixels, image.name, wait=release.wait) for image in fakes(2)]
    loader = FrameLoader([view(image) for image in images], cache_bytes=10**6, n_workers=1)
    caught: list[Exception] = []

    def ask() -> None:
        try:
            loader.get(1)
        except RuntimeError as error:
            caught.append(error)

    loader.prefetch([0])
    asking = threading.Thread(target=ask)
    asking.start()
    closing = threading.Thread(target=loader.close)
    closing.start()
    release.set()
    asking.join()
    closing.join()
    assert not caught or str(caught[0]) == "The frame loader is closed; ask for pictures inside its `with` block."
    with pytest.raises(RuntimeError, match="is closed"):
        loader.get(0)


def test_workers_are_gone_after_the_block() -> None:
    before = threading.active_count()
    with FrameLoader([view(fakes(1)[0])], cache_bytes=10**6, n_workers=3) as loader:
        assert threading.active_count() == before + 3
        loader.get(0)
    assert threading.active_count() == before


def test_a_picture_of_another_size_than_its_camera_is_refused() -> None:
    with FrameLoader([view(fakes(1)[0], width=32)], cache_bytes=10**6) as loader, pytest.raises(InputError) as caught:
        loader.get(0)
    assert str(caught.value) == (
        "pictures/0.png is 64x48 pixels but its camera is 32x48; scale one of the two so that they agree."
    )


@pytest.mark.timeout(60)
def test_a_damaged_video_is_named_through_the_loader(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    views = clip_views(path, 30)
    with FrameLoader(views, cache_bytes=10**6) as loader:
        loader.get(3)
        with pytest.raises(InputError) as caught:
            loader.get(29)
        assert str(caught.value) == (
            f"{path} has 24 frames but frame 29 is needed; check the number of frames or name another video."
        )
    path.write_bytes(path.read_bytes()[:500])
    with FrameLoader(views, cache_bytes=10**6) as loader, pytest.raises(InputError, match="cannot be read as a video"):
        loader.get(0)


def test_a_video_that_fits_is_decoded_once_even_in_random_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted: list[object] = []
    plain = prefetch.to_rgb

    def counted(frame: av.VideoFrame) -> NDArray[np.uint8]:
        converted.append(frame.pts)
        return plain(frame)

    monkeypatch.setattr(prefetch, "to_rgb", counted)
    order = np.random.default_rng(0).permutation(24).tolist()
    with FrameLoader(clip_views(write_video(tmp_path / "a.mp4", gop=24), 24), cache_bytes=10**6) as loader:
        for index in [*order, *order]:
            loader.get(index)
    assert len(converted) == 24


def test_views_may_share_a_picture() -> None:
    loads: list[str] = []
    image = fakes(1, loads=loads)[0]
    with FrameLoader([view(image), view(image)], cache_bytes=10**6) as loader:
        batch = loader.get_batch([0, 1, 0])
    assert torch.equal(batch.images[0], batch.images[1])
    assert loads == ["pictures/0.png"]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"^views must hold at least one view\.$"):
        FrameLoader([])
    with pytest.raises(ValueError, match=r"^n_workers must be at least 1, got 0\.$"):
        FrameLoader([view(fakes(1)[0])], n_workers=0)
    sizes = [view(fakes(1)[0]), view(Fake(np.zeros((10, 20, 3), np.uint8), "other.png"), width=20, height=10)]
    one_size = pytest.raises(ValueError, match=r"^A batch must hold views of one size, got 2 sizes\.$")
    with FrameLoader(sizes, cache_bytes=10**6) as loader, one_size:
        loader.get_batch([0, 1])


def test_the_default_cache_is_a_share_of_what_is_free() -> None:
    free = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    # Memory comes and goes between the two readings: a quarter, give or take a tenth of it.
    assert 0 < default_cache_bytes() < 0.275 * free


def test_the_least_recently_used_picture_goes_first() -> None:
    cache = FrameCache(30)
    pictures = [np.zeros(10, np.uint8) for _ in range(5)]
    for key in range(3):
        assert cache.put(key, pictures[key])
    cache.get(0)
    assert cache.put(3, pictures[3])
    assert [key in cache for key in range(4)] == [True, False, True, True]
    assert not cache.put(4, pictures[4], keep={0, 2, 3})
    assert not cache.put(5, np.zeros(31, np.uint8))
    assert cache.n_bytes == 30
    assert cache.could_take(10, keep=[0, 2])
    assert not cache.could_take(11, keep=[0, 2])
    assert not cache.has_room(1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("device_cache_bytes", [0, 3 * FRAME_BYTES, 10**9])
def test_batches_on_a_gpu_are_those_of_the_cpu(device_cache_bytes: int) -> None:
    mask = Fake(np.full((HEIGHT, WIDTH), 128, np.uint8), "masks/0.png")
    views = [view(image, mask if i % 2 else None) for i, image in enumerate(fakes(8))]
    batches = [[0, 1, 2], [3, 4, 5], [6, 7, 0], [1, 1, 2]] * 3
    with (
        FrameLoader(views, cache_bytes=10**6) as host,
        FrameLoader(views, cache_bytes=10**6, device="cuda", device_cache_bytes=device_cache_bytes) as device,
    ):
        for step, indices in enumerate(batches):
            expected, found = host.get_batch(indices), device.get_batch(indices, batches[step + 1 : step + 4])
            assert found.images.device.type == "cuda"
            # The same bytes, which a GPU divides by 255 to within a float's last bit.
            torch.testing.assert_close(found.images.cpu(), expected.images, rtol=0, atol=6e-8)
            assert (found.masks is None) == (expected.masks is None)
            if found.masks is not None and expected.masks is not None:
                torch.testing.assert_close(found.masks.cpu(), expected.masks, rtol=0, atol=6e-8)
