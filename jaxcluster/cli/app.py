"""The application: its commands, and how it fails."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import MistakeError, one_line
from jaxcluster.cli.fit import fit
from jaxcluster.cli.info import info
from jaxcluster.cli.predict import predict
from jaxcluster.cli.report import report
from jaxcluster.cli.score import score
from jaxcluster.cli.sweep import sweep
from jaxcluster.cli.transport import transport
from jaxcluster.core import signals

UsageError = typer.BadParameter.__mro__[1]
"""What wrong words on the command line raise; its module depends on the version of typer."""


class Commands(TyperGroup):
    """All commands. A user's mistake is one line on stderr and exit code 2; a defect keeps its traceback.

    A command that a signal stops ends with the signal's code of `jaxcluster.core.signals`.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs a command and exits with its code."""
        from jaxcluster.cli.console import complain, warnings_in_one_line

        args = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in args
        args = [arg for arg in args if arg != "--debug"] or ["--help"]
        runs.WORDS.set(args)
        signals.set_stop_message(signals.NOTHING_WRITTEN)
        try:
            with warnings_in_one_line():
                code = super().main(args, prog_name, standalone_mode=False, **extra)
        except (MistakeError, UsageError) as error:
            if debug:
                traceback.print_exc()
            complain("Error", message_of(error), "red")
            code = 2
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Runs a command; one that is stopped says what it leaves."""
        from jaxcluster.cli.console import complain

        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            code = signals.EXIT_CODES[error.signal if isinstance(error, signals.Stopped) else signal.SIGINT]
            complain(signals.EXIT_WORDS[code], signals.stop_message(), "yellow")
            raise typer.Exit(code) from error


def message_of(error: Exception) -> str:
    """One line for a mistake; where a command or option is unknown it lists the known ones."""
    text = one_line(error.format_message() if isinstance(error, UsageError) else error)
    ctx = getattr(error, "ctx", None)
    if ctx is None:
        return text
    if hasattr(error, "possibilities"):
        known = [option for param in ctx.command.params for option in param.opts if option.startswith("--")]
        return f"{text.rstrip('.')}. The options of {ctx.command_path} are {', '.join(known)}."
    if text.startswith("No such command"):
        return f"{text} The commands are {', '.join(ctx.command.commands)}."
    return f"{text.rstrip('.')}. See {ctx.command_path} --help."


app = typer.Typer(
    cls=Commands,
    name="jaxcluster",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (fit, predict, report, score, sweep, transport, info):
    app.command()(command)


def _show_version(wanted: bool) -> bool:
    if wanted:
        import jaxcluster

        typer.echo(f"jaxcluster {jaxcluster.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def commands(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with every error.")] = False,
) -> None:
    """Cluster rows of numbers: from a file to labels, a model, scores and a report.

    To begin with, try: jaxcluster fit kmeans digits --k 10 --out runs/digits
    """
