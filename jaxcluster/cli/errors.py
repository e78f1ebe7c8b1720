"""Errors that a user can correct, apart from defects of the program."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import cast

import typer

UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
"""Raised by the parser for wrong words on the command line; its module depends on the version of typer. For type
checkers it is a subclass of it."""

CORRECTABLE = (ValueError, TypeError, OSError, MemoryError, OverflowError)
"""Errors that readers, checks and fits raise for wrong arguments, wrong data and missing files."""

SPELLINGS = {
    "--row-id": "--id",
    "choose the one that holds the labels (--column)": "give a file of the labels alone",
    "encode=": "--encode ",
    "header=True": "--header",
    "header=False": "--no-header",
    "missing=True": "--missing",
    "missing='ignore'": "--missing ignore",
    "pass na=": "pass --na ",
    "delimiter=": "--delimiter ",
    "decimal=": "--decimal ",
    "encoding=": "--encoding ",
    'jax.config.update("jax_enable_x64", True)': "JAX_ENABLE_X64=1 before the command",
    "jax.config.update('jax_enable_x64', True)": "JAX_ENABLE_X64=1 before the command",
}
"""Arguments and switches of the library, and the options that stand for them here."""


class UserError(Exception):
    """An error that the user can correct: shown as one line, exit code 2."""


@contextmanager
def user_errors(**options: str) -> Iterator[None]:
    """Turn errors of the block into `UserError`, for code that works on a user's words and data, and for no other.

    A defect elsewhere keeps its traceback.

    Args:
        options: for arguments of the library whose option has another name, that option.
    """
    try:
        yield
    except (*CORRECTABLE, RuntimeError) as error:
        from jaxcluster.core.memory import shortage_message

        message = shortage_message(error) if isinstance(error, (MemoryError, RuntimeError)) else one_line(error)
        if message is None:
            raise
        raise UserError(as_options(message, options)) from error


def one_line(error: BaseException | str) -> str:
    """The message of an error without line breaks; the error's name if it has none. System errors lose their number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}."
    return " ".join(str(error).split()) or type(error).__name__


def as_options(message: str, options: Mapping[str, str] = MappingProxyType({})) -> str:
    """A message of the library in words of the command line; ``options`` are those of other names than the arguments.

    >>> as_options("Choose the columns (columns=). Pass header=False or decimal=',', or set n_init=2.")
    "Choose the columns (--columns). Pass --no-header or --decimal ',', or set n_init=2."
    """
    message = re.sub(
        r"\((\w+)=\)", lambda found: f"({options.get(found[1], '--' + found[1].replace('_', '-'))})", message
    )
    message = re.sub(r"\bks=", "--k ", message)
    for words, option in SPELLINGS.items():
        message = message.replace(words, option)
    return message
