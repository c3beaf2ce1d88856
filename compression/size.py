"""Sizes and losses as people write them."""

from __future__ import annotations

import re

from kinosplat.errors import InputError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str) -> int:
    """Bytes of `3MB`, `300 KB`, `1.5MiB` or `250000`."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in UNITS or float(match[1]) <= 0:
        raise InputError(f"--target-size {text} is no size; write it like 3MB or 300KB.")
    return int(float(match[1]) * UNITS[match[2].upper()])


def parse_loss(text: str) -> float:
    """Decibels of `0.2dB` or `0.2`."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(dB)?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise InputError(f"--max-loss {text} is no loss; write it like 0.2dB.")
    return float(match[1])


def size_words(n_bytes: float) -> str:
    """Bytes in the unit that reads best, decimal like file managers."""
    for unit, size in (("MB", 10**6), ("KB", 10**3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.2f} {unit}"
    return f"{n_bytes:.0f} B"
