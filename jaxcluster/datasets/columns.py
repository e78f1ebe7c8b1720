"""Columns of Arrow as arrays of numbers, and their titles in messages.

>>> title_of(["length", ""], 1)
'number 1, without a name'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.core.messages import warn
from jaxcluster.datasets.base import DataError, arrow_compute, listing, stack_columns
from jaxcluster.datasets.layout import NUMBER, is_number

if TYPE_CHECKING:
    import pyarrow as pa

CHOOSE_HINT = (
    "Choose the columns to cluster (columns=), leave some out (drop=), name the one that names the rows (row_id=), "
    "the truth (truth=) or texts (text=), encode words (encode=), or take dates as numbers of days (dates=)."
)

MOST_INSPECTED = 10_000
"""Cells of a column that a message looks at, at most."""


def title_of(names: Sequence[str], column: int) -> str:
    """A column in a message: its name, or its position if it has none."""
    return repr(names[column]) if names[column] else f"number {column}, without a name"


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column that Arrow stores by categories, by runs, as views or as tensors, as one of plain values or lists."""
    import pyarrow as pa
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        return plain(column.cast(kind.value_type))
    if types.is_run_end_encoded(kind):
        chunks = [arrow_compute().run_end_decode(chunk) for chunk in column.chunks]
        return plain(pa.chunked_array(chunks, kind.value_type))
    if types.is_string_view(kind):
        return column.cast(pa.large_string())
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return column.cast(pa.large_list(kind.value_type))
    if isinstance(kind, pa.FixedShapeTensorType):
        return pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
    return column


def without_markers(column: pa.ChunkedArray, na: Sequence[str]) -> pa.ChunkedArray:
    """A column of which the cells that stand for missing values are null; numbers where only these were no numbers."""
    import pyarrow as pa
    from pyarrow import types

    compute = arrow_compute()
    if not na or types.is_nested(column.type):
        return column
    if types.is_string(column.type) or types.is_large_string(column.type):
        marked = compute.is_in(compute.utf8_trim_whitespace(column), value_set=pa.array(sorted(na), column.type))
    elif types.is_floating(column.type) or types.is_integer(column.type):
        numbers = [float(marker) for marker in na if is_number(marker)]
        marked = compute.is_in(column.cast(pa.float64(), safe=False), value_set=pa.array(numbers, pa.float64()))
    else:
        return column
    column = compute.if_else(marked, None, column)
    if not types.is_floating(column.type) and not types.is_integer(column.type) and compute.any(marked).as_py():
        cells = compute.utf8_trim_whitespace(column)
        numbers = compute.match_substring_regex(cells, f"^(?:{NUMBER['.'].pattern})$", ignore_case=True)
        if compute.all(numbers).as_py():
            return compute.replace_substring_regex(cells, r"^\+", "").cast(pa.float64())
    return column


def check_numeric(where: str, names: Sequence[str], columns: Mapping[int, pa.ChunkedArray | pa.Array]) -> None:
    """Raise DataError naming every column that is not numeric, with its first value that is no number."""
    bad = [(title_of(names, i), column) for i, column in columns.items() if not _is_numeric(column.type)]
    if not bad:
        return
    seen = listing(f"{title} (holds {_first_text(column)})" for title, column in bad)
    hint = marker_hint((title, _first_text(column), column) for title, column in bad if _text_at(column) is not None)
    raise DataError(f"{where}: not numeric: column{'s' if len(bad) > 1 else ''} {seen}.{hint} {CHOOSE_HINT}")


def marker_hint(columns: Iterable[tuple[str, str, Any]], decimal: str = ".") -> str:
    """A hint on the first column that holds numbers but for few cells, to follow a sentence; empty without one.

    Args:
        columns: title, quoted cell that is no number, and cells of each column that is not numeric.
        decimal: decimal mark of the numbers.
    """
    for title, cell, cells in columns:
        words = [str(word) for word in cells[:MOST_INSPECTED].to_pylist() if word is not None]
        if 2 * sum(is_number(word.strip(), decimal) for word in words) > len(words):
            return f" If {cell} stands for a missing value in {title}, pass na={cell}; else correct the cell."
    return ""


def _text_at(column: Any) -> str | None:
    """The first cell that is no number; None if all cells are missing or texts of numbers."""
    for value in column:
        cell = value.as_py()
        try:
            float("" if isinstance(cell, bytes) else cell)
        except (TypeError, ValueError):
            if value.is_valid:
                return str(cell)
    return None


def _first_text(column: Any) -> str:
    text = _text_at(column)
    if text is None:
        return f"numbers as {column.type}" if column.null_count < len(column) else f"no cells, as {column.type}"
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _is_numeric(kind: pa.DataType) -> bool:
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_numeric(kind.value_type)
    numeric = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean, types.is_null)
    return any(is_kind(kind) for is_kind in numeric)


def number_matrix(where: str, columns: Sequence[tuple[str, pa.ChunkedArray]]) -> tuple[np.ndarray, list[int | None]]:
    """Stack columns to a matrix.

    Returns:
        (n, d) numbers, and the width of each column of lists (None for a plain column).
    """
    if not len(columns[0][1]):
        raise DataError(f"{where} has no rows, only the columns {listing(name for name, _ in columns)}.")
    blocks = [number_block(f"{where}: column {name}", column) for name, column in columns]
    widths = [None if each.ndim == 1 else each.shape[1] for each in blocks]
    return stack_columns(blocks, [name for name, _ in columns], where), widths


def feature_names(names: Sequence[str], widths: Sequence[int | None]) -> list[str]:
    """Names of features: a column of lists has one per element."""
    return [
        name if width is None else f"{name}[{j}]"
        for name, width in zip(names, widths, strict=True)
        for j in range(width or 1)
    ]


def width_of(column: pa.ChunkedArray) -> int:
    """Number of features of a column of numbers, or of lists of them."""
    import pyarrow as pa

    return number_block("the column", column[:1]).shape[1] if pa.types.is_nested(column.type) and len(column) else 1


def number_block(where: str, column: pa.ChunkedArray) -> np.ndarray:
    """(n,) numbers, or (n, width) of a column of lists; missing values are NaN."""
    import pyarrow as pa

    compute = arrow_compute()

    if not pa.types.is_nested(column.type):
        return _numbers(where, column)
    lengths = compute.unique(compute.list_value_length(column)).to_pylist()
    if None in lengths:
        row = compute.index(column.is_null(), True).as_py()
        raise DataError(f"{where} has {column.null_count} missing lists, the first in row {row}. Fill or drop them.")
    if lengths == [0]:
        raise DataError(f"{where} holds empty lists. Leave it out (drop=).")
    if len(lengths) != 1:
        raise DataError(f"{where} holds lists of different lengths: {listing(lengths)}. They must be equally long.")
    return number_block(where, compute.list_flatten(column)).reshape(len(column), -1)


def warn_of_merged(where: str, cells: pa.ChunkedArray, numbers: pa.ChunkedArray) -> None:
    """Warn of different cells that are one number in float64."""
    compute = arrow_compute()

    if compute.count_distinct(numbers.filter(cells.is_valid())).as_py() < compute.count_distinct(cells).as_py():
        warn(
            f"{where} has numbers of more digits than float64 holds, and rows differ in them: they are rounded. Leave "
            "the column out if they are no measurements but identifiers, or shorten them first."
        )


def _numbers(where: str, column: pa.ChunkedArray) -> np.ndarray:
    """Numbers in the dtype of the file; float64 for decimals and columns with missing values."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif pa.types.is_decimal(kind) or pa.types.is_null(kind):
        exact, column = column, column.cast(pa.float64(), safe=False)
        if len(column) > column.null_count:  # Arrow counts nothing in a column without cells
            warn_of_merged(where, exact, column)
    if column.null_count and pa.types.is_integer(column.type):
        column = integers_with_nan(where, column)
    return column.to_numpy()


def integers_with_nan(where: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Integers with missing values as float64, which has NaN. Raises DataError if that rounds them."""
    import pyarrow as pa

    compute = arrow_compute()

    numbers = column.cast(pa.float64(), safe=False)
    if not compute.all(compute.equal(numbers.cast(column.type, safe=False), column)).as_py():
        raise DataError(
            f"{where} has missing cells beside integers beyond 2^53, which no number with a missing value holds. Fill "
            "or drop those rows."
        )
    return numbers
