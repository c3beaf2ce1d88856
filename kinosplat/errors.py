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


OUT_OF_MEMORY = ("out of memory", "DefaultCPUAllocator: ")
"""What RuntimeErrors say of it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a device or of this machine."""
    # By its text, so that commands which do without torch need not load it: torch has an exception of its own for the
    # memory of a device, but not for memory that is locked for copies to it, nor for the host's.
    return isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)


@contextmanager
def as_memory_error() -> Iterator[None]:
    """Raise MemoryError for whatever says inside that memory ran out."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise


@contextmanager
def refusing_out_of_memory(sentence: str) -> Iterator[None]:
    """Turn memory that runs out inside into an InputError that says `sentence`."""
    try:
        with as_memory_error():
            yield
    except MemoryError as error:
        raise InputError(sentence) from error
