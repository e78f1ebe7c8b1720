"""Shared parts of the readers: `Dataset`, errors, choice of columns and labels, and the dtype of samples.

Samples keep a dtype that holds every number of the file exactly. A fit subtracts an origin before it rounds to the
precision of its computation (`jaxcluster.core.frame`); digits that a reader rounds are lost before that: float32 has
steps of 128 at 1.7e9, today's Unix time in seconds, and float64 steps of 128 at 1e18.

>>> to_exact_dtype(np.array([2**53 + 1, 5])).dtype, to_exact_dtype(np.array([1, 2])).dtype
(dtype('int64'), dtype('float64'))
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster.core.messages import did_you_mean, warn

if TYPE_CHECKING:
    from jaxcluster.datasets.encoding import Encoding
    from jaxcluster.datasets.texts import TextVectorizer

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
"""Compressions of text files, by the ending of the name."""

MAX_EXACT_INTEGER = 2**53
"""Largest integer up to which float64 holds every integer."""

HAS_EXTENDED_PRECISION = np.finfo(np.longdouble).nmant >= 63
"""True where long double holds every 64-bit integer (x86); elsewhere it is often float64."""


class DataError(ValueError):
    """A mistake in the request or in the file; its one line says what was seen and what to do."""


class DataNotFoundError(DataError, FileNotFoundError):
    """A file that does not exist."""


class Dataset(NamedTuple):
    """Samples to cluster and, if known, their classes.

    Attributes:
        name: title in a report.
        x: (n_samples, n_features) float32 or float64, whichever holds the numbers of the file exactly; 64-bit integers,
            or extended precision, if neither does. Missing values of a table are NaN; most algorithms refuse them. A
            canonical CSR array for sparse rows and texts.
        y: (n_samples,) integers or text; None without known classes.
        columns: n_features column names, or None if the file has none.
        image_shape: (h, w) or (h, w, c) if a sample is a flattened image, else None.
        notes: one sentence for each decision of the reader about an ambiguous file.
        ids: (n_samples,) the column of a table that names its rows, text or numbers; None without one.
        id_name: name of that column.
        encoding: of a table's columns of words and dates as numbers; None where all columns hold numbers.
        cells: Arrow table of the columns with their words, where the reader was asked for it; ``x`` then holds codes of
            the words. None for data of numbers alone.
        dates: names of the columns of the cells that are dates as days since 1970-01-01.
        vectorizer: of texts, whose weights of terms are the columns of ``x``; None for other rows.
    """

    name: str
    x: Any
    y: np.ndarray | None = None
    columns: list[str] | None = None
    image_shape: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    ids: np.ndarray | None = None
    id_name: str | None = None
    encoding: Encoding | None = None
    cells: Any = None
    dates: tuple[str, ...] = ()
    vectorizer: TextVectorizer | None = None

    def __repr__(self) -> str:
        """Name and shape: the arrays of a NamedTuple would fill pages."""
        n, d = self.x.shape
        classes = "" if self.y is None else f", {len(np.unique(self.y)):,} classes"
        return f"Dataset({self.name!r}, {n:,} rows of {d:,} columns{classes})"

    def _repr_html_(self) -> str:
        """Shape, columns and first rows, for a notebook."""
        import html

        from jaxcluster.core.messages import facts

        n, d = self.x.shape
        classes = "" if self.y is None else f"{len(np.unique(self.y)):,} classes"
        start = self.x[:3] if isinstance(self.x, np.ndarray) else self.x[:3, :9].toarray()
        first = "<br>".join(html.escape(listing(row.tolist(), 8)) for row in start)
        rows = {
            "shape": f"{n:,} rows of {d:,} columns",
            "images": "" if self.image_shape is None else html.escape(str(self.image_shape)),
            "columns": "" if self.columns is None else html.escape(listing(self.columns, 12)),
            "truth": classes,
            "first rows": first,
            "notes": "<br>".join(map(html.escape, self.notes)),
        }
        return facts(self.name, rows)

    @property
    def samples(self) -> Any:
        """Samples for an estimator: the cells, or ``x`` without any."""
        return self.x if self.cells is None else self.cells


class Format(NamedTuple):
    """Options of a text table; None is detected.

    Attributes:
        header: True if the first line holds the column names.
        delimiter: one character, or a word of `jaxcluster.datasets.layout.DELIMITERS`; a blank stands for any run of
            blanks and tabs.
        decimal: decimal mark, "." or ","; the other may then separate thousands.
        encoding: Python's name of the text encoding.
        na: cells that are missing values, besides the usual ones.
    """

    header: bool | None = None
    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    na: tuple[str, ...] | None = None


def listing(values: Iterable[Any], limit: int = 20) -> str:
    """The values on one line, comma separated; at most ``limit`` of them."""
    values = [" ".join(str(value).split()) for value in values]
    more = f", … ({len(values)} in all)" if len(values) > limit else ""
    return ", ".join(values[:limit]) + more


def unknown_name(what: str, value: Any, known: Iterable[str], described: Iterable[str] | None = None) -> DataError:
    """The error for a name that is not among the known ones, which are listed as ``described``."""
    known = list(known)
    return DataError(
        f"{what} {value!r} is not known; there are: {listing(described or known)}.{did_you_mean(value, known)}"
    )


def split_columns(columns: str | int | Sequence[str | int]) -> list[str | int]:
    """Columns as a list; a string is split at commas outside of quotation marks."""
    if isinstance(columns, str):
        parts = next(csv.reader([columns], skipinitialspace=True), [])
        return [part.strip() for part in parts if part.strip()]
    return [columns] if isinstance(columns, (int, np.integer)) else list(columns)


def is_index(column: str | int) -> bool:
    """True for a column by position: an integer, or text that is one."""
    return isinstance(column, (int, np.integer)) or re.fullmatch(r"-?\d+", column) is not None


def column_index(column: str | int, names: Sequence[str] | None, width: int, where: str) -> int:
    """Position of a column given by name or index (negative from the end; a string of digits is an index too)."""
    if names is not None and isinstance(column, str) and column in names:
        if list(names).count(column) > 1:
            same = [i for i, name in enumerate(names) if name == column]
            raise DataError(f"{where} has several columns named {column!r}: choose by index, one of {listing(same)}.")
        return list(names).index(column)
    if not is_index(column):
        if names is None:
            raise DataError(
                f"{where} has no column names, so {column!r} chooses nothing: pass indices from 0 to {width - 1}."
            )
        raise unknown_name(f"{where}: column", column, names)
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
    chosen = [column_index(column, names, width, where) for column in split_columns(columns)]
    if not chosen:
        raise DataError(f"{where}: no columns were chosen. Name at least one, or leave the choice out for all.")
    return chosen


def check_disjoint(chosen: list[int], truth: int | None, where: str) -> list[int]:
    """``chosen``. Raises DataError if the truth is among them."""
    if truth in chosen:
        raise DataError(f"{where}: column {truth} is both the truth and one of the chosen columns. Drop it from one.")
    return chosen


def exclude_columns(
    left_out: str | int | Sequence[str | int],
    chosen: list[int] | None,
    names: Sequence[str] | None,
    width: int,
    where: str,
) -> list[int]:
    """The chosen positions, or all, without columns that are no features. Raises DataError if one was chosen."""
    columns = {column_index(column, names, width, where): column for column in split_columns(left_out)}
    for index in [] if chosen is None else chosen:
        if index in columns:
            raise DataError(f"{where}: column {columns[index]!r} is both left out and chosen. Drop it from one.")
    return [i for i in range(width) if i not in columns] if chosen is None else chosen


def as_labels(values: Any, where: str) -> np.ndarray:
    """``values`` as (n,) labels, text or numbers; (n, 1) and (1, n) are flattened."""
    values = np.asarray(values)
    if values.ndim == 2 and 1 in values.shape:
        values = values.ravel()
    if values.ndim != 1 or values.size == 0:
        raise DataError(f"{where} has shape {values.shape}; labels must be one value per row, shape (n,).")
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind not in "biufU":
        raise DataError(f"{where} has dtype {values.dtype}; labels must be integers or text.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        missing = np.flatnonzero(~np.isfinite(values))
        raise DataError(f"{where} has {missing.size} missing labels, the first in row {missing[0]}. Fill or drop them.")
    return values


def check_lengths(dataset: Dataset, where: str) -> Dataset:
    """``dataset``. Raises DataError unless it has a label for every sample."""
    if dataset.y is not None and len(dataset.y) != dataset.x.shape[0]:
        raise DataError(f"{where}: {dataset.x.shape[0]} rows but {len(dataset.y)} truth labels. They must go together.")
    return dataset


def to_exact_dtype(array: np.ndarray) -> np.ndarray:
    """Real numbers as float32 or float64, whichever holds them all; as 64-bit integers if neither does.

    Half precision becomes float32, and extended precision float64 unless it holds integers beyond 2⁵³ that float64
    would round: nothing is computed in either.
    """
    kind, size = array.dtype.kind, array.dtype.itemsize
    # float32 holds floats of 4 bytes and integers of 2 (24 bits of mantissa).
    if size <= (4 if kind == "f" else 2):
        return np.ascontiguousarray(array, dtype=np.float32)
    # Native byte order: files may be big-endian, which JAX refuses.
    if kind in "iu" and size == 8 and not fits_float64(array):
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    # Numbers beyond float64's range become infinite, which the checks of a fit report by column.
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(array, dtype=np.float64)
    if kind == "f" and size > 8 and _rounds_long_integers(array, narrow):
        return np.ascontiguousarray(array)
    return narrow


def stack_columns(columns: Sequence[np.ndarray], names: Sequence[str], where: str) -> np.ndarray:
    """(n, d) matrix of columns, (n,) or (n, width), in one dtype that holds all numbers; ``names`` are for messages.

    Warns if this platform has no such dtype: for integers beyond 2⁵³ beside fractions.
    """
    columns = [to_exact_dtype(column) for column in columns]
    kinds = {column.dtype.kind for column in columns}
    dtype = np.result_type(*columns) if kinds == {"f"} else _integer_dtype(columns)
    if dtype is None:
        dtype = np.dtype(np.longdouble if HAS_EXTENDED_PRECISION else np.float64)
    if dtype == np.float64 and kinds != {"f"}:
        rounded = ", ".join(name for name, each in zip(names, columns, strict=True) if each.dtype.kind != "f")
        message = (
            f"{where}: column {rounded} has integers beyond 2^53, which are rounded. Subtract one of them from all."
        )
        warn(message, UserWarning)
    x = np.empty((len(columns[0]), sum(_width(column) for column in columns)), dtype)
    start = 0
    for column in columns:
        stop = start + _width(column)
        x[:, start:stop] = column.reshape(len(x), -1)
        start = stop
    return x


def _width(column):
    return 1 if column.ndim == 1 else column.shape[1]


def _integer_dtype(columns):
    """The 64-bit integer dtype that holds all columns; None for fractions, or a range that neither holds."""
    least, most = 0, 0
    for column in columns:
        if column.dtype.kind == "f" and not (np.isfinite(column) & (column == np.rint(column))).all():
            return None
        least, most = min(least, int(column.min())), max(most, int(column.max()))
    for dtype in (np.int64, np.uint64):
        if np.iinfo(dtype).min <= least and most <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return None


def fits_float64(array: np.ndarray) -> bool:
    """True if float64 holds each of these integers."""
    return array.size == 0 or (int(array.min()) >= -MAX_EXACT_INTEGER and int(array.max()) <= MAX_EXACT_INTEGER)


def _rounds_long_integers(array, narrow):
    """True if ``narrow``, in float64, has rounded numbers beyond 2⁵³."""
    return bool(
        HAS_EXTENDED_PRECISION and ((np.abs(array) > MAX_EXACT_INTEGER) & np.isfinite(narrow) & (array != narrow)).any()
    )


def arrow_compute() -> Any:
    """Arrow's functions of columns. pyarrow defines them when it is imported, so type checkers do not see them."""
    from pyarrow import compute

    return compute


def open_arrow_stream(path: Path) -> Any:
    """The bytes of a file as a pyarrow stream, unpacked if its name ends as those of `COMPRESSIONS` do.

    Raises:
        OSError: a file of xz that cannot be unpacked; others raise it when they are read.
    """
    import pyarrow as pa

    compression = COMPRESSIONS.get(path.suffix.lower())
    if compression != "xz":
        return pa.input_stream(arrow_source(path), compression=compression)
    import lzma

    # Arrow does not know xz, so that the whole file is unpacked.
    try:
        return pa.BufferReader(lzma.decompress(path.read_bytes()))
    except lzma.LZMAError as error:
        raise OSError(f"{path.name} is damaged or truncated") from error


def extension(path: Path) -> str:
    """Ending of a name in lower case; ".csv.gz" of a compressed file."""
    return ("".join(path.suffixes[-2:]) if path.suffix.lower() in COMPRESSIONS else path.suffix).lower()


def arrow_source(path: Path) -> Any:
    """A path for pyarrow, which takes text only; the opened file if its name is not valid Unicode."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.open("rb")
    return str(path)
