"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

METHOD, INPUT, OUTPUT = "Method", "Input", "Output"
"""Headings under which help lists options."""


class Scale(StrEnum):
    """Ways to scale rows, as `jaxcluster.datasets.SCALINGS` has them."""

    none = "none"
    standard = "standard"
    minmax = "minmax"
    l2 = "l2"


class Covariance(StrEnum):
    """What the components of a mixture may differ in."""

    full = "full"
    tied = "tied"
    diag = "diag"
    spherical = "spherical"


class Precision(StrEnum):
    """Of matrix products; "none" asks for nothing special, which is full float32."""

    none = "none"
    fast = "fast"


Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        help="A .npy, .npz, .csv, .tsv, .parquet or idx file, or a built-in set: digits, iris, wine, breast_cancer, "
        "blobs:n=1000,d=2,k=5, moons:n=1000, circles:n=1000.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", rich_help_panel=INPUT, show_default=False, help="Which array of an .npz file holds the rows."
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        rich_help_panel=INPUT,
        show_default=False,
        help="The columns to cluster, by name or by number from 0. All, unless given.",
    ),
]
Truth = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN|FILE",
        rich_help_panel=INPUT,
        show_default=False,
        help="What holds the known classes, to compare the clusters with: a column, another array of the .npz file, "
        "or another file. It is never clustered. Built-in sets bring their own.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN|FILE",
        rich_help_panel=INPUT,
        show_default=False,
        help="What holds a weight for each row: a column, which is then not clustered, or another file.",
    ),
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header",
        rich_help_panel=INPUT,
        show_default=False,
        help="Whether the first line of a .csv or .tsv file holds the names of its columns. This and the next three "
        "are found out from the first lines, unless given.",
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        metavar="CHAR",
        rich_help_panel=INPUT,
        show_default=False,
        help="What separates its fields: one character, or tab, semicolon, pipe, comma or blank.",
    ),
]
Decimal = Annotated[
    str | None,
    typer.Option(
        metavar=".|,",
        rich_help_panel=INPUT,
        show_default=False,
        help="What stands before the fraction of its numbers; the other may separate thousands.",
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=INPUT,
        show_default=False,
        help="Of its text, such as utf-8, utf-16, latin-1 or cp1252.",
    ),
]
Missing = Annotated[
    bool | None,
    typer.Option(
        "--missing",
        rich_help_panel=METHOD,
        show_default=False,
        help="Fit a mixture (gmm) to rows with missing cells: these are integrated out.",
    ),
]
Scaling = Annotated[
    Scale,
    typer.Option(
        rich_help_panel=INPUT,
        help="Before clustering: standard gives each column mean 0 and deviation 1, minmax the range 0 to 1, "
        "l2 gives each row length 1. Use one where columns have different units.",
    ),
]
Seed = Annotated[
    int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="The same seed gives the same result again.")
]
Init = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        rich_help_panel=METHOD,
        show_default=False,
        help="How to start: k-means++, random or k-means||; k-medoids by build or random; a mixture by kmeans, "
        "k-means++, random or random_from_data.",
    ),
]
MaxIter = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, rich_help_panel=METHOD, show_default=False, help="The most steps to take."),
]
Tol = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=0,
        rich_help_panel=METHOD,
        show_default=False,
        help="Stop when the centers move less: squared, as a share of the variance of the columns. A mixture stops "
        "when a step raises the log-likelihood of a row by less.",
    ),
]
CovarianceChoice = Annotated[
    Covariance | None,
    typer.Option(
        "--covariance",
        rich_help_panel=METHOD,
        show_default=False,
        help="The shape of a mixture's components: full is any ellipsoid, tied the same one for all, diag one along "
        "the axes, spherical a ball.",
    ),
]
RegCovar = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=0,
        rich_help_panel=METHOD,
        show_default=False,
        help="What a mixture adds to every variance, so that none vanishes: in squared units of the rows.",
    ),
]
PrecisionChoice = Annotated[
    Precision | None,
    typer.Option(
        "--precision", rich_help_panel=METHOD, show_default=False, help="fast trades digits for speed on accelerators."
    ),
]
Out = Annotated[
    Path,
    typer.Option(metavar="DIR", show_default=False, help="The folder to write the run to: a new one."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", rich_help_panel=OUTPUT, help="Replace what an earlier run wrote there.")
]
NoReport = Annotated[
    bool, typer.Option("--no-report", rich_help_panel=OUTPUT, help="Leave out report.html: faster, for batch jobs.")
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", rich_help_panel=OUTPUT, help="Print nothing but warnings and errors."),
]
