"""Tables with categorical columns: which columns these are, and their categories as codes.

Categorical by its type is a column of text, of booleans or of a library's categories: pandas' category, object, str and
bool, polars' Categorical, Enum, String and Boolean, Arrow's dictionary, string and bool. A column of objects that are
all numbers is one of numbers. Categories are sorted: booleans, then numbers, then text; the code of a category is its
position.

>>> columns, table = read_mixed([["red", 1.5], ["blue", 2.5], ["red", 0.5]])
>>> columns.categories, table.codes[:, 0].tolist(), table.numbers[:, 0].tolist()
((('blue', 'red'),), [1, 0, 1], [1.5, 2.5, 0.5])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from jaxcluster.core.messages import warn
from jaxcluster.core.validation import check_no_keys, narrow_objects, widen
from jaxcluster.datasets.base import column_index, split_columns, stack_columns
from jaxcluster.datasets.dataframes import as_rows, column_names, is_missing, table_columns

Category = str | float | int | bool

MISSING, UNSEEN = -1, -2
"""Codes of a missing cell, and of a category that the fit has not seen."""

LISTED = 8
"""Most columns or values that a message lists."""


class MixedColumns(NamedTuple):
    """Columns of a table of a fit, all that new rows need to be read alike.

    Attributes:
        width: number of columns.
        names: of the columns; None without.
        categorical: positions of the categorical columns; the others are numbers.
        categories: for each of them its categories, in the order of their codes.
    """

    width: int
    names: tuple[str, ...] | None
    categorical: tuple[int, ...]
    categories: tuple[tuple[Category, ...], ...]

    def check(self, width: int) -> None:
        """Raise ValueError unless it describes so many columns: for one that was loaded from a file."""
        positions, names, words = self.categorical, self.names, self.categories
        if (
            not (isinstance(positions, tuple) and isinstance(words, tuple))
            or not all(isinstance(each, tuple) for each in words)
            or self.width != width
            or not all(type(j) is int and 0 <= j < width for j in positions)
            or len(set(positions)) != len(positions)
            or len(words) != len(positions)
            or not all(isinstance(word, (str, float, int)) for each in words for word in each)
            or not (names is None or (isinstance(names, tuple) and len(names) == width))
            or not all(isinstance(name, str) for name in names or ())
        ):
            raise ValueError(f"the columns of the fit are not {width} columns with their categories.")

    @property
    def numeric(self) -> list[int]:
        """Positions of the columns of numbers."""
        return [j for j in range(self.width) if j not in self.categorical]

    def title(self, column: int) -> str:
        """A column in a message: its name, or its position."""
        return str(column) if self.names is None else repr(self.names[column])

    def decode(self, numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """(m, width) rows from their (m, d) numbers and (m, q) codes; of objects if there are categories."""
        if not self.categorical:
            return np.array(numbers)
        rows = np.empty((len(codes), self.width), object)
        rows[:, self.numeric] = numbers
        for j, words, column in zip(self.categorical, self.categories, codes.T, strict=True):
            rows[:, j] = np.array([*words, None], object)[np.where(column < 0, len(words), column)]
        return rows

    def by_name(self, table: MixedTable) -> dict[str, np.ndarray]:
        """Columns of a table by name, or position: float64, or words as objects, None for a missing cell."""
        rows = self.decode(table.numbers, table.codes)
        names = [str(j) if self.names is None else self.names[j] for j in range(self.width)]
        kinds = [object if j in self.categorical else np.float64 for j in range(self.width)]
        return {name: column.astype(kind) for name, column, kind in zip(names, rows.T, kinds, strict=True)}

    def one_hot(self, numbers: np.ndarray, codes: np.ndarray, height: float = 1.0) -> tuple[np.ndarray, list[str]]:
        """Rows as numbers alone: a column of ``height`` or 0 for each category, after those of numbers.

        Returns:
            (n, d + number of categories) rows, NaN in the columns of a missing cell, and the names of their columns.
        """
        names = [self.title(j).strip("'") for j in self.numeric]
        blocks = [np.asarray(numbers, np.float64)]
        for j, words, column in zip(self.categorical, self.categories, codes.T, strict=True):
            block = height * (column[:, None] == np.arange(len(words)))
            blocks.append(np.where(column[:, None] == MISSING, np.nan, block))
            names += [f"{self.title(j).strip(chr(39))} = {word}" for word in words]
        return np.hstack(blocks), names


class MixedTable(NamedTuple):
    """Cells of a table of numbers and categories.

    Attributes:
        numbers: (n, d) numbers, NaN where missing.
        codes: (n, q) int32 codes; `MISSING`, or `UNSEEN` for a category that is none of the fit's.
    """

    numbers: np.ndarray
    codes: np.ndarray


def read_mixed(
    X: Any,
    *,
    categorical: Any = None,
    every: bool = False,
    like: MixedColumns | None = None,
    missing: bool = False,
    unseen: str = "warn",
    name: str = "X",
) -> tuple[MixedColumns, MixedTable]:
    """Read a table of numbers and categories.

    Args:
        X: (n, width) array, list of rows, or table of pandas, polars or Arrow.
        categorical: positions or names of the categorical columns, or a mask; None for those that are so by their type.
        every: True if all columns are categorical.
        like: columns of a fit, for new rows.
        missing: True accepts missing cells: None, NaN, and the missing values of the libraries.
        unseen: "warn" of categories that ``like`` has not, "raise" ValueError, or "ignore" them.
        name: of the table in messages.

    Returns:
        The columns, ``like`` itself for new rows, and the cells.

    Raises:
        ValueError, TypeError: missing cells, with their columns; text in a column of numbers; a column that there is
            not; values that are neither text, numbers nor booleans.

    Warns:
        UserWarning: new rows have a category that the fit has not seen; the message names column and value.
    """
    names, columns = _split_columns(X, name)
    kinds = [is_categorical(column) for column in columns]
    if like is not None:
        if len(columns) != like.width:
            raise ValueError(f"{name} has {len(columns)} columns, and {like.width} are expected.")
        chosen = like.categorical
    elif every:
        chosen = tuple(range(len(columns)))
    else:
        chosen = tuple(j for j, kind in enumerate(kinds) if kind)
        chosen = chosen if categorical is None else _chosen(categorical, names, len(columns), name)
    spec = MixedColumns(len(columns), names, chosen, ()) if like is None else like
    factors = [_factorize(columns[j], f"column {spec.title(j)} of {name}") for j in chosen]
    text = [j for j in spec.numeric if kinds[j]]
    if text:
        raise ValueError(
            f"{name} has text or categories in {_listed(spec, text)}, which "
            f"{'was one of numbers in the fit' if like else 'categorical= leaves out'}. "
            f"{'Pass numbers there' if like else 'Name it there, or drop it'}."
        )
    if like is None:
        spec = spec._replace(categories=tuple(_sorted_categories(words) for _, words in factors))
    numbers = _numbers(spec, columns, len(columns[0]), name)
    coded = [_codes(words, known) for (_, words), known in zip(factors, spec.categories, strict=True)]
    codes = np.empty((len(numbers), len(chosen)), np.int32)
    for i, ((number, _), of_words) in enumerate(zip(factors, coded, strict=True)):
        codes[:, i] = of_words[number]
    if not missing:
        _check_present(spec, numbers, codes, name)
    new_words = [
        (j, word)
        for j, (_, words), of_words in zip(chosen, factors, coded, strict=True)
        for word, code in zip(words, of_words, strict=False)
        if code == UNSEEN
    ]
    if new_words and unseen != "ignore":
        _tell_unseen(spec, new_words, codes, unseen, name)
    return spec, MixedTable(numbers, codes)


def _split_columns(X, name):
    """Names of the columns or None, and the columns, each an array or a column of a library."""
    if scipy.sparse.issparse(X):
        raise TypeError(f"{name} is a sparse matrix, whose absent cells are no categories. Pass {name}.toarray().")
    if np.ma.is_masked(X):
        raise ValueError(f"{name} is a masked array with {np.ma.count_masked(X)} masked entries. Fill them first.")
    X = as_rows(X, name=name)
    check_no_keys(X, name)
    if (titles := column_names(X)) is not None:
        names = tuple(titles) if all(isinstance(each, str) for each in titles) else None
        return names, table_columns(X)
    array = X if hasattr(X, "dtype") else np.asarray(X, object)
    array = np.asarray(array)
    if array.ndim == 1 and any(isinstance(row, (list, tuple, np.ndarray)) for row in array):
        raise ValueError(f"{name} is no table: its rows have different lengths. Make them one length.")
    if array.ndim != 2:
        raise ValueError(
            f"{name} must be 2-D (rows, columns), got shape {array.shape}. Reshape your data: a single column is "
            f"{name}.reshape(-1, 1), a single row {name}.reshape(1, -1)."
        )
    if array.dtype.kind == "c":
        raise ValueError(f"{name} is complex ({array.dtype}). Complex data not supported: pass its real parts.")
    if 0 in array.shape:
        raise ValueError(
            f"Found array with {array.shape[0]} sample(s) and {array.shape[1]} feature(s) (shape={array.shape}) while "
            f"a minimum of 1 is required: {name} is empty."
        )
    return None, list(array.T)


def _is_arrow(column) -> bool:
    return type(column).__module__.partition(".")[0] == "pyarrow"


def is_categorical(column) -> bool:
    """True for a column that is categorical by its type, or by its cells where these are objects."""
    if _is_arrow(column):
        from pyarrow import types

        kind = column.type
        text = (types.is_dictionary, types.is_string, types.is_large_string, types.is_string_view, types.is_boolean)
        return any(is_kind(kind) for is_kind in text)
    kind = column.dtype.kind
    return kind in "bUS" or (kind == "O" and not all(map(_is_number, np.asarray(column, object))))


def _is_number(cell):
    """True for a real number, or a missing cell."""
    number = isinstance(cell, (int, float, np.integer, np.floating)) and not isinstance(cell, (bool, np.bool_))
    return number or is_missing(cell)


def _chosen(categorical, names, width, where) -> tuple[int, ...]:
    """Positions of the columns that ``categorical`` names."""
    if isinstance(categorical, (str, int, np.integer)):
        categorical = split_columns(categorical if isinstance(categorical, str) else int(categorical))
    mask = np.asarray(categorical)
    if mask.dtype == bool:
        if mask.shape != (width,):
            raise ValueError(f"categorical as a mask must have one entry a column, ({width},), got {mask.shape}.")
        return tuple(np.flatnonzero(mask).tolist())
    for each in categorical:
        if not isinstance(each, (str, int, np.integer)):
            raise TypeError(f"categorical={categorical!r} must hold positions or names of columns, got {each!r}.")
    return tuple(sorted({column_index(each, names, width, where) for each in categorical}))


def _factorize(column, where) -> tuple[np.ndarray, list[Category]]:
    """Number of the value of each cell, −1 where it is missing, and the values in the order of their first cell."""
    if _is_arrow(column):
        codes, words = _factorize_arrow(column)
    elif column.dtype.kind == "O":
        codes, words = _factorize_objects(column)
    else:
        words, codes = np.unique(column, return_inverse=True)
    words = [_plain(word, where) for word in words]
    # NaN of a column of numbers is a value to the libraries, and a missing cell here.
    numbers = np.cumsum([word is not None for word in words]) - 1
    places = np.array([*np.where([word is None for word in words], -1, numbers), -1], np.int64)
    return places[np.asarray(codes).reshape(-1)], [word for word in words if word is not None]


def _factorize_arrow(column):
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    coded = column.dictionary_encode().combine_chunks()
    coded = coded.chunk(0) if isinstance(coded, pa.ChunkedArray) else coded
    return coded.indices.fill_null(-1).to_numpy(zero_copy_only=False), coded.dictionary.to_pylist()


def _factorize_objects(column):
    numbers: dict[Any, int] = {}
    words: list[Any] = []
    codes = np.empty(len(column), np.int64)
    for i, cell in enumerate(column):
        key = (type(cell) in (bool, np.bool_), cell) if cell.__hash__ else cell  # True == 1 in a dict
        try:
            codes[i] = numbers.setdefault(key, len(words))
        except TypeError:  # no hash, and so no category: `_plain` says so
            codes[i] = len(words)
        if codes[i] == len(words):
            words.append(cell)
    return codes, words


def _plain(word, where) -> Category | None:
    """A category as Python's own text, number or boolean; None for a missing one."""
    word = word.item() if isinstance(word, np.generic) else word
    if is_missing(word) or (isinstance(word, float) and word != word):
        return None
    if isinstance(word, float) and np.isinf(word):
        raise ValueError(f"{where} contains infinity, which is no category. Drop or replace those rows first.")
    if not isinstance(word, (str, int, float)):
        raise TypeError(
            f"{where} holds {str(word)[:40]!r} of type {type(word).__name__}. Categories are text, numbers or "
            "booleans: convert the column, for example by .astype(str)."
        )
    return str(word) if isinstance(word, str) else word + 0.0 if isinstance(word, float) else word  # no −0.0


def _codes(words, known):
    """Code of each value, and at the end that of a missing cell."""
    place = {_key(word): code for code, word in enumerate(known)}
    return np.array([*(place.get(_key(word), UNSEEN) for word in words), MISSING], np.int32)


def _key(word):
    """Order of categories: booleans, numbers, text. Numbers of one value are one category, but True is not 1."""
    return (0 if isinstance(word, bool) else 2 if isinstance(word, str) else 1, word)


def _sorted_categories(words):
    return tuple(word for _, word in sorted({_key(word): None for word in words}))


def _numbers(spec, columns, n, name) -> np.ndarray:
    """(n, d) columns of numbers in one dtype that holds them exactly."""
    if not spec.numeric:
        return np.zeros((n, 0), np.float32)
    blocks = [_number_column(columns[j], f"column {spec.title(j)} of {name}") for j in spec.numeric]
    x = stack_columns(blocks, [spec.title(j) for j in spec.numeric], name)
    if x.dtype.kind == "f" and np.isinf(x).any():
        bad = [spec.numeric[j] for j in np.flatnonzero(np.isinf(x).any(axis=0))]
        raise ValueError(
            f"{name} contains {int(np.isinf(x).sum())} infinity values in {_listed(spec, bad)}. Drop or replace "
            "those rows first."
        )
    return x


def _number_column(column, where):
    values = column.to_numpy() if _is_arrow(column) else np.asarray(column)
    if values.dtype.kind == "O":
        try:
            values = narrow_objects(
                np.array([np.nan if is_missing(cell) else cell for cell in values], object), name=where
            )
        except OverflowError as error:
            raise ValueError(
                f"{where} has integers beyond float64. Pass smaller numbers, such as differences or logarithms."
            ) from error
    values = widen(values[:, None])[:, 0]
    if values.dtype.kind not in "biuf":
        raise TypeError(
            f"{where} has dtype {values.dtype}, which is neither numeric nor categorical. Convert it: dates to numbers "
            "such as seconds since the first, or to text."
        )
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def _check_present(spec, numbers, codes, name):
    """Raise ValueError with the number of missing cells and their columns."""
    absent = np.zeros((len(codes), spec.width), bool)
    absent[:, list(spec.categorical)] = codes == MISSING
    if numbers.dtype.kind == "f":
        absent[:, spec.numeric] = np.isnan(numbers)
    if not absent.any():
        return
    bad = np.flatnonzero(absent.any(axis=0)).tolist()
    raise ValueError(
        f"{name} contains {int(absent.sum())} NaN values (missing cells) in "
        f"{_listed(spec, bad)}. Drop or impute those rows first; a category may also be given a word for 'missing'."
    )


def _listed(spec, columns):
    noun = "column " if len(columns) == 1 else "columns "
    return noun + ", ".join(map(spec.title, columns[:LISTED])) + (" …" if len(columns) > LISTED else "")


def _tell_unseen(spec, new_words, codes, unseen, name):
    shown = ", ".join(f"{word!r} in column {spec.title(j)}" for j, word in new_words[:LISTED])
    rows = int((codes == UNSEEN).any(axis=1).sum())
    if unseen == "raise":
        raise ValueError(f"{name} has categories that X does not: {shown}. Pass some that it has.")
    warn(
        f"{rows:,} row{' has' if rows == 1 else 's have'} categories that the fit has not seen, which differ from all: "
        f"{shown}{' …' if len(new_words) > LISTED else ''}."
    )


def category_counts(columns: MixedColumns) -> Sequence[int]:
    """Number of categories of each categorical column, at least 1."""
    return [max(1, len(words)) for words in columns.categories]
