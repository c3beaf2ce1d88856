"""Which views the trainer sees at which step: a pure function of the seed and the step, so that a run resumes anywhere.

Every view is used equally often. Image files come in a new random order each epoch. Frames of videos that do not fit in
memory together come from a pool that slides over the clip: each frame is decoded once for several uses, and every video
is read forwards whatever its groups of pictures are. The cameras are dealt into a few groups, each at another time of
the clip and, where memory allows, at several; so the pool always holds several moments, each seen by several cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kinosplat.scenes.prefetch import DECODER_SHARE, DECODERS_PER_VIDEO
from kinosplat.scenes.scene import View
from kinosplat.scenes.video import DECODER_BYTES_PER_PIXEL, VideoFrame

POOL_BYTES = 512 * 2**20
"""Default size of the pool: three quarters of the cache that a machine with 2.7 GiB of free memory gets by default."""
USES_A_VISIT = 4
"""How often a decoded frame is used before the pool moves on; decoding costs a few milliseconds, a training step about
one.
"""
JITTER = 0.5
"""Share of the time between two uses by which each is moved at random; with more, some wait so long that caches drop
them.
"""
CAMERAS_A_GROUP = 8
"""Fewest cameras that stand at the same time of the clip; with fewer, moving things overfit to the views of the moment.
"""
MAX_GROUPS = 4
"""Beyond four moments at once, more of them gain less than more cameras at each."""
KEPT_BATCHES = 64
"""A look ahead asks for the same batches step after step."""
KEPT_EPOCHS = 2
"""Orders of epochs kept: a look ahead reaches into the next one."""


class ViewSampler:
    """Batches of view indices; views of one size only in a batch, sizes in proportion to how many views have them."""

    def __init__(
        self,
        views: Sequence[View],
        seed: int,
        batch_size: int = 1,
        *,
        pool_bytes: int = POOL_BYTES,
    ) -> None:
        """`pool_bytes` is part of what determines the order; give the frame loader's cache a third more."""
        if not views:
            raise ValueError("views must hold at least one view.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.batch_size = batch_size
        sizes: dict[tuple[int, int], list[int]] = {}
        for i, view in enumerate(views):
            sizes.setdefault((view.camera.height, view.camera.width), []).append(i)
        self._turns = _Turns([len(members) for members in sizes.values()], seed)
        self._orders = [
            _Order(views, members, (seed, number), pool_bytes * len(members) // len(views))
            for number, members in enumerate(sizes.values())
        ]
        self._batch = lru_cache(maxsize=KEPT_BATCHES)(self._draw)

    @property
    def n_pooled(self) -> int:
        """How many views share the pool at a time; all of them when the order is a plain shuffle."""
        return sum(order.n_pooled for order in self._orders)

    def batch(self, step: int) -> list[int]:
        """Indices of the views of step `step`, which counts from 0."""
        return list(self._batch(step))

    def _draw(self, step: int) -> tuple[int, ...]:
        which, turn = self._turns.at(step)
        first = turn * self.batch_size
        return tuple(self._orders[which].at(first + i) for i in range(self.batch_size))

    def lookahead(self, step: int, n_steps: int) -> list[int]:
        """Views of `n_steps` steps from `step` on, each once, soonest first: what to prefetch."""
        return list(dict.fromkeys(index for later in range(step, step + n_steps) for index in self._batch(later)))


class _Turns:
    """Which of several sets of views a step draws from, and how many steps have drawn from it before."""

    def __init__(self, counts: Sequence[int], seed: int) -> None:
        cycle = np.random.default_rng([seed, 1]).permutation(np.repeat(np.arange(len(counts)), counts))
        self._cycle = cycle
        self._counts = counts
        self._before = np.zeros(len(cycle), dtype=np.int64)
        for which in range(len(counts)):
            chosen = cycle == which
            self._before[chosen] = np.arange(int(chosen.sum()))

    def at(self, step: int) -> tuple[int, int]:
        n_cycles, place = divmod(step, len(self._cycle))
        which = int(self._cycle[place])
        return which, n_cycles * self._counts[which] + int(self._before[place])


class _Order:
    """An endless sequence of the views `members`, in epochs that use each of them equally often."""

    def __init__(self, views: Sequence[View], members: Sequence[int], seed: tuple[int, int], pool_bytes: int) -> None:
        self._members = np.asarray(members)
        self._seed = seed
        camera = views[members[0]].camera
        n_pixels = camera.width * camera.height
        channels = 3 + int(any(views[i].mask is not None for i in members))
        self.n_pooled = min(len(members), max(pool_bytes // (n_pixels * channels), 1))
        self._rows: NDArray[np.int64] | None = None
        if self.n_pooled < len(members) and any(isinstance(views[i].image, VideoFrame) for i in members):
            max_decoders = int(pool_bytes * DECODER_SHARE) // (n_pixels * DECODER_BYTES_PER_PIXEL)
            self._rows = _rows([views[i] for i in members], self.n_pooled, max_decoders, seed)
        self._uses = 1 if self._rows is None else USES_A_VISIT
        self._epoch = lru_cache(maxsize=KEPT_EPOCHS)(self._order_of_epoch)

    def at(self, position: int) -> int:
        epoch, place = divmod(position, len(self._members) * self._uses)
        return int(self._epoch(epoch)[place])

    def _order_of_epoch(self, epoch: int) -> NDArray[np.int64]:
        random = np.random.default_rng([*self._seed, 2, epoch])
        if self._rows is None:
            return self._members[random.permutation(len(self._members))]
        n_rows = int(self._rows.max()) + 1
        lifetime = max(self.n_pooled * n_rows / len(self._members), 1.0)
        # The first use falls into the frame's own row, so each video is asked for its frames in order; the others are
        # spread over the rest of its life in the pool. Rows go around: an epoch begins with the pool the last one left.
        visit = np.arange(self._uses)[:, None] * (lifetime / self._uses)
        spread = np.where(visit == 0, 1.0, JITTER * lifetime / self._uses)
        moment = self._rows + visit + spread * random.random((self._uses, len(self._members)))
        return np.tile(self._members, self._uses)[np.argsort(moment.ravel() % n_rows, kind="stable")]


def _rows(views: Sequence[View], n_pooled: int, max_decoders: int, seed: tuple[int, int]) -> NDArray[np.int64]:
    """When each view enters the pool: every camera goes forwards through its frames, at one or several places of the
    clip.
    """
    moments = [_moment(view) for view in views]
    columns = {moment: column for column, moment in enumerate(sorted(set(moments)))}
    cameras = {camera: i for i, camera in enumerate(sorted({view.camera_index for view in views}))}
    n_columns, n_cameras = len(columns), len(cameras)
    n_heads = min(n_pooled // n_cameras, max_decoders // n_cameras, DECODERS_PER_VIDEO, n_columns)
    n_heads = max(n_heads, 1)
    n_groups = min(max(n_cameras // CAMERAS_A_GROUP, 1), MAX_GROUPS)
    group = np.random.default_rng([*seed, 0]).permutation(n_cameras) % n_groups
    n_rows = -(-n_columns // n_heads)
    column = np.array([columns[moment] for moment in moments])
    shift = group[[cameras[view.camera_index] for view in views]] * n_rows // n_groups
    return (column - shift) % n_columns % n_rows


def _moment(view: View) -> float:
    """Where a view stands in its clip: the number of the frame, or the time for other pictures."""
    if isinstance(view.image, VideoFrame):
        return float(view.image.index)
    return view.camera.time or 0.0
