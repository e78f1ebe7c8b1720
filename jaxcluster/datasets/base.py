"""What every reader gives back, and how it complains."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


def arrow_stream(path: Path) -> Any:
    """The bytes of a file, unzipped where its name ends in .gz, as pyarrow reads them."""
    import pyarrow as pa

    source = for_arrow(path)
    return pa.input_stream(source, compression="gzip" if path.suffix.lower() == ".gz" else None)


def for_arrow(path: Path) -> Any:
    """A path as pyarrow takes it; the opened file where its name is no text."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.open("rb")
    return str(path)


class DataError(ValueError):
    """A mistake in what was asked for or in the file: one line says what was seen and what to do."""


class DataNotFoundError(DataError, FileNotFoundError):
    """There is no such file."""


class Dataset(NamedTuple):
    """Rows to cluster and, where it is known, the class each belongs to.

    Attributes:
        name: what to call it in a report.
        x: (n, d) float32 or float64, whichever holds the numbers of the file exactly; 64-bit integers, or extended
            precision, where neither does. Missing cells of a table are NaN; most algorithms refuse them.
        y: (n,) integers or text, as given; None without a truth.
        columns: the d column names, or None where the file has none.
        image_shape: (h, w) or (h, w, c) where a row is a flattened image, else None.
        notes: what the reader decided where a file can be read in two ways, a sentence each.
    """

    name: str
    x: np.ndarray
    y: np.ndarray | None = None
    columns: list[str] | None = None
    image_shape: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()


class Format(NamedTuple):
    """The layout of a text table as far as the caller knows it; None is found out.

    Attributes:
        header: whether the first line holds the names of the columns.
        delimiter: one character, or a word of `jaxcluster.datasets.layout.DELIMITERS`; a blank stands for any run of
            blanks and tabs.
        decimal: "." or ",", the mark before the fraction of a number; the other may then separate thousands.
        encoding: of the text, as Python calls it.
    """

    header: bool | None = None
    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None


def listing(values: Iterable[Any], limit: int = 20) -> str:
    """The values, comma separated, on one line, cut off politely."""
    values = [" ".join(str(value).split()) for value in values]
    more = f", … ({len(values)} in all)" if len(values) > limit else ""
    return ", ".join(values[:limit]) + more


def unknown(what: str, value: Any, known: Iterable[str], shown: Iterable[str] | None = None) -> DataError:
    """The error for a name that is none of the known ones, ``shown`` as they are or in other words."""
    known = list(known)
    return DataError(
        f"{what} {value!r} is not known; there are: {listing(shown or known)}.{did_you_mean(value, known)}"
    )


def did_you_mean(value: Any, known: Iterable[str]) -> str:
    """A guess at the name that was meant, to end an error with; empty where none is near."""
    guess = difflib.get_close_matches(str(value), list(known), n=1)
    return f" Did you mean {guess[0]!r}?" if guess else ""


def as_list(columns: str | int | Sequence[str | int]) -> list[str | int]:
    """Columns as a list; a string is split at its commas, but for those between quotation marks."""
    if isinstance(columns, str):
        parts = next(csv.reader([columns], skipinitialspace=True), [])
        return [part.strip() for part in parts if part.strip()]
    return [columns] if isinstance(columns, (int, np.integer)) else list(columns)


def is_index(column: str | int) -> bool:
    """Whether a column is given by position: an integer, or text that is one."""
    return isinstance(column, (int, np.integer)) or re.fullmatch(r"-?\d+", column) is not None


def column_index(column: str | int, names: Sequence[str] | None, width: int, where: str) -> int:
    """Position of a column given by name or index (negative from the end; a string of digits is an index too)."""
    if names is not None and isinstance(column, str) and column in names:
        if list(names).count(column) > 1:
            found = [i for i, name in enumerate(names) if name == column]
            raise DataError(f"{where} has several columns named {column!r}: choose by index, one of {listing(found)}.")
        return list(names).index(column)
    if not is_index(column):
        if names is None:
            raise DataError(
                f"{where} has no column names, so {column!r} chooses nothing: pass indices from 0 to {width - 1}."
            )
        raise unknown(f"{where}: column", column, names)
    index = int(column)
    if not -width <= index < width:
        raise DataError(f"{where} has {width} columns: index {index} is outside 0 to {width - 1}.")
    return index % width


def choose_columns(
    columns: str | int | Sequence[str | int] | None, names: Sequence[str] | None, width: int, where: str
) -> list[int] | None:
    """Positions of the chosen columns, or None for all of them."""
    if columns is None:
        return None
    chosen = [column_index(column, names, width, where) for column in as_list(columns)]
    if not chosen:
        raise DataError(f"{where}: no columns were chosen. Name at least one, or leave the choice out for all.")
    return chosen


def apart(chosen: list[int], truth: int | None, where: str) -> list[int]:
    """``chosen``, unless the truth is among them."""
    if truth in chosen:
        raise DataError(f"{where}: column {truth} is both the truth and one of the chosen columns. Drop it from one.")
    return chosen


def without(
    column: str | int, chosen: list[int] | None, names: Sequence[str] | None, width: int, where: str
) -> list[int]:
    """The chosen positions, or all, but for a column that holds something else. Raises DataError if it was chosen."""
    index = column_index(column, names, width, where)
    if chosen is not None and index in chosen:
        raise DataError(f"{where}: column {column!r} holds something else, and is one of the chosen. Drop it from one.")
    return [i for i in range(width) if i != index] if chosen is None else chosen


def as_labels(values: Any, where: str) -> np.ndarray:
    """``values`` as (n,) labels, text or numbers as given; (n, 1) and (1, n) are flattened."""
    values = np.asarray(values)
    if values.ndim == 2 and 1 in values.shape:
        values = values.ravel()
    if values.ndim != 1 or values.size == 0:
        raise DataError(f"{where} has shape {values.shape}; labels must be one value a row, shape (n,).")
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind not in "biufU":
        raise DataError(f"{where} has dtype {values.dtype}; labels must be integers or text.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        missing = np.flatnonzero(~np.isfinite(values))
        raise DataError(f"{where} has {missing.size} missing labels, the first in row {missing[0]}. Fill or drop them.")
    return values


def check_lengths(dataset: Dataset, where: str) -> Dataset:
    """``dataset`` if it has a label for every row."""
    if dataset.y is not None and len(dataset.y) != len(dataset.x):
        raise DataError(f"{where}: {len(dataset.x)} rows but {len(dataset.y)} truth labels. They must go together.")
    return dataset
