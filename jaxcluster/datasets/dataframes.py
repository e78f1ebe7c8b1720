"""Tables of all libraries that narwhals knows, pandas, polars, Arrow, Modin and cuDF among them, and lazy ones.

`as_rows` is what every estimator calls first: a table becomes one of narwhals, an array of another framework one of
NumPy or JAX that shares its memory. Text, categories and booleans are then read as columns of Arrow, numbers as NumPy
arrays, so that no other module knows a library of tables.

>>> import pyarrow as pa
>>> table = as_rows(pa.table({"a": [1, 2], "b": [0.5, None]}))
>>> table.columns, number_matrix(table).tolist()
(['a', 'b'], [[1.0, 0.5], [2.0, nan]])
"""

from __future__ import annotations

import datetime
from collections import Counter
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxcluster.core import validation
from jaxcluster.core.dtypes import beyond_float64
from jaxcluster.core.interchange import as_array
from jaxcluster.core.sources import RowSource
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.datasets.base import DataError, listing, stack_columns

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

PLAIN = (np.ndarray, jax.Array, list, tuple, str, bytes, dict, set, RowSource, type(None))
"""Types that are no table of a library."""

SHOWN = 40
"""Most characters of a cell in a message."""

WORDS_REMEDY = "Encode or drop such columns, or take KPrototypes, which clusters numbers and words."
"""Advice on columns of words in rows for a method of numbers."""


def as_rows(X: Any, *, name: str = "X") -> Any:
    """Rows of a caller in a form that all modules know; what is no table and no array stays as it is.

    Args:
        X: a table of a library, lazy ones too, which are computed; an array of another framework; or anything.
        name: of it in messages.

    Returns:
        A narwhals DataFrame, a NumPy or JAX array, the rows of an AnnData object, or ``X``.

    Raises:
        ValueError: two columns of one name.
        TypeError: an array that cannot be shared; see `jaxcluster.core.interchange`.
    """
    if isinstance(X, PLAIN) or is_sparse(X):
        return X
    if is_annotated(X):
        return annotated_rows(X, name=name)
    table = as_dataframe(X, name=name)
    return as_array(X, name=name) if table is None else table


def is_annotated(X: Any) -> bool:
    """True for an AnnData object, of which the rows are in ``X``."""
    return any(each.__name__ == "AnnData" and each.__module__.startswith("anndata") for each in type(X).__mro__)


def annotated_rows(data: Any, key: str | None = None, *, name: str = "X") -> Any:
    """Rows of an AnnData object: its ``X``, or its ``obsm[key]``.

    Args:
        data: AnnData, in memory or backed by a file, of which the rows are then read.
        key: of ``obsm``, such as "X_pca"; None for ``X``.
        name: of the object in messages.

    Returns:
        (n_cells, width) NumPy array or SciPy matrix.

    Raises:
        DataError: no such key, or no ``X``.
    """
    spaces = list(data.obsm.keys())
    known = f"obsm has: {listing(spaces)}" if spaces else "obsm is empty"
    if key is not None and key not in spaces:
        raise DataError(f"{name} has no obsm[{key!r}]; {known}.")
    rows = data.X if key is None else data.obsm[key]
    if rows is None:
        raise DataError(f"{name} has no X; {known}. Choose one of them, such as {name}.obsm[KEY].")
    rows = rows.to_memory() if hasattr(rows, "to_memory") else rows
    if is_sparse(rows):
        return rows
    table = as_dataframe(rows, name=name)
    return np.asarray(as_array(rows, name=name)) if table is None else number_matrix(table, name=name)


def as_dataframe(X: Any, *, name: str = "X") -> nw.DataFrame[Any] | None:
    """Table of a library as a narwhals DataFrame, computed if it is lazy; None for anything else."""
    if isinstance(X, PLAIN) or is_sparse(X):
        return None
    import narwhals.stable.v2 as nw
    from narwhals.exceptions import DuplicateError

    try:
        table = nw.from_native(X, pass_through=True)
    except DuplicateError as error:
        names = getattr(X, "column_names", getattr(X, "columns", ()))  # Arrow's name for it, and the others'
        repeated = [each for each, count in Counter(map(str, names)).items() if count > 1]
        raise ValueError(
            f"{name} has more than one column of the name {', '.join(map(repr, repeated))}. Rename them."
        ) from error
    if not isinstance(table, (nw.DataFrame, nw.LazyFrame)):
        if not hasattr(X, "__arrow_c_stream__") or nw.dependencies.is_into_series(X):
            return None
        table = nw.DataFrame.from_arrow(X, backend="pyarrow")
    return table.collect() if isinstance(table, nw.LazyFrame) else table


def column_names(X: Any) -> list[Any] | None:
    """Names of the columns of a table that `as_rows` has read; None for an array."""
    names = getattr(X, "columns", None)
    return None if names is None or isinstance(X, RowSource) else list(names)


def table_columns(table: nw.DataFrame[Any]) -> list[Any]:
    """Columns of a table: Arrow arrays for text, categories and booleans, NumPy arrays for all else."""
    return [_column(series) for series in table.iter_columns()]


def _column(series):
    import narwhals.stable.v2 as nw
    import pyarrow as pa

    if series.dtype in (nw.String, nw.Categorical, nw.Enum, nw.Boolean):
        try:
            column = series.to_arrow()
        except (pa.ArrowException, UnicodeError):  # categories that Arrow has no type for, or undecodable bytes in text
            return np.asarray(series.to_numpy(), object)
        return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    return _numbers_of(series)


def _numbers_of(series):
    """NumPy array of a column: of numbers, NaN where missing, if it has some; dates and objects as they are."""
    import narwhals.stable.v2 as nw

    if series.dtype.is_decimal() or series.dtype in (nw.Int128, nw.UInt128):
        series = series.cast(nw.Float64)
    if series.dtype == nw.Boolean and series.is_null().any():
        return series.cast(nw.Float64).to_numpy()
    if series.dtype == nw.Time:  # Python's times have no nanoseconds
        return series.cast(nw.Int64).fill_null(0).to_numpy().astype("m8[ns]")
    values = series.to_numpy()
    if values.ndim > 1:  # lists of one length, or fields
        cells, values = values, np.empty(len(values), object)
        values[:] = list(cells)
    if values.dtype.kind == "O" and series.dtype.is_numeric():  # missing cells of a library's own
        values = np.array([np.nan if is_missing(cell) else cell for cell in values], np.float64)
    return values


def is_missing(cell: Any) -> bool:
    """True for None, NaN, and the missing values of pandas."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(cell, float) and bool(cell != cell)


def number_matrix(table: nw.DataFrame[Any], *, name: str = "X") -> np.ndarray:
    """Matrix of a table whose columns are all numbers, (n, n_columns), NaN where a cell is missing.

    Integers and booleans keep their type where all columns have one.

    Raises:
        ValueError, TypeError: text, dates, lists or other objects; the message names the column and what to do.
    """
    columns = [_number_column(series, name) for series in table.iter_columns()]
    if not columns:
        return np.zeros((len(table), 0))
    dtype = np.result_type(*columns)
    if dtype.kind == "f" and any(beyond_float64(column) for column in columns):
        return stack_columns(columns, [repr(each) for each in table.columns], name)
    x = np.empty((len(table), len(columns)), dtype)
    for j, column in enumerate(columns):
        x[:, j] = column
    return x


def _number_column(series, name):
    values = _numbers_of(series)
    if values.dtype.kind in "biuf":
        return validation.widen(values) if values.dtype == np.longdouble else values
    if values.dtype.kind == "O" or values.dtype.kind in "SU":
        return _of_objects(values, f"column {series.name!r}", name)
    where = f"column {series.name!r}"
    if values.dtype.kind in "mM":
        shown = repr(next((str(cell)[:SHOWN] for cell in values if not np.isnat(cell)), "NaT"))
        raise ValueError(
            f"{name} has dates or durations in {where}, such as {shown}. Pass numbers, such as seconds since the first."
        )
    if values.dtype.kind == "c":
        raise ValueError(f"{name} is complex in {where}. Complex data not supported: pass its real parts.")
    raise TypeError(f"{name} has dtype {values.dtype} in {where}, which is not numeric. Pass numbers, or drop it.")


def _of_objects(cells, where, name) -> np.ndarray:
    """Column of objects as 64-bit integers or float64, where all of them are numbers."""
    bad = next((cell for cell in cells if not (is_missing(cell) or _is_real(cell))), None)
    if bad is None:
        try:
            numbers = np.array([np.nan if is_missing(cell) else cell for cell in cells], object)
            return validation.narrow_objects(numbers, name=f"{where} of {name}")
        except OverflowError as error:
            raise ValueError(
                f"{name} has integers beyond float64 in {where}. Pass smaller numbers, such as differences or "
                "logarithms."
            ) from error
    shown = repr(str(bad)[:SHOWN])
    if isinstance(bad, (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)):
        raise ValueError(
            f"{name} has dates or durations in {where}, such as {shown}. Pass numbers, such as seconds since the first."
        )
    if not isinstance(bad, (str, bytes)):
        raise TypeError(
            f"{name} has objects of type {type(bad).__name__} in {where}, such as {shown}. Pass one number in each "
            "cell: a list is np.stack(column), and anything else is to be encoded or dropped."
        )
    if all(is_missing(cell) or _is_text_of_number(cell) for cell in cells):
        raise ValueError(
            f"{name} holds numbers as text in {where}, such as {shown}. Make them numbers, such as by .astype(float)."
        )
    if any(_is_real(cell) and not is_missing(cell) for cell in cells):
        raise ValueError(
            f"{name} has text beside numbers in {where}, such as {shown}. Replace it by numbers or missing cells, or "
            "encode or drop the column."
        )
    raise ValueError(f"{name} has text in {where}, such as {shown}. {WORDS_REMEDY}")


def _is_real(cell):
    return isinstance(cell, (bool, int, float, np.bool_, np.integer, np.floating)) or hasattr(cell, "as_integer_ratio")


def _is_text_of_number(cell):
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True
