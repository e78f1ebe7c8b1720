"""The application: its commands, and its errors and exit codes."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from jaxcluster.cli import run as runs
from jaxcluster.cli.compare import compare
from jaxcluster.cli.errors import UsageError, UserError, one_line
from jaxcluster.cli.fit import Methods
from jaxcluster.cli.options import Command, paragraphs, plain_flags
from jaxcluster.cli.plan import plan
from jaxcluster.cli.predict import embed, predict
from jaxcluster.cli.report import profile, report
from jaxcluster.cli.runtime import begin, follows, info, launch
from jaxcluster.cli.score import score
from jaxcluster.cli.sweep import sweep
from jaxcluster.cli.transport import transport
from jaxcluster.core import signals
from jaxcluster.core.messages import did_you_mean

REASONS = {
    "int_parsing": "is not a whole number",
    "int_from_float": "is not a whole number",
    "float_parsing": "is not a number",
    "greater_than_equal": "must be at least {limit}",
    "greater_than": "must be greater than {limit}",
    "less_than_equal": "must be at most {limit}",
    "less_than": "must be less than {limit}",
}
"""Reasons why a value is wrong, to follow it in a sentence, by the kind of the type checker's error."""

FIRST_WORD_SECONDS = 2.0
"""Time that an error of another process of a job waits for the first one, which most often has the same and ends it."""


class Commands(TyperGroup):
    """All commands. An error that a user can correct is one line on stderr, exit code 2; a defect keeps its traceback.

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
        """Run a command and exit with its code."""
        begin()
        from jaxcluster.cli.console import WARNED, complain, warnings_in_one_line

        WARNED.clear()
        args = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in args
        args = [arg for arg in args if arg != "--debug"] or ["--help"]
        runs.ARGV.set(args)
        signals.set_stop_message("" if follows() else signals.NOTHING_WRITTEN)
        try:
            with warnings_in_one_line():
                code = super().main(args, prog_name, standalone_mode=False, **extra)
        except (UserError, UsageError) as error:
            if debug:
                traceback.print_exc()
            if follows():
                time.sleep(FIRST_WORD_SECONDS)
            complain("Error", message_of(error), "red")
            code = 2
        code = code if isinstance(code, int) else 0
        if code and (job := sys.modules.get("jaxcluster.distributed")) is not None and job.has_joined():
            job.leave(code)  # the other processes of the job would wait for this one
        sys.exit(code)

    def get_params(self, ctx: Any) -> list[Any]:
        """The options before the command."""
        return plain_flags(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands, ``fit`` first: typer lists groups last."""
        return sorted(self.commands, key=lambda name: name != "fit")

    def invoke(self, ctx: Any) -> Any:
        """Run a command; one that is stopped says what it leaves."""
        from jaxcluster.cli.console import complain

        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            code = signals.EXIT_CODES[error.signal if isinstance(error, signals.Stopped) else signal.SIGINT]
            if signals.stop_message():
                complain(signals.EXIT_WORDS[code], signals.stop_message(), "yellow")
            raise typer.Exit(code) from error


def message_of(error: Exception) -> str:
    """One line for an error; for an unknown command or option it lists the known ones."""
    text = one_line(error.format_message() if isinstance(error, UsageError) else error)
    ctx = getattr(error, "ctx", None)
    if ctx is None:
        return text
    if hasattr(error, "possibilities"):
        known = [option for param in ctx.command.params for option in param.opts if option.startswith("--")]
        hint = did_you_mean(getattr(error, "option_name", ""), known)
        text = text.partition(" (Possible options")[0].rstrip(".")
        return f"{text}.{hint} The options of {ctx.command_path} are {', '.join(known)}."
    if text.startswith("No such command"):
        return f"{text} The commands are {', '.join(ctx.command.list_commands(ctx))}."
    if "unexpected extra argument" in text:
        text = f"{text.rstrip('.')}. One DATA is read: put quotation marks around a pattern of files."
    return f"{_with_value(error, text).rstrip('.')}. See {ctx.command_path} --help."


def _with_value(error: Exception, text: str) -> str:
    """The message for a value of an option, with the value: the message of the type checker leaves it out."""
    errors = getattr(error.__cause__, "errors", None)
    if errors is None:
        return text
    found = errors()[0]
    value, context = repr(found["input"]), found.get("ctx", {})
    limit = next((context[name] for name in ("ge", "gt", "le", "lt") if name in context), "")
    reason = str(REASONS.get(found["type"], found["msg"])).format(limit=limit).removeprefix("Value error, ")
    return text.replace(found["msg"], reason if value in reason else f"{value} {reason}")


app = typer.Typer(
    cls=Commands,
    name="jaxcluster",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

fit = typer.Typer(cls=Methods, subcommand_metavar="ALGO DATA --out DIR [OPTIONS]", rich_markup_mode="rich")
app.add_typer(fit, name="fit")


@fit.callback()
def methods() -> None:
    """Cluster the rows of a data set; write labels, model, scores and a report to a folder.

    Each method has options of its own: jaxcluster fit kmeans --help shows them. For example:

      jaxcluster fit kmeans digits --k 10 --out runs/digits
    """


for command in (predict, embed, profile, report, compare, score, sweep, transport, plan, launch, info):
    app.command(cls=Command, help=paragraphs(command.__doc__ or ""))(command)


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
