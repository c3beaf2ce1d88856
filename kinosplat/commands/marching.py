"""The option `--march` of commands that draw: how the pictures of a field find their samples."""

from __future__ import annotations

from dataclasses import replace

from kinosplat.errors import InputError
from kinosplat.render.field.march import MarchBy
from kinosplat.subjects import FieldSubject, MethodSubject
from kinosplat.trainers.method import Method
from kinosplat.trainers.methods.hash_grid import FieldMethod
from kinosplat.viewer.subject import Subject


def marching_by(subject: Subject, by: MarchBy) -> Subject:
    """The subject, drawn that way; InputError where it cannot go by blocks."""
    if isinstance(subject, MethodSubject):
        march(subject.method, by)
    elif isinstance(subject, FieldSubject):
        check_blocks(subject.stored.grid.space.n_cascades, by)
        return replace(subject, stored=replace(subject.stored, march_by=by))
    elif by == "blocks":
        raise InputError(f"--march blocks is for fields, but {subject.label} is none; leave it out.")
    return subject


def march(method: Method, by: MarchBy) -> None:
    """Let `method` draw that way from now on; InputError where it cannot go by blocks."""
    if isinstance(method, FieldMethod):
        check_blocks(method.grid.space.n_cascades, by)
        method.march_by = by
    elif by == "blocks":
        raise InputError(f"--march blocks is for fields, but this run is of {method.name}; leave it out.")


def check_blocks(n_cascades: int, by: MarchBy) -> None:
    """InputError where a space of so many cascades is to be marched by blocks."""
    if by == "blocks" and n_cascades != 1:
        raise InputError(
            f"--march blocks is for objects, but this field covers a scene without bounds ({n_cascades} cascades); "
            "leave it out."
        )
