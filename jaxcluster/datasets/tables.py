"""Tables: samples and labels from chosen columns, and the Parquet reader.

>>> table = Table(Path("t.csv"), ["a", "y"], lambda wanted, text, words: {})
>>> table.names
['a', 'y']
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
from jaxcluster.datasets.categories import is_categorical, read_mixed
from jaxcluster.datasets.columns import (
    check_numeric,
    feature_names,
    number_block,
    number_matrix,
    plain,
    title_of,
    width_of,
    without_markers,
)
from jaxcluster.datasets.dates import as_days, as_text, is_dates
from jaxcluster.datasets.decoding import kind_hint
from jaxcluster.datasets.encoding import Encoding, Rules, encode_column, fit_encoding

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
        index: names of the columns that pandas stored as the index of the rows.
    """

    path: Any
    names: list[str]
    read: Callable[..., Mapping[int, pa.ChunkedArray]]
    notes: tuple[str, ...] = ()
    row_names: bool = False
    first: Table | None = None
    index: frozenset[str] = frozenset()


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
    categories: bool = False,
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
        categories: keep columns of words, in `Dataset.cells`.
    """
    names, where = table.names, table.path.name
    index = None if truth is None else column_index(truth, names, len(names), where)
    chosen, notes = _chosen_columns(table, columns, index, drop, row_id)
    at_id = None if row_id is None else column_index(row_id, names, len(names), where)
    text = [i for i in (index, at_id) if i is not None]
    data = dict(table.read([*chosen, *text], text, words=categories or dates or encode is not None))
    features = {i: without_markers(data[i], na) for i in chosen}
    if categories:
        dataset = _mixed_dataset(where, names, features, dates=dates)
    elif dates or encode is not None:
        dataset = _encoded_dataset(where, names, features, encode, dates=dates)
    else:
        dataset = _numeric_dataset(where, names, features)
    y = None
    if index is not None:
        y = _labels(data[index], f"{where}: column {title_of(names, index)}")
        notes += _missing_class_notes(y, title_of(names, index))
    dataset = dataset._replace(y=y, notes=(*table.notes, *notes, *dataset.notes))
    if at_id is None:
        return dataset
    ids = _labels(data[at_id], f"{where}: column {title_of(names, at_id)}", "names")
    repeated = len(ids) - len(np.unique(ids))
    note = f"column {title_of(names, at_id)} names rows, and {repeated:,} of its {len(ids):,} names are repeated."
    notes = [*dataset.notes, *([note] if repeated else [])]
    return dataset._replace(ids=ids, id_name=_name_of(names, at_id), notes=tuple(notes))


def _numeric_dataset(where: str, names: Sequence[str], features: Mapping[int, pa.ChunkedArray]) -> Dataset:
    """The samples of columns of numbers, by position."""
    check_numeric(where, names, features)
    x, widths = number_matrix(where, [(title_of(names, i), column) for i, column in features.items()])
    return Dataset(where, x, columns=feature_names([names[i] for i in features], widths))


def _encoded_dataset(
    where: str,
    names: Sequence[str],
    features: Mapping[int, pa.ChunkedArray],
    encode: Rules | Encoding | None,
    *,
    dates: bool,
) -> Dataset:
    """The samples of columns of numbers, words and dates; those of numbers alone have no encoding."""
    notes: list[str] = []
    if isinstance(encode, Encoding):
        encoding = encode
    else:
        named = {_name_of(names, i): column for i, column in features.items()}
        if len(named) < len(features):
            raise DataError(f"{where} has several columns of one name, which cannot be encoded. Rename them.")
        encoding, notes = fit_encoding(where, named, encode or Rules(None, {}), dates=dates, width=width_of)
        if all(code.kind in ("number", "boolean") for code in encoding.columns):
            return _numeric_dataset(where, names, features)._replace(notes=tuple(notes))
    x, own = _encoded_matrix(where, encoding, list(features.values()))
    return Dataset(where, x, columns=encoding.features, notes=(*notes, *own), encoding=encoding)


def _mixed_dataset(
    where: str, names: Sequence[str], features: Mapping[int, pa.ChunkedArray], *, dates: bool
) -> Dataset:
    """The samples of columns of numbers and of words, with the words in its cells; dates are words or days."""
    import pyarrow as pa

    cells: dict[str, Any] = {}
    notes: list[str] = []
    of_dates: list[str] = []
    for i, column in features.items():
        title = title_of(names, i)
        if is_dates(column) and dates:
            of_dates.append(names[i])
            days = as_days(column, f"{where}: column {title}")
            column = pa.chunked_array([pa.array(days, from_pandas=True)])
        elif is_dates(column):
            column = as_text(column)
            notes.append(f"column {title} holds dates, and each is a category; they can be numbers of days (dates=).")
        if is_categorical(column):
            parts: dict[str, Any] = {names[i]: column}
        else:
            check_numeric(where, names, {i: column})
            x, widths = number_matrix(where, [(title, column)])
            parts = dict(zip(feature_names([names[i]], widths), x.T, strict=True))
            parts = {name: pa.array(part, from_pandas=True) for name, part in parts.items()}
        if repeated := sorted(cells.keys() & parts.keys()):
            raise DataError(f"{where} has more than one column {repeated[0]!r}. Rename them, or drop one (drop=).")
        cells |= parts
    table = pa.table(cells)
    if not len(table):
        raise DataError(f"{where} has no rows, only the columns {listing(cells)}.")
    columns, read = read_mixed(table, missing=True, name=where)
    x = np.empty((len(table), columns.width))
    x[:, columns.numeric] = read.numbers
    x[:, list(columns.categorical)] = np.where(read.codes < 0, np.nan, read.codes)
    return Dataset(where, x, columns=list(cells), notes=tuple(notes), cells=table, dates=tuple(of_dates))


def _chosen_columns(
    table: Table, columns: Any, truth: int | None, drop: Any, row_id: Any
) -> tuple[list[int], list[str]]:
    """Find the columns to cluster.

    Returns:
        Their positions, and notes on those that are left out.
    """
    names, where, notes = table.names, table.path.name, []
    if not names:
        raise DataError(f"{where} has no columns.")
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
        block, own = encode_column(title, code, column, numbers=number_block, lenient=encoding.lenient)
        if (1 if block.ndim == 1 else block.shape[1]) != code.width:
            raise DataError(f"{title} holds lists of another length than those of the fit, {code.width}.")
        blocks.append(block)
        notes += own
    return stack_columns(blocks, encoding.names, where), notes


def encode_table(table: pa.Table, encoding: Encoding, where: str = "X") -> np.ndarray:
    """(n, d) features of an Arrow table with the columns of an encoding, and perhaps others.

    Raises:
        DataError: cells that the encoding has no number for.
    """
    return _encoded_matrix(where, encoding, [plain(table.column(name)) for name in encoding.names])[0]


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
    first = table.first or table  # rows of several files may be numbered from 0 in each
    left_out = {i for i in rest if names[i] in table.index}
    notes = [f"column {title_of(names, i)} is the index that pandas stored, and is left out." for i in left_out]
    for i, name in enumerate(names):
        if i == truth or i not in rest or not UNNAMED.fullmatch(name) or i == len(names) - 1:
            break
        kind = _index_kind(first.read([i], (i,))[i])
        # pandas nests its unnamed indices: several leading columns may number the rows.
        if kind is not None:
            left_out.add(i)
            notes.append(
                f"the first column ({title_of(names, i)}) {kind} and is left out; to cluster it too, choose columns by "
                "number (columns=)."
            )
            continue
        if i == 0 and first.row_names:
            raise DataError(
                f"{where}: the header has {len(names) - 1} names, but rows have {len(names)} fields, and the first one "
                "does not number or name the rows. Correct the header, or pass header=False."
            )
        break
    nameless = [i for i in rest if not names[i] and i != truth and i not in left_out]
    cells = table.read(nameless, nameless) if nameless else {}
    # Spreadsheets save columns that were cleared, or only formatted.
    empty = [i for i in nameless if _is_empty(cells[i])]
    data = [i for i in nameless if i not in empty]
    for columns, words in ((empty, "without a name or cells: left out"), (data, "without a name: taken as data")):
        if columns:
            notes.append(f"column{'s' * (len(columns) > 1)} {listing(map(str, columns))} {words}.")
    return left_out.union(empty), notes


def _is_empty(column: pa.ChunkedArray) -> bool:
    """True for a column of missing values, or of text that is blank."""
    import pyarrow as pa

    compute = arrow_compute()

    blank = 0
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        blank = compute.sum(compute.equal(compute.utf8_trim_whitespace(column), "")).as_py() or 0
    return 0 < len(column) == column.null_count + blank


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
            raise DataError(f"{where} has columns {listing(names)}: choose the one that holds the labels (column=).")
        column = likely[0]
    index = column_index(column, names, len(names), where)
    return _labels(table.read([index], (index,))[index], f"{where}: column {title_of(names, index)}")


def _labels(column: pa.ChunkedArray, where: str, what: str = "labels") -> np.ndarray:
    """(n,) labels, or ``what`` they are called; text of only integers, or only numbers, becomes those numbers."""
    import pyarrow as pa

    compute = arrow_compute()

    column = as_text(plain(column))
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.string())
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        raise DataError(f"{where} holds {column.type}, where one number or word a row is needed. Name another column.")
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if text:
        column = compute.utf8_trim_whitespace(column)
        column = compute.if_else(compute.equal(column, ""), None, column)
    if column.null_count:
        first = compute.index(column.is_null(), True).as_py()
        raise DataError(f"{where} has {column.null_count} missing {what}, the first in row {first}. Fill or drop them.")
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
    return Table(path, names, partial(_read, path, file, names), index=stored_index(file.schema_arrow))


def stored_index(schema: pa.Schema) -> frozenset[str]:
    """Names of the columns of a Parquet file that pandas stored as the index of the rows, named or not."""
    stored = (schema.pandas_metadata or {}).get("index_columns", ())
    # A range is stored as an object, without a column. Other programs may drop what pandas says of its columns.
    named = {name for name in stored if isinstance(name, str)}
    return frozenset(named.union(filter(PANDAS_INDEX.fullmatch, schema.names)).intersection(schema.names))


def _read(
    path: Path, file: Any, names: list[str], wanted: Iterable[int], text: Collection[int], *, words: bool = False
) -> dict[int, pa.ChunkedArray]:
    """The wanted columns by position, with ``words`` or in ``text`` categories as their values.

    If several share a name the whole file is read: pyarrow chooses by name.
    """
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
    return {i: plain(column) for i, column in columns.items()}


def _damaged_error(path: Path) -> DataError:
    """The error for a file that pyarrow cannot read, with the common reasons."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(4)
        stream.seek(-min(4, size), 2)
        end = stream.read()
    hint = kind_hint(path)
    if start != PARQUET_MAGIC:
        seen = f"it starts with {start!r}, not with {PARQUET_MAGIC!r}"
    elif end != PARQUET_MAGIC:
        seen = f"it does not end with {PARQUET_MAGIC!r}: it is truncated"
    else:
        seen = "it is damaged, or holds what this version of pyarrow does not know"
    return DataError(f"{path.name} cannot be read as Parquet ({size} bytes): {seen}.{hint}")
