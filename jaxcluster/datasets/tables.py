"""From the columns of a table, whatever file they came from, to rows of numbers and a truth."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster.datasets.base import (
    DataError,
    Dataset,
    apart,
    as_labels,
    choose_columns,
    column_index,
    listing,
    without,
)
from jaxcluster.datasets.numbers import side_by_side

if TYPE_CHECKING:
    import pyarrow as pa

LABEL_NAMES = ("label", "labels", "cluster", "truth", "target", "class", "y")
"""Where labels are looked for in a table of several columns."""

PANDAS_INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls a row index that it stores among the columns of a Parquet file."""

UNNAMED = re.compile(r"|Unnamed: 0(\.\d+)*")
"""Names of a column that may number the rows: none, and what pandas makes of none when it reads and writes a table."""

CHOOSE = "Choose the columns to cluster (columns=), or name the one that holds the truth (truth=)."


class Table(NamedTuple):
    """An opened file: its column names, and how to read some of them.

    ``read(wanted, text)`` gives the columns at the wanted positions, by position; those in ``text`` are read as they
    are, the others as numbers where the file itself has no types.

    Attributes:
        path: of the file.
        names: of the columns, "" for one without a name.
        read: see above.
        notes: what was decided about the layout of the file.
        row_names: whether the first column stands outside of the header.
    """

    path: Any
    names: list[str]
    read: Callable[[Iterable[int], Collection[int]], Mapping[int, pa.ChunkedArray]]
    notes: tuple[str, ...] = ()
    row_names: bool = False


def table_dataset(table: Table, *, columns: Any = None, truth: Any = None, leave_out: Any = None) -> Dataset:
    """The chosen columns as rows of numbers, the truth column as labels; ``leave_out`` is neither.

    Without a choice: all but the truth and what only numbers or names the rows, which a note says; see `_row_names`.
    Raises DataError for unknown columns, and for chosen ones that hold no numbers, naming all of them.
    """
    names, where, notes = table.names, table.path.name, list(table.notes)
    index = None if truth is None else column_index(truth, names, len(names), where)
    chosen = choose_columns(columns, names, len(names), where)
    if leave_out is not None:
        rest = without(leave_out, chosen, names, len(names), where)
    if chosen is None:
        left_out, said = _row_names(table, index)
        notes += said
        rest = range(len(names)) if leave_out is None else rest
        chosen = [i for i in rest if i != index and i not in left_out]
    if not chosen:
        raise DataError(f"{where} has no column left to cluster; it holds {listing(names)}.")
    apart(chosen, index, where)
    found = table.read([*chosen, *([] if index is None else [index])], () if index is None else (index,))
    refuse_text(where, names, {i: found[i] for i in chosen})
    x, widths = _matrix(where, [(title_of(names, i), found[i]) for i in chosen])
    y = None
    if index is not None:
        y = _labels(found[index], f"{where}: column {title_of(names, index)}")
        notes += _odd_classes(y, title_of(names, index))
    spread = [
        name if width is None else f"{name}[{j}]"
        for name, width in zip((names[i] for i in chosen), widths, strict=True)
        for j in range(width or 1)
    ]
    return Dataset(where, x, y, spread, notes=tuple(notes))


def _row_names(table: Table, truth: int | None) -> tuple[set[int], list[str]]:
    """Positions of columns that are no data but number or name the rows, and what is said of them.

    Those are pandas' stored index, and the first columns where they have no name, or pandas' name for none, and hold
    words alone, or integers that are all different.

    Raises:
        DataError: a header that has no name for the first column, and this is none that names rows.
    """
    names, where = table.names, table.path.name
    left_out = {i for i, name in enumerate(names) if PANDAS_INDEX.fullmatch(name)}
    notes = [f"column {title_of(names, i)} is the index that pandas stored, and is left out." for i in left_out]
    for i, name in enumerate(names):
        if i == truth or not UNNAMED.fullmatch(name) or i == len(names) - 1:
            break
        kind = _kind_of_index(table.read([i], (i,))[i])
        if kind is not None:
            left_out.add(i)
            notes.append(
                f"the first column ({title_of(names, i)}) {kind} and is left out; to cluster it too, choose columns by "
                "number (columns=)."
            )
            continue
        if i == 0 and table.row_names:
            raise DataError(
                f"{where}: the header has {len(names) - 1} names, but rows have {len(names)} fields, and the first one "
                "does not number or name the rows. Mend the header, or pass header=False."
            )
        break
    nameless = [str(i) for i, name in enumerate(names) if not name and i not in left_out]
    if nameless:
        notes.append(f"column{'s' * (len(nameless) > 1)} {listing(nameless)} without a name: taken as data.")
    return left_out, notes


def _kind_of_index(column: pa.ChunkedArray) -> str | None:
    """What a column does if it numbers or names the rows: it is all different integers, or all words; else None."""
    import pyarrow as pa
    from pyarrow import compute

    if column.null_count or pa.types.is_floating(column.type) or pa.types.is_nested(column.type):
        return None
    distinct = compute.count_distinct(column).as_py() == len(column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        integers = compute.match_substring_regex(column, r"^\s*\d+\s*$")
        if not compute.all(integers).as_py():
            numbers = compute.match_substring_regex(column, r"^\s*([+-]?[\d.,]+([eE][+-]?\d+)?)?\s*$")
            words = compute.sum(compute.invert(numbers)).as_py()
            return "names the rows" if words == len(column) or (words and distinct) else None
    elif not pa.types.is_integer(column.type):
        return None
    return f"numbers the rows ({column[0].as_py()}, …, {column[-1].as_py()})" if distinct else None


def title_of(names: Sequence[str], column: int) -> str:
    """A column in a message: its name, or its position where it has none."""
    return repr(names[column]) if names[column] else f"number {column}, without a name"


def _odd_classes(y: np.ndarray, title: str) -> list[str]:
    """A note on labels that may be words for missing ones."""
    if y.dtype.kind != "U":
        return []
    odd = [word for word in np.unique(y).tolist() if word.lower() in ("na", "n/a", "nan", "null", "none", "<na>")]
    rows = ", ".join(f"{int((y == word).sum()):,} rows {word!r}" for word in odd)
    return [f"column {title} has {rows}: taken as a class of that name."] if odd else []


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
    return _labels(table.read([index], (index,))[index], f"{where}: column {title_of(names, index)}")


def refuse_text(where: str, names: Sequence[str], columns: Mapping[int, pa.ChunkedArray | pa.Array]) -> None:
    """Raises DataError naming every column that holds no numbers, with the first value that is none."""
    bad = [(title_of(names, i), column) for i, column in columns.items() if not _is_numeric(column.type)]
    if not bad:
        return
    seen = listing(f"{title} (holds {_first_text(column)})" for title, column in bad)
    raise DataError(f"{where}: not numeric: column{'s' if len(bad) > 1 else ''} {seen}. {CHOOSE}")


def _first_text(column: Any) -> str:
    for value in column:
        try:
            float(value.as_py())
        except (TypeError, ValueError):
            if value.is_valid:
                return repr(str(value) if len(str(value)) <= 40 else str(value)[:40] + "…")
    return str(column.type)


def _is_numeric(kind: pa.DataType) -> bool:
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_numeric(kind.value_type)
    numeric = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean, types.is_null)
    return any(is_kind(kind) for is_kind in numeric)


def _matrix(where: str, columns: Sequence[tuple[str, pa.ChunkedArray]]) -> tuple[np.ndarray, list[int | None]]:
    """The columns side by side, and how many each list column gave (None for a plain one)."""
    if not len(columns[0][1]):
        raise DataError(f"{where} has no rows, only the columns {listing(name for name, _ in columns)}.")
    blocks = [_block(f"{where}: column {name}", column) for name, column in columns]
    widths = [None if block.ndim == 1 else block.shape[1] for block in blocks]
    return side_by_side(blocks, [name for name, _ in columns], where), widths


def _block(where: str, column: pa.ChunkedArray) -> np.ndarray:
    """(n,) numbers, or (n, width) of a column of lists; missing cells are NaN."""
    import pyarrow as pa
    from pyarrow import compute

    if not pa.types.is_nested(column.type):
        return _numbers(where, column)
    lengths = compute.unique(compute.list_value_length(column)).to_pylist()
    if None in lengths:
        row = compute.index(column.is_null(), True).as_py()
        raise DataError(f"{where} has {column.null_count} missing lists, the first in row {row}. Fill or drop them.")
    if len(lengths) != 1 or not lengths[0]:
        raise DataError(f"{where} holds lists of different lengths: {listing(lengths)}. They must be equally long.")
    return _block(where, compute.list_flatten(column)).reshape(len(column), -1)


def _numbers(where: str, column: pa.ChunkedArray) -> np.ndarray:
    """Numbers in the file's own dtype, but for decimals and columns with missing cells: those are float64."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif pa.types.is_decimal(kind) or pa.types.is_null(kind):
        column = column.cast(pa.float64(), safe=False)
    if column.null_count and pa.types.is_integer(column.type):
        column = filled_with_nan(where, column)
    return column.to_numpy()


def filled_with_nan(where: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Integers with missing cells as float64, which has a word for these. Raises DataError where that rounds them."""
    import pyarrow as pa
    from pyarrow import compute

    numbers = column.cast(pa.float64(), safe=False)
    if not compute.all(compute.equal(numbers.cast(column.type, safe=False), column)).as_py():
        raise DataError(
            f"{where} has missing cells beside integers beyond 2^53, which no number with a missing value holds. Fill "
            "or drop those rows."
        )
    return numbers


def _labels(column: pa.ChunkedArray, where: str) -> np.ndarray:
    """(n,) labels as given: text that is all integers, or all numbers, as those numbers."""
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if text:
        column = compute.utf8_trim_whitespace(column)
        column = compute.if_else(compute.equal(column, ""), None, column)
    if column.null_count:
        first = compute.index(column.is_null(), True).as_py()
        raise DataError(f"{where} has {column.null_count} missing labels, the first in row {first}. Fill or drop them.")
    for kind in (pa.int64(), pa.uint64(), pa.float64()) if text else ():
        try:
            values = column.cast(kind)
        except pa.ArrowInvalid:
            continue
        if kind == pa.float64() and compute.count_distinct(values).as_py() < compute.count_distinct(column).as_py():
            break  # numbers of so many digits that float64 makes two of them one
        return as_labels(values.to_numpy(), where)
    return as_labels(np.asarray(column.to_pylist(), str) if text else column.to_numpy(), where)
