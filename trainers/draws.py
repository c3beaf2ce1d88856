"""Every random draw of a run, as a pure function of the seed, the step and what it is for.

No generator lives from one step to the next, so a run that resumes at step k draws what the uninterrupted run drew
there.
"""

from __future__ import annotations

import hashlib

import torch


def draw_key(seed: int, step: int, purpose: str) -> int:
    """63 bits for one purpose in one step: a hash, so that neighbouring steps and other purposes share no stream."""
    digest = hashlib.blake2b(f"{seed}/{step}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, step: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on `device` for one purpose in one step."""
    return torch.Generator(device=device).manual_seed(draw_key(seed, step, purpose))
