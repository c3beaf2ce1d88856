"""Every random draw of a run, as a pure function of the seed, the step and what it is for.

No generator lives from one step to the next, so a run that resumes at step k draws what the uninterrupted run drew
there.
"""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, step: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on `device` for one purpose in one step.

    The 64-bit seed is a hash of (seed, step, purpose): neighbouring steps and differing purposes share no stream.
    """
    digest = hashlib.blake2b(f"{seed}/{step}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest, "little") >> 1)
