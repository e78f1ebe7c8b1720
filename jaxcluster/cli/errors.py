"""A user's mistake, told apart from a defect of the program."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

MISTAKES = (ValueError, TypeError, OSError, MemoryError)
"""What readers, checks and fits raise for wrong arguments, wrong data and missing files."""


SPELLINGS = {
    "header=True": "--header",
    "header=False": "--no-header",
    "missing=True": "--missing",
    "delimiter=": "--delimiter ",
    "decimal=": "--decimal ",
    "encoding=": "--encoding ",
    'jax.config.update("jax_enable_x64", True)': "JAX_ENABLE_X64=1 before the command",
    "jax.config.update('jax_enable_x64', True)": "JAX_ENABLE_X64=1 before the command",
}
"""What the library calls its arguments and switches, and what they are called here."""


class MistakeError(Exception):
    """What a user can mend: shown as one line, exit code 2."""


@contextmanager
def mistakes() -> Iterator[None]:
    """Around what works on a user's words and data, and nothing else: a defect elsewhere keeps its traceback."""
    try:
        yield
    except (*MISTAKES, RuntimeError) as error:
        from jaxcluster.core.memory import shortage_message

        told = shortage_message(error) if isinstance(error, (MemoryError, RuntimeError)) else one_line(error)
        if told is None:
            raise
        raise MistakeError(as_options(told)) from error


def one_line(error: BaseException | str) -> str:
    """A message without its line breaks; the error's name where it has none, and no numbers of the system's errors."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}."
    return " ".join(str(error).split()) or type(error).__name__


def as_options(message: str) -> str:
    """A message of the library in words of the command line.

    >>> as_options("Choose the columns (columns=). Pass header=False or decimal=',', or set n_init=2.")
    "Choose the columns (--columns). Pass --no-header or --decimal ',', or set n_init=2."
    """
    message = re.sub(r"\((\w+)=\)", lambda found: f"(--{found[1].replace('_', '-')})", message)
    for words, option in SPELLINGS.items():
        message = message.replace(words, option)
    return message
