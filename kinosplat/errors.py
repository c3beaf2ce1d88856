"""The exceptions a user may see.

Their text is one sentence that names the argument or file and says what to do; the command line prints it as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Something the user gave (a file, a folder, an option) cannot be used; the command line exits with 2."""


class BackendError(RuntimeError):
    """A backend was asked for that this build or this machine does not have; the text says what to install."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a device or of this machine."""
    # By name, so that commands which do without torch need not load it.
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, MemoryError) or "OutOfMemoryError" in names or "DefaultCPUAllocator" in str(error)


@contextmanager
def refusing_out_of_memory(sentence: str) -> Iterator[None]:
    """Turn memory that runs out inside into an InputError that says `sentence`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(sentence) from error
