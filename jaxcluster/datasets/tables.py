"""From the columns of a table, whatever file they came from, to rows of numbers and a truth."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster.datasets.base import DataError, Dataset, apart, as_labels, choose_columns, column_index, listing

if TYPE_CHECKING:
    import pyarrow as pa

LABEL_NAMES = ("label", "labels", "cluster", "truth", "target", "class", "y")
"""Where labels are looked for in a table of several columns."""

PANDAS_INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls a row index that it stores among the columns of a Parquet file."""

CHOOSE = "Choose the columns to cluster (columns=), or name the one that holds the truth (truth=)."


class Table(NamedTuple):
    """An opened file: its column names, and how to read some of them.

    ``read(wanted, truth)`` gives the columns at the wanted positions, by position; the one at ``truth`` holds labels
    and is read as it is.
    """

    path: Any
    names: list[str]
    read: Callable[[Iterable[int], int | None], Mapping[int, pa.ChunkedArray]]


def table_dataset(table: Table, *, columns: Any = None, truth: Any = None) -> Dataset:
    """The chosen columns as rows of float32, the truth column as labels.

    Without a choice: all but the truth and the row names (a column without a name, or pandas' stored index).
    Raises DataError for unknown columns, and for chosen ones that hold no numbers, naming all of them.
    """
    names, where = table.names, table.path.name
    index = None if truth is None else column_index(truth, names, len(names), where)
    chosen = choose_columns(columns, names, len(names), where)
    if chosen is None:
        row_names = [i for i, name in enumerate(names) if name == "" or PANDAS_INDEX.fullmatch(name)]
        chosen = [i for i in range(len(names)) if i != index and i not in row_names]
    if not chosen:
        raise DataError(f"{where} has no column left to cluster; it holds {listing(names)}.")
    apart(chosen, index, where)
    found = table.read([*chosen, *([] if index is None else [index])], index)
    refuse_text(where, names, {i: found[i] for i in chosen})
    x, widths = _matrix(where, [(names[i], found[i]) for i in chosen])
    y = None if index is None else _labels(found[index], f"{where}: column {names[index]!r}")
    spread = [
        name if width is None else f"{name}[{j}]"
        for name, width in zip((names[i] for i in chosen), widths, strict=True)
        for j in range(width or 1)
    ]
    return Dataset(where, x, y, spread)


def table_labels(table: Table, column: str | int | None = None) -> np.ndarray:
    """(n,) labels: of the column named or, without a name, of the only one or the one called label (or the like)."""
    names, where = table.names, table.path.name
    if column is None:
        likely = [i for i, name in enumerate(names) if name.lower() in LABEL_NAMES]
        likely = [0] if len(names) == 1 else likely
        if len(likely) != 1:
            raise DataError(f"{where} has columns {listing(names)}: name the one that holds the labels.")
        column = likely[0]
    index = column_index(column, names, len(names), where)
    return _labels(table.read([index], index)[index], f"{where}: column {names[index]!r}")


def refuse_text(where: str, names: Sequence[str], columns: Mapping[int, pa.ChunkedArray | pa.Array]) -> None:
    """Raises DataError naming every column that holds no numbers, with the first value that is none."""
    bad = [(names[i], column) for i, column in columns.items() if not _is_numeric(column.type)]
    if not bad:
        return
    seen = listing(f"{name!r} (holds {_first_text(column)})" for name, column in bad)
    raise DataError(f"{where}: not numeric: column{'s' if len(bad) > 1 else ''} {seen}. {CHOOSE}")


def _first_text(column: Any) -> str:
    for value in column:
        try:
            float(value.as_py())
        except (TypeError, ValueError):
            if value.is_valid:
                return repr(value.as_py() if len(str(value)) <= 40 else str(value)[:40] + "…")
    return str(column.type)


def _is_numeric(kind: pa.DataType) -> bool:
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_numeric(kind.value_type)
    numeric = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean, types.is_null)
    return any(is_kind(kind) for is_kind in numeric)


def _matrix(where: str, columns: Sequence[tuple[str, pa.ChunkedArray]]) -> tuple[np.ndarray, list[int | None]]:
    """The columns side by side, and how many each list column gave (None for a plain one)."""
    blocks = [_block(f"{where}: column {name!r}", column) for name, column in columns]
    widths = [None if block.ndim == 1 else block.shape[1] for block in blocks]
    n = len(blocks[0])
    if n == 0:
        raise DataError(f"{where} has no rows, only the columns {listing(name for name, _ in columns)}.")
    x = np.empty((n, sum(width or 1 for width in widths)), np.float32)
    start = 0
    for block, width in zip(blocks, widths, strict=True):
        stop = start + (width or 1)
        x[:, start:stop] = block.reshape(n, -1)
        start = stop
    return x, widths


def _block(where: str, column: pa.ChunkedArray) -> np.ndarray:
    """(n,) numbers, or (n, width) of a column of lists; missing cells are NaN."""
    import pyarrow as pa
    from pyarrow import compute

    if not pa.types.is_nested(column.type):
        return _numbers(column)
    lengths = compute.unique(compute.list_value_length(column)).to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise DataError(f"{where} holds lists of different lengths: {listing(lengths)}. They must be equally long.")
    return _numbers(compute.list_flatten(column)).reshape(len(column), lengths[0])


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    return column.cast(pa.float32(), safe=False).to_numpy()


def _labels(column: pa.ChunkedArray, where: str) -> np.ndarray:
    """(n,) labels as given: text that is all integers, or all numbers, as those numbers."""
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if text:
        column = compute.if_else(compute.equal(column, ""), None, column)
    if column.null_count:
        first = compute.index(column.is_null(), True).as_py()
        raise DataError(f"{where} has {column.null_count} missing labels, the first in row {first}. Fill or drop them.")
    for kind in (pa.int64(), pa.float64()) if text else ():
        try:
            return as_labels(column.cast(kind).to_numpy(), where)
        except pa.ArrowInvalid:
            continue
    return as_labels(np.asarray(column.to_pylist(), str) if text else column.to_numpy(), where)
