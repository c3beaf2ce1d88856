"""`load_scene`: from a path or a name to a Scene, whatever the format.

A name is looked up in $KINOSPLAT_DATA, then in the data that ships with kinosplat. Formats are recognised by their
characteristic files; when several are there (a transforms.json beside a COLMAP model), the first in `FORMATS` wins.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Protocol

from kinosplat.errors import InputError
from kinosplat.scenes.assemble import assemble_scene
from kinosplat.scenes.capture import Capture
from kinosplat.scenes.formats import camera_rig, colmap, idr, llff, n3dv, panoptic, transforms
from kinosplat.scenes.options import LoadOptions
from kinosplat.scenes.scene import Scene


class Reader(Protocol):
    """What the module of a format offers."""

    __name__: str

    def matches(self, root: Path) -> bool:
        """Whether a folder has the files by which the format is recognised."""

    def read(self, root: Path, options: LoadOptions) -> Capture:
        """Read it."""


FORMATS: tuple[Reader, ...] = (camera_rig, panoptic, idr, transforms, n3dv, colmap, llff)
"""Readers in the order in which they are asked whether a folder is theirs."""

LAYOUTS = "cameras.json, train_meta.json, cameras_sphere.npz, transforms.json, poses_bounds.npy or sparse/"
"""What a folder is recognised by, in words for the message when it has none of it."""


def load_scene(scene: str | Path, options: LoadOptions | None = None) -> Scene:
    """Read a scene by path or name.

    Raises InputError in one sentence when there is no such scene, or something in it cannot be used.
    """
    options = options or LoadOptions()
    root = find_scene(scene)
    reader = next((reader for reader in FORMATS if reader.matches(root)), None)
    if reader is None:
        raise InputError(f"{root} is not in a known layout; it needs one of {LAYOUTS}.")
    return assemble_scene(reader.read(root, options), root, options)


def find_scene(scene: str | Path) -> Path:
    """The folder of a scene given by path or name."""
    path = Path(scene).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise InputError(f"{path} is a file; give the folder of the scene.")
    if len(path.parts) == 1:
        for folder in data_folders():
            if (folder / path).is_dir():
                return folder / path
    found = ", ".join(known_scenes()) or "none"
    raise InputError(
        f"There is no scene {str(scene)!r}: it is neither a folder nor one of the scenes found by name ({found}); "
        "give a path, or set KINOSPLAT_DATA to the folder that holds it."
    )


def data_folders() -> list[Path]:
    """Where names are looked up, first one first."""
    from_environment = os.environ.get("KINOSPLAT_DATA")
    shipped = Path(str(resources.files("kinosplat.data")))
    return [Path(from_environment).expanduser(), shipped] if from_environment else [shipped]


def known_scenes() -> list[str]:
    """Names of the scenes in the data folders that some reader recognises."""
    return sorted(
        {
            entry.name
            for folder in data_folders()
            if folder.is_dir()
            for entry in folder.iterdir()
            if entry.is_dir() and any(reader.matches(entry) for reader in FORMATS)
        }
    )
