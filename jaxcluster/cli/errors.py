"""A user's mistake, told apart from a defect of the program."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

MISTAKES = (ValueError, TypeError, OSError, MemoryError)
"""What readers, checks and fits raise for wrong arguments, wrong data and missing files."""


OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
"""What a RuntimeError of JAX says where a device is full."""


class MistakeError(Exception):
    """What a user can mend: shown as one line, exit code 2."""


@contextmanager
def mistakes() -> Iterator[None]:
    """Around what works on a user's words and data, and nothing else: a defect elsewhere keeps its traceback."""
    try:
        yield
    except MISTAKES as error:
        raise MistakeError(as_options(one_line(error))) from error
    except RuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        hint = "Take fewer rows or columns, or minibatch-kmeans."
        raise MistakeError(f"the device has too little memory for these rows. {hint}") from error


def one_line(error: BaseException | str) -> str:
    """A message without its line breaks; the error's name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def as_options(message: str) -> str:
    """A message of the library in words of the command line: ``(columns=)`` is ``(--columns)`` here."""
    return re.sub(r"\((\w+)=\)", lambda found: f"(--{found[1].replace('_', '-')})", message)
