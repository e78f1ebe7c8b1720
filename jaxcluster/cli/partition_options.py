"""Options of methods that put every row in one of k clusters, and what else clusters must keep to."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jaxcluster.cli.errors import MistakeError

if TYPE_CHECKING:
    import numpy as np

MEDOIDS, BOUNDS = "k-medoids", "Bounds on clusters"
"""Headings under which help lists options."""


class Method(StrEnum):
    """How k-medoids looks for its medoids."""

    fasterpam = "fasterpam"
    clara = "clara"


MethodChoice = Annotated[
    Method | None,
    typer.Option(
        "--method",
        rich_help_panel=MEDOIDS,
        show_default=False,
        help="Among all rows, whose distances must fit in memory (fasterpam), or among samples of them (clara).",
    ),
]
SizeMin = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        rich_help_panel=BOUNDS,
        show_default=False,
        help="The fewest rows of a cluster of balanced-kmeans; as even as can be, unless given.",
    ),
]
SizeMax = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        rich_help_panel=BOUNDS,
        show_default=False,
        help="The most rows of a cluster of balanced-kmeans.",
    ),
]
MustLink = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=BOUNDS,
        show_default=False,
        help="Pairs of rows that constrained-kmeans must put together: a .npy or .csv file of two columns, row numbers "
        "from 0.",
    ),
]
CannotLink = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", rich_help_panel=BOUNDS, show_default=False, help="Pairs of rows that it must keep apart."
    ),
]


def read_pairs(path: Path, option: str) -> np.ndarray:
    """(m, 2) row numbers from a file.

    Raises:
        DataError, MistakeError: a file that cannot be read, or does not hold two columns of whole numbers.
    """
    import numpy as np

    from jaxcluster.datasets.loading import column_names, is_text_table, load

    names = column_names(path) or []
    numbers = bool(names) and all(name.isdigit() for name in names)  # a first line such as 0,1 is a pair
    pairs = load(path, header=False if numbers and is_text_table(path) else None).x
    if pairs.shape[1] != 2 or not np.array_equal(pairs, np.round(pairs)):
        raise MistakeError(f"{option} {path} must have two columns of row numbers, got shape {pairs.shape}.")
    return pairs.astype(np.int64)
