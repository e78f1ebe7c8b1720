"""Layout of the help of a command."""

from __future__ import annotations

import inspect
from typing import Any

from typer.core import TyperCommand


def paragraphs(doc: str) -> str:
    r"""A docstring with one line for each paragraph, so that a terminal of any width wraps it.

    >>> print(paragraphs("Name of a thing.\n\n    A line\n    and another.\n\n      an example"))
    Name of a thing.
    <BLANKLINE>
    A line and another.
    <BLANKLINE>
      an example
    """
    parts = inspect.cleandoc(doc).split("\n\n")
    return "\n\n".join(part if part.startswith(" ") else " ".join(part.split("\n")) for part in parts)


def plain_flags(params: list[Any]) -> list[Any]:
    """The same parameters, flags among them without a type: ``--quiet <bool>`` would read as if it took a value."""
    for param in params:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""
    return params


class Command(TyperCommand):
    """A command whose help shows flags without a type."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Arguments and options, that of the help among them."""
        return plain_flags(super().get_params(ctx))
