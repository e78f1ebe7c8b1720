"""Output of the command line: tables and lines on stdout; progress, warnings and errors on stderr.

Without a terminal there is no progress and no color.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from jaxcluster.cli import runtime
from jaxcluster.cli.errors import as_options, one_line
from jaxcluster.core import signals
from jaxcluster.core.messages import printable


class _Stderr(Console):
    """Console for stderr. Once its reader is gone its lines are dropped: a message must not end a fit."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


STDERR = _Stderr(stderr=True, highlight=False)
"""The only console for stderr: lines that are printed during a stage must go through the one that shows progress."""


WARNED: list[str] = []
"""Warnings that the command has printed so far."""


def stdout(quiet: bool = False) -> Console:
    """A console for results, which prints nothing if quiet."""
    return Console(quiet=quiet, highlight=False)


def say(console: Console, text: str, style: str = "") -> None:
    """Print lines as they are: not wrapped, so that a long path can be copied, without markup or control characters."""
    console.print(Text("\n".join(map(printable, text.split("\n"))), style=style), soft_wrap=True)


def complain(kind: str, message: str, style: str) -> None:
    """Print one line on stderr: ``Error: …`` or ``Warning: …``; a report repeats the warnings."""
    if kind == "Warning":
        WARNED.append(printable(one_line(message)))
    text = Text.assemble((f"{kind}:", f"bold {style}"), " ", (printable(one_line(message)), style))
    with suppress(OSError):  # a full disk or a closed terminal: work goes on
        STDERR.print(text, soft_wrap=True)


def show_table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, text: Sequence[int] = (0,)
) -> None:
    """Print a title, a table and an empty line.

    Columns hold numbers, to the right, but for those listed in ``text``. Columns without names have no head.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, show_header=any(columns), pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(printable(name), justify="left" if i in text else "right", no_wrap=i not in text)
    for row in rows:
        table.add_row(*(Text(printable(number(value))) for value in row))
    say(console, title, "bold")
    console.print(table, "", sep="\n")


def number(value: Any) -> str:
    """A value for a table: 4 decimals below 10,000, groups of thousands above, "-" for None.

    Floats below 5e-5, which 4 decimals would show as 0, and from 1e12 on have an exponent.

    >>> number(0.5), number(12345.6), number(1e-7), number(1234), number(None)
    ('0.5000', '12,346', '1.0000e-07', '1,234', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, float) and 0 < abs(value) < 5e-5:
        return f"{value:.4e}"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1e4 else f"{value:,.0f}" if abs(value) < 1e12 else f"{value:.4e}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


class Stages:
    """The current stage of a command, the seconds that each stage took, and those of them that went to compilation."""

    def __init__(self, progress: Progress, *, quiet: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self.compile_seconds: dict[str, float] = {}
        self._progress, self._quiet = progress, quiet
        self._task: Any = None

    @contextmanager
    def __call__(self, name: str, description: str) -> Iterator[None]:
        """Show ``description`` while the block runs, and time it under ``name``."""
        signals.check_stopped()
        task = self._task = self._progress.add_task(printable(description), total=None)
        start, compiled = time.perf_counter(), runtime.compile_seconds()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - start, 3)
            if spent := round(runtime.compile_seconds() - compiled, 3):
                self.compile_seconds[name] = spent
            self._progress.remove_task(task)
            self._task = None

    def note(self, notes: Sequence[str]) -> None:
        """Print the decisions of a reader about a file that can be read in two ways, a line each on stderr."""
        for each in () if self._quiet else notes:
            complain("Note", as_options(each), "cyan")

    def say(self, description: str) -> None:
        """Replace the line that shows the progress of the current stage."""
        if self._task is not None:
            self._progress.update(self._task, description=printable(description))


@contextmanager
def stages(quiet: bool = False) -> Iterator[Stages]:
    """Progress on the last line of a terminal, cleared in the end."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=STDERR, transient=True, disable=quiet or not STDERR.is_terminal) as progress:
        yield Stages(progress, quiet=quiet)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Show each `UserWarning` of the block as one yellow line, once."""
    seen: set[str] = set()

    def show(message, category, filename, lineno, file=None, line=None):
        text = as_options(one_line(message))
        if issubclass(category, UserWarning) and text not in seen:
            seen.add(text)
            complain("Warning", text, "yellow")

    # "always", as Python shows a warning only once for a line of code, and one line may warn of several parameters.
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield
