"""Refusals of option values that make no sense, each one sentence (InputError)."""

from __future__ import annotations

import math

from kinosplat.errors import InputError


def at_least(option: str, value: int, least: int) -> None:
    """Refuse a number that is too small."""
    if value < least:
        raise InputError(f"{option} must be at least {least}, got {value}.")


def between(option: str, value: int, least: int, most: int) -> None:
    """Refuse a number out of its range."""
    if not least <= value <= most:
        raise InputError(f"{option} must be {least} to {most}, got {value}.")


def positive(option: str, value: float) -> None:
    """Refuse what is not above 0."""
    if not 0.0 < value < math.inf:
        raise InputError(f"{option} must be a number above 0, got {value}.")


def not_negative(option: str, value: float | None) -> None:
    """Refuse what is below 0; None is left to the preset."""
    if value is not None and not 0.0 <= value < math.inf:
        raise InputError(f"{option} must be a number from 0 on, got {value}.")


def within(option: str, value: float, above: float, below: float) -> None:
    """Refuse what is not strictly between two numbers."""
    if not above < value < below:
        raise InputError(f"{option} must be a number above {above:g} and below {below:g}, got {value}.")


def check_near(near: float | None) -> None:
    """Refuse a near plane at or behind the camera; None leaves it to the scene."""
    if near is not None and not near > 0.0:
        raise InputError(f"--near must be a positive distance, got {near}.")
