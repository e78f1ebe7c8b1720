"""What the command line says: tables and lines on stdout; progress, warnings and errors on stderr.

Without a terminal nothing moves and nothing is colored.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from jaxcluster.cli.errors import as_options, one_line
from jaxcluster.core import signals
from jaxcluster.core.messages import printable

STDERR = Console(stderr=True, highlight=False)
"""One for all: what is printed while progress is shown has to go through the console that shows it."""


def stdout(quiet: bool = False) -> Console:
    """Where results go; nowhere if quiet."""
    return Console(quiet=quiet, highlight=False)


def say(console: Console, text: str, style: str = "") -> None:
    """Lines as they are: never wrapped, so that a long path can be copied, free of markup and of control signs."""
    console.print(Text("\n".join(map(printable, text.split("\n"))), style=style), soft_wrap=True)


def complain(kind: str, message: str, style: str) -> None:
    """One line on stderr: ``Error: …`` or ``Warning: …``."""
    text = Text.assemble((f"{kind}:", f"bold {style}"), " ", (printable(one_line(message)), style))
    STDERR.print(text, soft_wrap=True)


def note(notes: Sequence[str], *, quiet: bool = False) -> None:
    """What a reader decided where a file can be read in two ways, a line each on stderr."""
    for each in () if quiet else notes:
        complain("Note", as_options(each), "cyan")


def show_table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, text: Sequence[int] = (0,)
) -> None:
    """Prints a title, a table and an empty line.

    Columns hold numbers, to the right, but for those listed in ``text``. Columns without names have no head.
    """
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, show_header=any(columns), pad_edge=False)
    for i, name in enumerate(columns):
        made.add_column(printable(name), justify="left" if i in text else "right", no_wrap=i not in text)
    for row in rows:
        made.add_row(*(Text(printable(number(value))) for value in row))
    say(console, title, "bold")
    console.print(made, "", sep="\n")


def number(value: Any) -> str:
    """A value as a table shows it: 4 decimals below ten thousand, thousands apart above, a dash for nothing.

    Numbers too large or too small for that are written with their power of ten.
    """
    if value is None:
        return "-"
    if isinstance(value, float) and 0 < abs(value) < 5e-5:
        return f"{value:.4e}"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1e4 else f"{value:,.0f}" if abs(value) < 1e12 else f"{value:.4e}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


class Stages:
    """What is being done now, and how many seconds each thing took."""

    def __init__(self, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._task: Any = None

    @contextmanager
    def __call__(self, name: str, description: str) -> Iterator[None]:
        """Shows ``description`` while the block runs, and times it under ``name``."""
        signals.check_stopped()
        task = self._task = self._progress.add_task(printable(description), total=None)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - start, 3)
            self._progress.remove_task(task)
            self._task = None

    def say(self, description: str) -> None:
        """Shows how far what is being done has come."""
        if self._task is not None:
            self._progress.update(self._task, description=printable(description))


@contextmanager
def stages(quiet: bool = False) -> Iterator[Stages]:
    """Progress on a terminal's last line; it leaves nothing behind."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=STDERR, transient=True, disable=quiet or not STDERR.is_terminal) as progress:
        yield Stages(progress)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Shows each warning meant for users as one yellow line, once."""
    seen: set[str] = set()

    def show(message, category, filename, lineno, file=None, line=None):
        text = as_options(one_line(message))
        if issubclass(category, UserWarning) and text not in seen:
            seen.add(text)
            complain("Warning", text, "yellow")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield
