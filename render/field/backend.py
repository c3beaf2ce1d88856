"""Which code evaluates a field: this project's own, the plain-torch reference, or tiny-cuda-nn.

tiny-cuda-nn takes over the hash encoding and the networks; marching and compositing are then native.
"""

from __future__ import annotations

from typing import Literal

FieldBackend = Literal["native", "reference", "tcnn"]
"""As on the command line."""
