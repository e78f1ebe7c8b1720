"""Tables: samples and labels from chosen columns, and the Parquet reader.

>>> title_of(["length", ""], 1)
'number 1, without a name'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster.datasets.base import (
    DataError,
    Dataset,
    arrow_compute,
    arrow_source,
    as_labels,
    check_disjoint,
    choose_columns,
    column_index,
    exclude_columns,
    listing,
    split_columns,
    stack_columns,
)
from jaxcluster.datasets.encoding import Encoding, Rules, encode_column, fit_encoding
from jaxcluster.datasets.layout import is_number

if TYPE_CHECKING:
    import pyarrow as pa

LABEL_NAMES = ("label", "labels", "cluster", "truth", "target", "class", "y")
"""Names of a column of labels."""

PANDAS_INDEX = re.compile(r"__index_level_\d+__")
"""Pandas' name of a row index that is stored as a column of a Parquet file."""

UNNAMED = re.compile(r"|Unnamed: 0(\.\d+)*")
"""Names of a column that may number the rows: none, and pandas' replacement of none."""

PARQUET_MAGIC = b"PAR1"
"""First and last bytes of every Parquet file."""

CHOOSE_HINT = (
    "Choose the columns to cluster (columns=), leave some out (drop=), name the one that holds the truth (truth=), "
    "encode words (encode=), or take dates as numbers of days (dates=)."
)


class Table(NamedTuple):
    """An opened file: its column names, and a function that reads some of them.

    Attributes:
        path: of the file.
        names: of the columns, "" for one without a name.
        read: ``read(wanted, text)`` returns the columns at the wanted positions, by position; those in ``text`` remain
            text, the others are parsed as numbers if the file has no types. With ``words=True`` columns that hold
            something else come as text too.
        notes: decisions about the layout of the file.
        row_names: True if the header has no name for the first column.
        first: the first of several files that are read as one table; None for a single one.
    """

    path: Any
    names: list[str]
    read: Callable[..., Mapping[int, pa.ChunkedArray]]
    notes: tuple[str, ...] = ()
    row_names: bool = False
    first: Table | None = None


def table_dataset(
    table: Table,
    *,
    columns: Any = None,
    truth: Any = None,
    drop: Any = None,
    row_id: Any = None,
    encode: Rules | Encoding | None = None,
    dates: bool = False,
    na: Sequence[str] = (),
) -> Dataset:
    """The `Dataset` of the chosen columns, with the truth column as labels; ``drop`` and ``row_id`` are neither.

    By default all columns but the truth and those that only number or name the rows, which a note tells; see
    `_row_names`. Raises DataError for unknown columns, and for chosen ones that are not numeric, naming all of them.

    Args:
        table: opened.
        columns, truth, drop, row_id: columns by name or position.
        encode: wishes for the codes of columns of words, or the encoding of a fit.
        dates: take columns of dates as numbers of days.
        na: cells that are missing values.
    """
    names, where, notes = table.names, table.path.name, list(table.notes)
    index = None if truth is None else column_index(truth, names, len(names), where)
    chosen, own = _chosen_columns(table, columns, index, drop, row_id)
    notes += own
    at_id = None if row_id is None else column_index(row_id, names, len(names), where)
    text = [i for i in (index, at_id) if i is not None]
    words = isinstance(encode, Encoding) or dates or encode is not None
    data = dict(table.read([*chosen, *text], text, words=words))
    features = {i: _without_markers(data[i], na) for i in chosen}
    encoding = None
    if isinstance(encode, Encoding):
        encoding = encode
    elif words:
        named = {_name_of(names, i): column for i, column in features.items()}
        if len(named) < len(features):
            raise DataError(f"{where} has several columns of one name, which cannot be encoded. Rename them.")
        encoding, own = fit_encoding(where, named, encode or Rules(None, {}), dates=dates, width=_width)
        notes += own
        encoding = encoding if any(code.kind not in ("number", "boolean") for code in encoding.columns) else None
    if encoding is None:
        check_numeric(where, names, features)
        titled = [(title_of(names, i), column) for i, column in features.items()]
        x, widths = _matrix(where, titled)
        feature_names = _feature_names([names[i] for i in chosen], widths)
    else:
        x, own = _encoded_matrix(where, encoding, list(features.values()))
        notes, feature_names = [*notes, *own], encoding.features
    y = None
    if index is not None:
        y = _labels(data[index], f"{where}: column {title_of(names, index)}")
        notes += _missing_class_notes(y, title_of(names, index))
    dataset = Dataset(where, x, y, feature_names, notes=tuple(notes), encoding=encoding)
    if at_id is None:
        return dataset
    ids = _labels(data[at_id], f"{where}: column {title_of(names, at_id)}")
    repeated = len(ids) - len(np.unique(ids))
    note = f"column {title_of(names, at_id)} names rows, and {repeated:,} of its {len(ids):,} names are repeated."
    return dataset._replace(ids=ids, id_name=_name_of(names, at_id), notes=(*notes, *([note] if repeated else [])))


def _chosen_columns(
    table: Table, columns: Any, truth: int | None, drop: Any, row_id: Any
) -> tuple[list[int], list[str]]:
    """Find the columns to cluster.

    Returns:
        Their positions, and notes on those that are left out.
    """
    names, where, notes = table.names, table.path.name, []
    chosen = choose_columns(columns, names, len(names), where)
    out = [*([] if drop is None else split_columns(drop)), *([] if row_id is None else [row_id])]
    rest = exclude_columns(out, chosen, names, len(names), where) if out else range(len(names))
    if chosen is None:
        # Columns that are left out by name need no note, and their names may be repeated.
        left_out, notes = _row_names(table, truth, rest)
        chosen = [i for i in rest if i != truth and i not in left_out]
    if not chosen:
        raise DataError(f"{where} has no column left to cluster; it holds {listing(names)}.")
    return check_disjoint(chosen, truth, where), notes


def _name_of(names: Sequence[str], column: int) -> str:
    """Name of a column, its position if it has none."""
    return names[column] or str(column)


def _feature_names(names: Sequence[str], widths: Sequence[int | None]) -> list[str]:
    """Names of features: a column of lists has one per element."""
    return [
        name if width is None else f"{name}[{j}]"
        for name, width in zip(names, widths, strict=True)
        for j in range(width or 1)
    ]


def _without_markers(column: pa.ChunkedArray, na: Sequence[str]) -> pa.ChunkedArray:
    """A column of which the cells that stand for missing values are null."""
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
    return compute.if_else(marked, None, column)


def _encoded_matrix(where: str, encoding: Encoding, columns: Sequence[pa.ChunkedArray]) -> tuple[np.ndarray, list[str]]:
    """Encode the columns of a table, in the order of the encoding.

    Returns:
        (n, d) numbers, NaN for missing cells, and notes on words that the fit has not seen.
    """
    if not len(columns[0]):
        raise DataError(f"{where} has no rows, only the columns {listing(encoding.names)}.")
    if len(columns) != len(encoding.columns):
        raise DataError(
            f"{where}: {len(columns)} columns were chosen, and the model was fitted on {listing(encoding.names)}."
        )
    blocks, notes = [], []
    for code, column in zip(encoding.columns, columns, strict=True):
        title = f"{where}: column {code.name!r}"
        block, own = encode_column(title, code, column, numbers=_block, lenient=encoding.lenient)
        if (1 if block.ndim == 1 else block.shape[1]) != code.width:
            raise DataError(f"{title} holds lists of another length than those of the fit, {code.width}.")
        blocks.append(block)
        notes += own
    return stack_columns(blocks, encoding.names, where), notes


def encode_table(X: Any, encoding: Encoding, where: str = "X") -> np.ndarray:
    """(n, d) features of a table of pandas or Arrow with the columns of an encoding, and perhaps others.

    Raises:
        DataError: cells that the encoding has no number for.
    """
    import pyarrow as pa

    table = X if isinstance(X, pa.Table) else pa.Table.from_pandas(X[encoding.names], preserve_index=False)
    return _encoded_matrix(where, encoding, [plain(table.column(name)) for name in encoding.names])[0]


def _width(column: pa.ChunkedArray) -> int:
    """Number of features of a column of numbers, or of lists of them."""
    import pyarrow as pa

    return _block("the column", column[:1]).shape[1] if pa.types.is_nested(column.type) and len(column) else 1


def _row_names(table: Table, truth: int | None, rest: Collection[int]) -> tuple[set[int], list[str]]:
    """Find the columns among ``rest`` that number or name the rows.

    These are pandas' stored index, and leading columns without a name (or with pandas' name for none) of words only, or
    of distinct integers.

    Returns:
        Their positions, and a note for each.

    Raises:
        DataError: a header without a name for the first column, if this one does not name rows.
    """
    names, where = table.names, table.path.name
    table = table.first or table  # rows of several files may be numbered from 0 in each
    left_out = {i for i in rest if PANDAS_INDEX.fullmatch(names[i])}
    notes = [f"column {title_of(names, i)} is the index that pandas stored, and is left out." for i in left_out]
    for i, name in enumerate(names):
        if i == truth or i not in rest or not UNNAMED.fullmatch(name) or i == len(names) - 1:
            break
        kind = _index_kind(table.read([i], (i,))[i])
        # pandas nests its unnamed indices: several leading columns may number the rows.
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
                "does not number or name the rows. Correct the header, or pass header=False."
            )
        break
    nameless = [str(i) for i, name in enumerate(names) if not name and i not in left_out]
    if nameless:
        notes.append(f"column{'s' * (len(nameless) > 1)} {listing(nameless)} without a name: taken as data.")
    return left_out, notes


def _index_kind(column: pa.ChunkedArray) -> str | None:
    """A phrase for a note on a column of distinct integers, or of words only; None for other columns."""
    import pyarrow as pa

    compute = arrow_compute()

    if column.null_count or pa.types.is_floating(column.type) or pa.types.is_nested(column.type):
        return None
    # Integers that repeat are data; names of rows need not be distinct if all are words.
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
    """A column in a message: its name, or its position if it has none."""
    return repr(names[column]) if names[column] else f"number {column}, without a name"


def _missing_class_notes(y: np.ndarray, title: str) -> list[str]:
    """Notes on labels that may stand for missing ones."""
    if y.dtype.kind != "U":
        return []
    odd = [word for word in np.unique(y).tolist() if word.lower() in ("na", "n/a", "nan", "null", "none", "<na>")]
    rows = ", ".join(f"{int((y == word).sum()):,} rows {word!r}" for word in odd)
    return [f"column {title} has {rows}: taken as a class of that name."] if odd else []


def table_labels(table: Table, column: str | int | None = None) -> np.ndarray:
    """(n,) labels of a column; by default of the only one, or of one in `LABEL_NAMES`."""
    names, where = table.names, table.path.name
    if column is None:
        likely = [i for i, name in enumerate(names) if name.lower() in LABEL_NAMES]
        likely = [0] if len(names) == 1 else likely
        if len(likely) != 1:
            raise DataError(f"{where} has columns {listing(names)}: name the one that holds the labels.")
        column = likely[0]
    index = column_index(column, names, len(names), where)
    return _labels(table.read([index], (index,))[index], f"{where}: column {title_of(names, index)}")


def check_numeric(where: str, names: Sequence[str], columns: Mapping[int, pa.ChunkedArray | pa.Array]) -> None:
    """Raise DataError naming every column that is not numeric, with its first value that is no number."""
    bad = [(title_of(names, i), column) for i, column in columns.items() if not _is_numeric(column.type)]
    if not bad:
        return
    seen = listing(f"{title} (holds {_first_text(column)})" for title, column in bad)
    raise DataError(f"{where}: not numeric: column{'s' if len(bad) > 1 else ''} {seen}. {CHOOSE_HINT}")


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
    """Stack columns to a matrix.

    Returns:
        (n, d) numbers, and the width of each column of lists (None for a plain column).
    """
    if not len(columns[0][1]):
        raise DataError(f"{where} has no rows, only the columns {listing(name for name, _ in columns)}.")
    blocks = [_block(f"{where}: column {name}", column) for name, column in columns]
    widths = [None if block.ndim == 1 else block.shape[1] for block in blocks]
    return stack_columns(blocks, [name for name, _ in columns], where), widths


def _block(where: str, column: pa.ChunkedArray) -> np.ndarray:
    """(n,) numbers, or (n, width) of a column of lists; missing values are NaN."""
    import pyarrow as pa

    compute = arrow_compute()

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
    """Numbers in the dtype of the file; float64 for decimals and columns with missing values."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif pa.types.is_decimal(kind) or pa.types.is_null(kind):
        column = column.cast(pa.float64(), safe=False)
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


def _labels(column: pa.ChunkedArray, where: str) -> np.ndarray:
    """(n,) labels; text of only integers, or only numbers, becomes those numbers."""
    import pyarrow as pa

    compute = arrow_compute()

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
            # float64 would merge labels of more than 17 digits: they stay text.
            break
        return as_labels(values.to_numpy(), where)
    return as_labels(np.asarray(column.to_pylist(), str) if text else column.to_numpy(), where)


def open_parquet(path: Path) -> Table:
    """Open a Parquet file; columns of equally long lists (embeddings) are read too."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        # Checksums, as a damaged page can otherwise decode to wrong numbers without an error.
        file = parquet.ParquetFile(arrow_source(path), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged_error(path) from error
    names = list(file.schema_arrow.names)
    return Table(path, names, partial(_read, path, file, names))


def _read(
    path: Path, file: Any, names: list[str], wanted: Iterable[int], text: Collection[int], *, words: bool = False
) -> dict[int, pa.ChunkedArray]:
    """The wanted columns by position. If several share a name the whole file is read: pyarrow chooses by name."""
    import pyarrow as pa

    wanted = list(dict.fromkeys(wanted))
    chosen = [names[i] for i in wanted]
    # pyarrow selects columns by name only, and returns all columns of a name that repeats.
    unique = all(names.count(name) == 1 for name in chosen)
    try:
        table = file.read(columns=chosen if unique else None)
    except (pa.ArrowException, OSError) as error:
        raise _damaged_error(path) from error
    columns = {i: table.column(names[i] if unique else i) for i in wanted}
    return {i: plain(column) if words or i in text else column for i, column in columns.items()}


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A dictionary-encoded column (categories) as its values."""
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _damaged_error(path: Path) -> DataError:
    """The error for a file that pyarrow cannot read, with the common reasons."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(4)
        stream.seek(-min(4, size), 2)
        end = stream.read()
    if start != PARQUET_MAGIC:
        seen = f"it starts with {start!r}, not with {PARQUET_MAGIC!r}"
    elif end != PARQUET_MAGIC:
        seen = f"it does not end with {PARQUET_MAGIC!r}: it is truncated"
    else:
        seen = "it is damaged, or holds what this version of pyarrow does not know"
    return DataError(f"{path.name} cannot be read as Parquet ({size} bytes): {seen}.")
