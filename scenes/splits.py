"""Which cameras are learned from and which are held out.

In this order: `train_views` (sparse), the data set's own split, every n-th camera. Cameras are held out whole, with all
their frames, and no held-out picture is ever trained on.

Sparse splits: the 49 cameras of a DTU scene follow PixelNeRF's choice of views as RegNeRF fixed it (Niemeyer et al.
2022): the first 3, 6 or 9 of `DTU_TRAIN` to learn from, and always the same 25 cameras to test on, which leaves out 15
badly exposed ones and all nine training cameras. Elsewhere the test cameras are chosen as without `train_views`, and
the training cameras evenly from what remains, as RegNeRF does on LLFF.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kinosplat.errors import InputError
from kinosplat.scenes.capture import Capture, Shot
from kinosplat.scenes.options import LoadOptions

DTU_CAMERAS = 49
DTU_TRAIN = (25, 22, 28, 40, 44, 48, 0, 8, 13)
DTU_EXCLUDED = (3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 36, 37, 38, 39)


def split_shots(capture: Capture, options: LoadOptions) -> tuple[tuple[Shot, ...], tuple[Shot, ...], str]:
    """Training shots, test shots, and how the split came about, in words for the report."""
    cameras = sorted({shot.camera_index for shot in capture.shots})
    if options.train_views is not None and capture.is_dtu and len(cameras) == DTU_CAMERAS:
        train = [cameras[i] for i in DTU_TRAIN[: options.train_views]]
        test = [cameras[i] for i in range(DTU_CAMERAS) if i not in DTU_TRAIN + DTU_EXCLUDED]
        return (*_by_camera(capture.shots, train, test), f"{options.train_views} views, PixelNeRF's of DTU")
    if options.split == "auto" and any(shot.split == "test" for shot in capture.shots):
        train_shots = tuple(shot for shot in capture.shots if shot.split != "test")
        test_shots = tuple(shot for shot in capture.shots if shot.split == "test")
        words = "the data set's own"
    else:
        held_out = cameras[:: options.test_every] if options.test_every and len(cameras) > 1 else []
        kept = [camera for camera in cameras if camera not in set(held_out)]
        train_shots, test_shots = _by_camera(capture.shots, kept, held_out)
        words = f"every {_ordinal(options.test_every)} camera" if held_out else "no view held out"
    if options.train_views is not None:
        remaining = sorted({shot.camera_index for shot in train_shots})
        if len(remaining) < options.train_views:
            raise InputError(
                f"train_views {options.train_views} needs that many training cameras, but the scene has only "
                f"{len(remaining)}; "
                "leave it out to use them all."
            )
        chosen = [remaining[round(i)] for i in np.linspace(0, len(remaining) - 1, options.train_views)]
        train_shots = tuple(shot for shot in train_shots if shot.camera_index in chosen)
        words = f"{options.train_views} views evenly spaced, tested on {words}"
    return train_shots, test_shots, words


def _by_camera(
    shots: Sequence[Shot], train: Sequence[int], test: Sequence[int]
) -> tuple[tuple[Shot, ...], tuple[Shot, ...]]:
    in_train, in_test = set(train), set(test)
    return (
        tuple(shot for shot in shots if shot.camera_index in in_train),
        tuple(shot for shot in shots if shot.camera_index in in_test),
    )


def _ordinal(n: int) -> str:
    suffix = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"
