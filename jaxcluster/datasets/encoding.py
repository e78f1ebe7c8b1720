"""Encoding of a table's columns of words, truth values and dates as numbers, stored so that new rows get the same.

>>> rules("onehot", "size=small<large")
Rules(default='onehot', columns={'size': ('small', 'large')})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster.core.messages import did_you_mean
from jaxcluster.datasets.base import DataError, listing
from jaxcluster.datasets.dates import as_days, as_moments, as_text, is_dates
from jaxcluster.datasets.layout import is_number

if TYPE_CHECKING:
    import pyarrow as pa

CODES = ("onehot", "ordinal")

MIN_NAMES, MAX_DISTINCT = 20, 0.5
"""Distinct words, and the fraction of the rows, above which a column names its rows instead of grouping them."""


class ColumnCode(NamedTuple):
    """Code of one column of a table.

    Attributes:
        name: of the column.
        kind: "number", "boolean", "days", "onehot" or "ordinal".
        categories: words of "onehot" and "ordinal"; the position of a word is its ordinal number.
        width: number of features: 1, as many as categories, or as many as a list of numbers has elements.
    """

    name: str
    kind: str
    categories: tuple[str, ...] = ()
    width: int = 1

    @property
    def features(self) -> list[str]:
        """Names of the features."""
        if self.kind == "onehot":
            return [f"{self.name}={category}" for category in self.categories]
        return [self.name] if self.width == 1 else [f"{self.name}[{j}]" for j in range(self.width)]


class Encoding(NamedTuple):
    """Codes of the columns of a table, in the order of its features.

    Attributes:
        columns: one code each.
        lenient: True if a word that the fit has not seen counts as a missing cell, else it is an error.
    """

    columns: tuple[ColumnCode, ...]
    lenient: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the columns of the table."""
        return [column.name for column in self.columns]

    @property
    def features(self) -> list[str]:
        """Names of the features."""
        return [name for column in self.columns for name in column.features]

    def slices(self) -> list[slice]:
        """Features of each column."""
        ends = np.cumsum([0, *(column.width for column in self.columns)])
        return [slice(int(a), int(b)) for a, b in pairwise(ends)]

    def check(self, width: int) -> None:
        """Raise ValueError unless it gives rows of so many features: for one that was loaded from a file."""
        kinds = {"number", "boolean", "days", *CODES}
        for code in self.columns:
            words = code.kind in CODES
            if code.kind not in kinds or words != bool(code.categories):
                raise DataError(f"column {code.name!r} has no code that is known.")
        if len(self.features) != width or sum(code.width for code in self.columns) != width:
            raise DataError(f"an encoding as {len(self.features)} features does not fit {width} columns.")

    def decode(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of the table, read back from features: words as objects, None for a missing cell, and dates.

        Features that were imputed give the likeliest word.
        """
        columns = {}
        for code, at in zip(self.columns, self.slices(), strict=True):
            block = np.asarray(x[:, at], np.float64)
            missing = np.asarray(np.isnan(block).any(axis=1))
            filled = np.where(missing[:, None], 0, block)
            if code.kind in CODES:
                index = filled.argmax(axis=1) if code.kind == "onehot" else np.rint(filled[:, 0]).astype(int)
                columns[code.name] = _with_none(np.array(code.categories, object)[index], missing)
            elif code.kind == "boolean":
                columns[code.name] = _with_none(np.where(filled[:, 0] >= 0.5, "true", "false"), missing)
            elif code.kind == "days":
                columns[code.name] = as_moments(block[:, 0])
            else:
                columns |= dict(zip(code.features, block.T, strict=True))
        return columns


def _with_none(words: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Words as objects, None where they are missing."""
    words = words.astype(object)
    words[missing] = None
    return words


class Rules(NamedTuple):
    """The wish of a caller: a code for all columns of words (or None), and those of single columns by name."""

    default: str | None
    columns: dict[str, Any]


def rules(*texts: str) -> Rules:
    """Rules of ``onehot`` or ``ordinal`` for all columns of words, ``NAME=onehot``, or ``NAME=small<medium<large``.

    Raises:
        DataError: other texts.
    """
    default, columns = None, {}
    for text in texts:
        name, equals, code = text.rpartition("=")
        if not equals:
            if text not in CODES:
                hint = did_you_mean(text, CODES)
                raise DataError(f"encode {text!r} must be onehot, ordinal, or NAME=onehot, NAME=small<large.{hint}")
            default = text
        elif code in CODES:
            columns[name] = code
        elif "<" in code:
            columns[name] = tuple(word.strip() for word in code.split("<"))
            if len(set(columns[name])) < len(columns[name]):
                raise DataError(f"encode {text!r} names a word twice.")
        else:
            raise DataError(f"encode {text!r}: {code!r} must be onehot, ordinal, or an order such as small<large.")
    return Rules(default, columns)


def fit_encoding(
    where: str, columns: Mapping[str, pa.ChunkedArray], wish: Rules, *, dates: bool, width: Callable[[Any], int]
) -> tuple[Encoding, list[str]]:
    """Find a code for each column.

    Args:
        where: name of the table, for messages.
        columns: by name.
        wish: of the caller.
        dates: take columns of dates as numbers of days.
        width: function that gives the number of features of a column of numbers.

    Returns:
        The encoding, and a note for each order that was found in the words alone.

    Raises:
        DataError: columns that have no code, naming all of them; words that name rows instead of grouping them.
    """
    unknown = [name for name in wish.columns if name not in columns]
    if unknown:
        raise DataError(
            f"{where}: column {unknown[0]!r} is to be encoded, and is not among those to cluster: {listing(columns)}."
            f"{did_you_mean(unknown[0], columns)}"
        )
    codes, notes, bad = [], [], []
    for name, column in columns.items():
        rule = wish.columns.get(name, wish.default)
        kind = _kind(column)
        if name not in wish.columns and kind in ("number", "boolean"):
            codes.append(ColumnCode(name, kind, width=width(column)))
        elif name not in wish.columns and is_dates(column):
            codes.append(ColumnCode(name, "days"))
            bad += [] if dates else [f"{name!r} (dates, such as {_first(column)})"]
        elif kind is None or rule is None:
            bad.append(f"{name!r} (holds {_first(column)})")
        else:
            code, note = _category_code(f"{where}: column {name!r}", name, column, rule, explicit=name in wish.columns)
            codes.append(code)
            notes += note
    if bad:
        remedy = "write dates as in 2024-04-03" if dates else "take dates as days since 1970-01-01 (dates=)"
        raise DataError(
            f"{where}: not numeric: column{'s' * (len(bad) > 1)} {listing(bad)}. Leave such columns out (drop=), "
            f"encode words (encode=), or {remedy}."
        )
    return Encoding(tuple(codes)), notes


def _kind(column: pa.ChunkedArray) -> str | None:
    """Kind of the cells: "number", "boolean" or "words"; None for others."""
    from pyarrow import types

    kind = column.type
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
        if types.is_string(kind):
            return None
    if types.is_boolean(kind):
        return "boolean" if kind == column.type else "number"
    if any(is_kind(kind) for is_kind in (types.is_integer, types.is_floating, types.is_decimal, types.is_null)):
        return "number"
    return "words" if types.is_string(kind) or types.is_large_string(kind) or is_dates(column) else None


def _first(column: pa.ChunkedArray) -> str:
    known = column.drop_null()
    return repr(str(known[0].as_py())[:40]) if len(known) else str(column.type)


def _category_code(
    where: str, name: str, column: pa.ChunkedArray, rule: Any, *, explicit: bool
) -> tuple[ColumnCode, list[str]]:
    """The code of a column of words, and a note on the order of its ordinal numbers."""
    cells = [cell for cell in as_words(column) if cell is not None]
    if not cells:
        raise DataError(f"{where} has no cell that is not missing. Leave it out (drop=).")
    words = sorted(set(cells))
    if not explicit:
        _check_words(where, cells, words)
    if isinstance(rule, tuple):
        if missing := [word for word in words if word not in rule]:
            raise DataError(f"{where} holds {listing(map(repr, missing), 5)}, which its order leaves out: add it.")
        return ColumnCode(name, "ordinal", rule), []
    if rule == "onehot":
        return ColumnCode(name, "onehot", tuple(words), len(words)), []
    order = listing((f"{word}={i}" for i, word in enumerate(words)), 8)
    return ColumnCode(name, "ordinal", tuple(words)), [
        f"column {name!r} is numbered by the alphabet: {order}; pass encode='{name}=A<B<C' for another order."
    ]


def _check_words(where: str, cells: Sequence[str], words: Sequence[str]) -> None:
    """Raise DataError for words that are numbers for the most part, or that name the rows."""
    other = [word for word in words if not is_number(word)]
    if other and 2 * sum(map(is_number, cells)) >= len(cells):
        raise DataError(
            f"{where} holds numbers, and {listing(map(repr, other), 5)}. Name the cells that are missing values (na=), "
            "correct them, or encode this column by its name (encode=)."
        )
    if len(words) > max(MIN_NAMES, MAX_DISTINCT * len(cells)):
        raise DataError(
            f"{where} holds {len(words):,} different words in {len(cells):,} rows: it names rows and groups none. "
            "Leave it out (drop=), or take it as the name of the rows (row_id=)."
        )


def as_words(column: pa.ChunkedArray) -> list[str | None]:
    """Cells as text without blanks around, None for a missing one; numbers that are whole have no fraction."""
    words: list[str | None] = []
    for cell in as_text(column).to_pylist():
        if isinstance(cell, bool):
            cell = str(cell).lower()
        elif isinstance(cell, float):
            cell = None if np.isnan(cell) else f"{cell:.0f}" if cell.is_integer() else repr(cell)
        words.append(None if cell is None else str(cell).strip() or None)
    return words


def encode_column(
    where: str, code: ColumnCode, column: pa.ChunkedArray, *, numbers: Callable[[str, Any], np.ndarray], lenient: bool
) -> tuple[np.ndarray, list[str]]:
    """Encode a column of a table, that of a fit or of new rows.

    Args:
        where: of the column, for messages.
        code: of the column.
        column: its cells.
        numbers: function that makes an array of a column of numbers.
        lenient: take unknown words as missing cells.

    Returns:
        (n,) or (n, width) numbers, NaN for missing cells; a note on unknown words.

    Raises:
        DataError: cells of another kind than those of the fit, or unknown words.
    """
    if code.kind == "days":
        return as_days(column, where), []
    if code.kind not in CODES:
        if _kind(column) not in ("number", "boolean"):
            raise DataError(f"{where} holds {_first(column)}, and the model was fitted on numbers there.")
        return numbers(where, column), []
    positions: dict[Any, float] = {word: float(i) for i, word in enumerate(code.categories)}
    cells = as_words(column)
    unknown = sorted({cell for cell in cells if cell is not None and cell not in positions})
    known = f"known are {listing(map(repr, code.categories), 8)}"
    if unknown and not lenient:
        raise DataError(
            f"{where} holds {listing(map(repr, unknown), 5)}, which the fit has not seen; {known}. Leave those rows "
            "out, or fit with imputation (impute=), where an unknown word is a missing cell."
        )
    rows = sum(cell in set(unknown) for cell in cells) if unknown else 0
    note = f"{where} holds {listing(map(repr, unknown), 5)} in {rows:,} rows, taken as missing cells; {known}."
    index = np.array([positions.get(cell, np.nan) for cell in cells], np.float64)
    if code.kind == "onehot":
        index = np.where(np.isnan(index)[:, None], np.nan, index[:, None] == np.arange(len(code.categories)))
    return index, [note] if unknown else []
