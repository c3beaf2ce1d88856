"""Command line: renders, checks and encodes the shipped scene, or the same stage as a NeRF-synthetic data set."""

import argparse
from pathlib import Path

from make_tabletop import encode, object_set, truth
from make_tabletop.cameras import make_rig
from make_tabletop.render import render_rig
from make_tabletop.stage import N_FRAMES, make_stage

SAMPLES = 8
"""Paths a pixel before the denoiser; 40 dB from a picture of 300 paths, where 24 paths reach 41.5 dB."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m make_tabletop", description=__doc__)
    parser.add_argument("--renders", type=Path, required=True, help="folder for the pictures; those there are kept")
    parser.add_argument("--output", type=Path, help="data set to write: videos, cameras.json, evaluation/")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="paths a pixel")
    parser.add_argument("--object", action="store_true", help="write a NeRF-synthetic data set to --renders instead")
    parser.add_argument("--size", type=int, default=800, help="width and height of its pictures")
    parser.add_argument("--train-views", type=int, default=100, help="number of its training views")
    parser.add_argument("--test-views", type=int, default=50, help="number of its test views")
    arguments = parser.parse_args()
    if arguments.object:
        views = {"train": arguments.train_views, "test": arguments.test_views}
        object_set.make(arguments.renders, views, arguments.size, arguments.samples)
        return
    if arguments.output is None:
        parser.error("name the data set to write with --output")
    rig = make_rig()
    render_rig(arguments.renders, rig, range(N_FRAMES), arguments.samples)
    encode.write_rig(arguments.output, arguments.renders, rig)
    truth.write_evaluation(arguments.output / "evaluation", make_stage(), rig)


if __name__ == "__main__":
    main()
