"""Arguments and options that several commands share, and the layout of their help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from jaxcluster.cli.errors import UserError
from jaxcluster.cli.inputs import LAYOUT, Source

METHOD, INPUT, OUTPUT = "Method", "Input", "Output"
"""Headings under which help lists options."""


class Scale(StrEnum):
    """Scaling of the columns or rows, as `jaxcluster.datasets.SCALINGS` has them."""

    none = "none"
    standard = "standard"
    minmax = "minmax"
    l2 = "l2"


class Imputing(StrEnum):
    """Imputation of missing cells, as `jaxcluster.datasets.IMPUTATIONS` has them."""

    mean = "mean"
    median = "median"
    knn = "knn"


class StopWord(StrEnum):
    """Lists of stop words, as `jaxcluster.datasets.texts.STOP_WORDS` has them."""

    english = "english"


def option(*names: str, help: str, panel: str = INPUT, **more: Any) -> Any:
    """An option without a default to show, under a heading of the help."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        help="A .npy, .npz, .csv, .tsv, .jsonl, .parquet, .xlsx, .h5ad or idx file, text also compressed "
        "(.gz, .zst, .bz2, .xz); sparse rows in .npz (SciPy) or .svm; a folder of .txt files; "
        "a pattern of tables in quotation marks, 'part-*.csv'; - for a table on standard input; or a built-in set: "
        "digits, iris, wine, breast_cancer, blobs:n=1000,d=2,k=5, moons:n=1000, circles:n=1000.",
    ),
]
Key = Annotated[
    str | None,
    option(
        "--key",
        "--obsm",
        metavar="NAME",
        help="The array of an .npz file that holds the rows, the sheet of an .xlsx file, or the entry of obsm in an "
        ".h5ad file, such as X_pca; its X, unless given.",
    ),
]
Columns = Annotated[
    str | None,
    option(metavar="A,B,...", help="The columns to cluster, by name or by number from 0. All, unless given."),
]
Drop = Annotated[
    str | None, option("--drop", metavar="A,B,...", help="Columns to leave out, by name or by number from 0.")
]
RowId = Annotated[
    str | None,
    option(
        "--id", metavar="COLUMN", help="The column that names the rows: the first one of labels.csv, and not clustered."
    ),
]
Encode = Annotated[
    list[str] | None,
    option(
        "--encode",
        metavar="onehot|ordinal|COLUMN=CODE",
        help="Make numbers of columns of words: onehot gives each word a column of 0 and 1, ordinal numbers the words. "
        "For one column: COLUMN=onehot, or its order, 'size=small<medium<large'. May be repeated.",
    ),
]
Dates = Annotated[
    bool, option("--dates", help="Take columns of dates as days since 1970-01-01. They are an error otherwise.")
]
NA = Annotated[
    list[str] | None,
    option(
        "--na",
        metavar="CELL",
        help="A cell that is a missing value, besides the usual ones (empty, NA, nan, null, ...), such as ? or -999. "
        "May be repeated.",
    ),
]
Impute = Annotated[
    Imputing | None,
    option(
        "--impute",
        help="Fill missing cells: by the mean or the median of their column, or by the mean of the nearest rows (knn). "
        "Words get the frequencies of their column, with median its most frequent one.",
    ),
]
Text = Annotated[
    str | None,
    option(
        metavar="COLUMN",
        help="A column of texts to cluster by the weights of their terms (TF-IDF), and no other column.",
    ),
]
StopWords = Annotated[
    StopWord | None, option(help="Leave out the commonest words of texts; those of English are known.")
]
MaxTerms = Annotated[
    int | None,
    option(metavar="N", min=1, help="Maximum number of terms of texts: the commonest ones. All, unless given."),
]
Truth = Annotated[
    str | None,
    option(
        metavar="COLUMN|FILE",
        help="The known classes, to compare the clusters with: a column, another array of the .npz file, or another "
        "file. They are never clustered. Built-in sets bring their own; a folder of texts may take the names of its "
        "folders (--truth folder), and .svm its labels (--truth label).",
    ),
]
Weights = Annotated[
    str | None,
    option(
        metavar="COLUMN|FILE", help="A weight for each row: a column, which is then not clustered, or another file."
    ),
]
Header = Annotated[
    bool | None,
    option(
        "--header/--no-header",
        help="The first line of a .csv or .tsv file holds the names of its columns. This, --delimiter, --decimal and "
        "--encoding are found out from the first lines, unless given.",
    ),
]
Delimiter = Annotated[
    str | None,
    option(metavar="CHAR", help="Separator of its fields: one character, or tab, semicolon, pipe, comma or blank."),
]
Decimal = Annotated[
    str | None, option(metavar=".|,", help="Decimal mark of its numbers; the other may separate thousands.")
]
Encoding = Annotated[
    str | None, option(metavar="NAME", help="Encoding of its text, such as utf-8, utf-16, latin-1 or cp1252.")
]
Scaling = Annotated[
    Scale,
    typer.Option(
        rich_help_panel=INPUT,
        help="Before clustering: standard gives each column mean 0 and deviation 1, minmax the range 0 to 1, "
        "l2 gives each row length 1. Use standard or minmax where columns have different units. All one-hot columns "
        "of a column of words have together half of the variance of a column of numbers.",
    ),
]
MustLink = Annotated[
    Path | None,
    option(
        metavar="FILE",
        panel=METHOD,
        help="Pairs of rows to put together: a .npy or .csv file of two columns, row numbers from 0.",
    ),
]
CannotLink = Annotated[Path | None, option(metavar="FILE", panel=METHOD, help="Pairs of rows to keep apart.")]
Labels = Annotated[
    str | None,
    option(
        metavar="FILE|SHARE",
        panel=METHOD,
        help="Classes to learn from: a file with one a row, -1 for those not known; or a share of the truth, such as "
        "0.1, drawn by the seed.",
    ),
]
Resume = Annotated[
    bool | None,
    option("--resume", panel=OUTPUT, help="Resume from the checkpoints that the same command wrote before it stopped."),
]
TensorBoard = Annotated[
    Path | None,
    option(metavar="DIR", panel=OUTPUT, help="Write losses for TensorBoard too; needs tensorboardX."),
]
Param = Annotated[
    list[str] | None,
    option(
        metavar="NAME=VALUE",
        panel=METHOD,
        help="Any other parameter; may be repeated. For a wrong name the error lists all the right ones.",
    ),
]
Seed = Annotated[
    int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="The same seed gives the same result again.")
]
Out = Annotated[
    Path, typer.Option(metavar="DIR", show_default=False, help="The folder to write the run to: a new one.")
]
Stream = Annotated[
    bool,
    typer.Option(
        "--stream", rich_help_panel=METHOD, help="Read the rows of .npy and .parquet files block by block in each step."
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        rich_help_panel=METHOD,
        help="--stream for rows that take more than this, such as 900MiB or 4GB.",
    ),
]
Distributed = Annotated[
    bool,
    typer.Option(
        "--distributed", rich_help_panel=METHOD, help="Join a job that Slurm, Open MPI or Kubernetes has started."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", rich_help_panel=OUTPUT, help="Replace what an earlier run wrote there.")
]
NoReport = Annotated[
    bool, typer.Option("--no-report", rich_help_panel=OUTPUT, help="Leave out report.html: faster, for batch jobs.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", rich_help_panel=OUTPUT, help="Print nothing but warnings and errors.")
]

SOURCE = {
    "data": Data,
    "impute": Impute,
    "columns": Columns,
    "drop": Drop,
    "row_id": RowId,
    "truth": Truth,
    "weights": Weights,
    "encode": Encode,
    "dates": Dates,
    "na": NA,
    "text": Text,
    "stop_words": StopWords,
    "max_terms": MaxTerms,
    "key": Key,
    "header": Header,
    "delimiter": Delimiter,
    "decimal": Decimal,
    "encoding": Encoding,
}
"""Options of the fields of `jaxcluster.cli.inputs.Source`, in the order of the help."""

NEW_ROWS = ("data", "columns", "row_id", "na", "text", "key", *LAYOUT)
"""Options of rows for a fitted model, which knows the rest from its fit."""


def gather(
    parameter: str, make: Callable[..., Any], names: Sequence[str], **annotations: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command so that one of its parameters is made of several options.

    Args:
        parameter: name of the parameter; the options take its place in the help.
        make: called with the options by name, words of an enumeration as plain text.
        names: of the options, in `SOURCE`.
        annotations: of options that differ from those in `SOURCE`.
    """
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=Source._field_defaults.get(name, inspect.Parameter.empty),
            annotation=annotations.get(name, SOURCE[name]),
        )
        for name in names
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any, **values: Any) -> None:
            parts = {name: values.pop(name) for name in names if name in values}
            parts = {name: part.value if isinstance(part, StrEnum) else part for name, part in parts.items()}
            command(*args, **{parameter: make(**parts)}, **values)

        signature = inspect.signature(command, eval_str=True)
        taken = [each.name for each in signature.parameters.values()]
        own = list(signature.parameters.values())
        at = taken.index(parameter)
        run.__signature__ = signature.replace(parameters=[*own[:at], *options, *own[at + 1 :]])
        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        return run

    return decorate


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

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words; a list that is given in parts is refused, of which only the last part would count."""
        order = [] if ctx.resilient_parsing else self.make_parser(ctx).parse_args(args=list(args))[2]
        for param in order:
            if ",..." in (param.metavar or "") and not param.multiple and order.count(param) > 1:
                name = param.opts[0]
                raise UserError(f"{name} is given {order.count(param)} times: write {name} {param.metavar} once.")
        return super().parse_args(ctx, args)
