"""Pictures on the GPU are those on the CPU, and are brought there at once where all of them have room."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kinosplat.render.camera import Camera
from kinosplat.scenes import FrameLoader, View
from kinosplat.scenes.device_feed import DeviceFeed, HostFrame
from kinosplat.scenes.frames import LoadedBatch

pytestmark = pytest.mark.gpu

WIDTH, HEIGHT, N = 40, 30, 150


@dataclass(frozen=True)
class Counted:
    """A picture that says when it was loaded."""

    number: int
    loads: list[int] = field(compare=False)
    n_channels: int = 3

    @property
    def description(self) -> str:
        return f"picture {self.number}"

    def load(self) -> NDArray[np.uint8]:
        self.loads.append(self.number)
        shape = (HEIGHT, WIDTH, self.n_channels) if self.n_channels > 1 else (HEIGHT, WIDTH)
        return np.random.default_rng(self.number).integers(0, 256, shape, np.uint8)


def views(loads: list[int]) -> list[View]:
    """Every other one with a mask, every third one with alpha."""
    camera = Camera(torch.eye(4), torch.eye(3), WIDTH, HEIGHT)
    return [
        View(
            f"view {i}",
            camera,
            0,
            Counted(i, loads, 4 if i % 3 == 0 else 3),
            Counted(1000 + i, loads, 1) if i % 2 == 0 else None,
        )
        for i in range(N)
    ]


def same_bytes(there: LoadedBatch, here: LoadedBatch) -> None:
    """Pictures and masks on the GPU are those on the CPU, before anybody divides by 255."""
    for a, b in zip((*there.pixels, *there.mask_pixels), (*here.pixels, *here.mask_pixels), strict=True):
        assert (a is None) == (b is None)
        assert a is None or b is None or torch.equal(a.cpu(), b)


def test_all_pictures_are_on_the_device_before_the_first_is_asked_for() -> None:
    loads: list[int] = []
    with FrameLoader(views(loads), device="cuda:0", device_cache_bytes=2**24) as loader, FrameLoader(views([])) as host:
        loader.fill_device()
        assert loader.is_filled
        assert sorted(loads) == sorted([*range(N), *range(1000, 1000 + N, 2)])
        for indices in ([0, 1], [149, 2, 75], [0]):
            there, here = loader.get_batch(indices, [[3], [4]]), host.get_batch(indices)
            assert there.images.device.type == "cuda"
            same_bytes(there, here)
    assert len(loads) == N + N // 2


def test_pictures_that_do_not_all_fit_are_read_when_they_are_asked_for() -> None:
    loads: list[int] = []
    with FrameLoader(views(loads), device="cuda:0", device_cache_bytes=2**18) as loader:
        loader.fill_device()
        assert loads == []
        assert not loader.is_filled
        assert loader.get_batch([5]).images.shape == (1, HEIGHT, WIDTH, 3)
        assert 5 in loads


def test_pictures_that_came_one_by_one_need_not_be_asked_for_either() -> None:
    with FrameLoader(views([]), device="cuda:0", device_cache_bytes=2**24) as loader:
        for i in range(N):
            assert not loader.is_filled
            loader.get_batch([i])
        assert loader.is_filled


def test_pictures_that_were_given_up_are_brought_again_when_asked_for() -> None:
    with FrameLoader(views([]), device="cuda:0", device_cache_bytes=2**24) as loader, FrameLoader(views([])) as host:
        loader.get_batch([0], [[1], [2]])  # two more are on their way
        loader.fill_device()
        bytes_a_picture = [WIDTH * HEIGHT * (4 if i % 3 == 0 else 3) for i in range(N)]
        assert loader.release_device() == sum(bytes_a_picture) + WIDTH * HEIGHT * N // 2
        for i in (*range(N), 0):
            same_bytes(loader.get_batch([i], [[(i + 1) % N]]), host.get_batch([i]))
        assert not loader.is_filled
        assert loader.release_device() == 0


def test_without_room_for_all_pictures_after_all_they_come_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    keep, n_kept = DeviceFeed.keep, 0

    def keep_some(feed: DeviceFeed, index: int, frame: HostFrame) -> None:
        nonlocal n_kept
        n_kept += 1
        if n_kept > 3:
            raise torch.OutOfMemoryError("injected")
        keep(feed, index, frame)

    monkeypatch.setattr(DeviceFeed, "keep", keep_some)
    with FrameLoader(views([]), device="cuda:0", device_cache_bytes=2**24) as loader, FrameLoader(views([])) as host:
        loader.fill_device()
        assert not loader.is_filled
        for i in (0, 5, 0):
            same_bytes(loader.get_batch([i]), host.get_batch([i]))
