"""Reading and checking what calibration files hold; every complaint names the file and the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kinosplat.errors import InputError

LARGEST = 1e30
"""Numbers beyond it are as useless as infinite ones, since cameras are kept in float32."""
OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Turns camera axes right-up-backward into right-down-forward, and back."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check that the data set is complete.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({type(error).__name__}); copy it again.") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} is not valid JSON (line {error.lineno}: {error.msg}); correct or copy it again."
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a JSON {type(content).__name__} where an object is expected; is it the right file?"
        )
    return content


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz archive, by name; the one of an .npy file under the name ''. Nothing is unpickled."""
    try:
        content = np.load(path, allow_pickle=False)
        return {name: content[name] for name in content.files} if hasattr(content, "files") else {"": content}
    except Exception as error:  # Numpy's parsers raise whatever they stumble over in a damaged file.
        kind = path.suffix
        raise InputError(f"{path} is not a readable {kind} file ({type(error).__name__}); copy it again.") from error


def field(content: object, key: str, where: object) -> Any:
    """content[key], which must be there."""
    if not isinstance(content, dict):
        raise InputError(f"{where} is {_shown(content)}, not an object with fields; correct it.")
    if key not in content:
        raise InputError(f"{where} has no field {key!r}; add it.")
    return content[key]


def number(value: object, where: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        raise InputError(f"{where} is {_shown(value)}, not a finite number; correct it.")
    return float(value)


def whole(value: object, where: str) -> int:
    """A whole number."""
    result = number(value, where)
    if result != int(result):
        raise InputError(f"{where} is {value!r}, not a whole number; correct it.")
    return int(result)


def text(value: object, where: str) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{where} is {_shown(value)}, not a text; correct it.")
    return value


def items(value: object, where: str) -> list[Any]:
    """A list."""
    if not isinstance(value, list):
        raise InputError(f"{where} is {_shown(value)}, not a list; correct it.")
    return value


def _shown(value: object) -> str:
    """A value as it appears in a message, cut where it is long."""
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def array(values: ArrayLike, shape: tuple[int, ...], where: str) -> NDArray[np.float64]:
    """Finite float64 numbers of the given shape; -1 stands for any length."""
    try:
        result = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} holds something other than numbers; correct it.") from error
    fits = result.ndim == len(shape) and all(n in (-1, m) for n, m in zip(shape, result.shape, strict=True))
    if not fits:
        expected = " x ".join("n" if n == -1 else str(n) for n in shape)
        raise InputError(f"{where} has shape {' x '.join(map(str, result.shape))} instead of {expected}; correct it.")
    if not (np.abs(result) < LARGEST).all():
        raise InputError(f"{where} holds values that are not finite; remove that camera or calibrate it again.")
    return result


def rigid(matrix: ArrayLike, where: str) -> NDArray[np.float64]:
    """A (3 or 4, 4) pose as an exactly rigid (4, 4).

    A uniform scale of the axes is taken out and rounding is repaired; a singular or sheared matrix is refused.
    """
    rows = np.asarray(matrix, dtype=object)
    checked = array(matrix, (3 if rows.shape[:1] == (3,) else 4, 4), where)
    u, stretch, vt = np.linalg.svd(checked[:3, :3])
    if len(checked) == 4 and np.abs(checked[3] - (0, 0, 0, 1)).max() > 1e-6:
        raise InputError(f"{where} has the last row {checked[3].tolist()} instead of 0 0 0 1; correct it.")
    # Stretches that differ by more than rounding in a text file leaves mean a wrong matrix, not an inexact one.
    if stretch[-1] < 1e-9 or stretch[0] / stretch[-1] > 1.01 or np.linalg.det(checked[:3, :3]) < 0:
        raise InputError(f"{where} is not a rotation with a translation; remove that camera or calibrate it again.")
    pose = np.eye(4)
    pose[:3, :3] = u @ vt
    pose[:3, 3] = checked[:3, 3]
    return pose


def invert_rigid(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of a rigid (4, 4)."""
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inverse


def intrinsics(fx: float, fy: float, cx: float, cy: float, where: str) -> NDArray[np.float64]:
    """K (3, 3) from its four numbers."""
    return checked_K(np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), where)


def checked_K(matrix: ArrayLike, where: str) -> NDArray[np.float64]:
    """A (3, 3) upper triangular K with positive focal lengths, scaled so that K[2, 2] = 1."""
    K = array(matrix, (3, 3), where)
    if K[2, 2] == 0 or K[0, 0] / K[2, 2] <= 0 or K[1, 1] / K[2, 2] <= 0 or np.abs(K[[1, 2, 2], [0, 0, 1]]).max() > 1e-6:
        raise InputError(f"{where} is not an upper triangular matrix with positive focal lengths; correct it.")
    return K / K[2, 2]


def check_points(positions: NDArray[np.float64], path: Path) -> None:
    """At least one point, all finite."""
    if len(positions) == 0:
        raise InputError(f"{path} holds 0 points; remove it, and first points are found from the pictures.")
    if not (np.abs(positions) < LARGEST).all():
        raise InputError(
            f"{path} holds points that are not finite; remove it, and first points are found from the pictures."
        )
