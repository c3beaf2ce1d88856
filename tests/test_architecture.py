"""The import arrows of docs/architecture.md hold: rooms depend on one another in one direction only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("render", "scenes", "compression", "trainers", "viewer", "data")
MAY_IMPORT = {
    "render": {"errors", "_native"},
    "scenes": {"errors", "render.camera"},
    "compression": {"errors", "render", "scenes"},
    "trainers": {"errors", "render", "scenes", "compression"},
    "viewer": {"errors", "render", "scenes", "compression"},
    "data": {"errors"},
}


def imported_modules(path: Path) -> set[str]:
    """Names below `kinosplat.` that a file imports anywhere, such as `render.camera`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
            assert node.level == 0, f"{path} line {node.lineno}: imports are absolute."
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.removeprefix("kinosplat.") for name in names if name.startswith("kinosplat.")}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_stands_below_it(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    for path in (ROOT / room).rglob("*.py"):
        for name in imported_modules(path):
            assert any(name == a or name.startswith(a + ".") for a in allowed), (
                f"{path.relative_to(ROOT)} imports kinosplat.{name}."
            )


def test_every_room_is_installed_below_the_package() -> None:
    mapping = {
        line.split("=")[0].strip().strip('"'): line.split("=")[1].strip().strip('"')
        for line in (ROOT / "pyproject.toml").read_text().splitlines()
        if line.startswith('"kinosplat')
    }
    assert all(target == "kinosplat" or target.startswith("kinosplat/") for target in mapping)
    rooms = {room for room in ROOMS if (ROOT / room / "__init__.py").exists()}
    assert set(mapping.values()) == rooms | {"kinosplat"}
