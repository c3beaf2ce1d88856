"""What went wrong, in one sentence that a page can show."""

from __future__ import annotations

from kinosplat.errors import is_out_of_memory


def in_words(error: Exception) -> str:
    """The sentence for an error that nobody expected; the terminal has the rest."""
    if is_out_of_memory(error):
        return "There is not enough memory for a picture of this size; make it smaller: Speed, Streaming, Longest side."
    first_line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
