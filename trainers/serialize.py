"""Configs as JSON and back, by their dataclass fields; nothing is executed, unknown or ill-typed fields are named.

A union of dataclasses is told apart by a field whose type is a `Literal` of one value, such as `name: Literal["4dgs"]`.
"""

from __future__ import annotations

import dataclasses
import json
import types
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from kinosplat.errors import InputError
from kinosplat.trainers.checkpoint import write_atomically

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """A config as dicts, lists, strings and numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def write_config(run_dir: Path, config: Any) -> None:
    """config.json of a run, all or nothing."""
    write_atomically(run_dir / "config.json", (json.dumps(to_json(config), indent=2) + "\n").encode())


def from_json(kind: type[T], value: Any, where: str) -> T:
    """The config of type `kind` that `to_json` turned into `value`; `where` names the file in errors (InputError)."""
    return _read(kind, value, where, "")


def _read(kind: Any, value: Any, where: str, path: str) -> Any:
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where, path)
    if origin in (Union, types.UnionType):
        return _read_union(get_args(kind), value, where, path)
    if origin is Literal:
        if value in get_args(kind):
            return value
    elif origin is tuple:
        kinds = get_args(kind)
        if isinstance(value, list) and len(kinds) == 2 and kinds[1] is Ellipsis:
            return tuple(_read(kinds[0], item, where, path) for item in value)
        if isinstance(value, list) and len(value) == len(kinds):
            return tuple(_read(k, item, where, path) for k, item in zip(kinds, value, strict=True))
    elif kind is Path and isinstance(value, str):
        return Path(value)
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise InputError(f"{where}: {path} cannot be {value!r}; restore the file or train anew.")


def _read_dataclass(kind: Any, value: Any, where: str, path: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"{where}: {path or 'the file'} must be an object; restore the file or train anew.")
    hints = get_type_hints(kind)
    unknown = sorted(set(value) - {field.name for field in dataclasses.fields(kind)})
    if unknown:
        name = f"{path}.{unknown[0]}".lstrip(".")
        raise InputError(
            f"{where}: {name} is not an option of this version; remove it or use the version that wrote it."
        )
    return kind(**{name: _read(hints[name], item, where, f"{path}.{name}".lstrip(".")) for name, item in value.items()})


def _read_union(kinds: tuple[Any, ...], value: Any, where: str, path: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    candidates = [kind for kind in kinds if kind is not type(None)]
    if isinstance(value, dict):
        candidates = [kind for kind in candidates if dataclasses.is_dataclass(kind) and _tags_match(kind, value)]
    if len(candidates) == 1:
        return _read(candidates[0], value, where, path)
    for kind in candidates:
        try:
            return _read(kind, value, where, path)
        except InputError:
            continue
    raise InputError(f"{where}: {path} cannot be {value!r}; restore the file or train anew.")


def _tags_match(kind: Any, value: dict[str, Any]) -> bool:
    hints = get_type_hints(kind)
    tags = {
        name: get_args(hint)[0]
        for name, hint in hints.items()
        if get_origin(hint) is Literal and len(get_args(hint)) == 1
    }
    return all(value.get(name) == tag for name, tag in tags.items())
