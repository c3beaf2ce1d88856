"""The exceptions a user may see.

Their text is one sentence that names the argument or file and says what to do; the command line prints it as it is.
"""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave (a file, a folder, an option) cannot be used; the command line exits with 2."""


class BackendError(RuntimeError):
    """A backend was asked for that this build or this machine does not have; the text says what to install."""
