"""Parquet files: only the wanted columns are read."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcluster.datasets.base import DataError, for_arrow
from jaxcluster.datasets.tables import Table

if TYPE_CHECKING:
    import pyarrow as pa


MAGIC = b"PAR1"
"""The first and the last bytes of every Parquet file."""


def open_parquet(path: Path) -> Table:
    """A Parquet file. Columns of equally long lists of numbers (embeddings) are welcome."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(for_arrow(path), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    names = list(file.schema_arrow.names)
    return Table(path, names, partial(_read, path, file, names))


def _read(
    path: Path, file: Any, names: list[str], wanted: Iterable[int], text: Collection[int]
) -> dict[int, pa.ChunkedArray]:
    """The wanted columns by position. Where several have one name the whole file is read: pyarrow chooses by name."""
    import pyarrow as pa

    wanted = list(dict.fromkeys(wanted))
    chosen = [names[i] for i in wanted]
    unique = all(names.count(name) == 1 for name in chosen)
    try:
        table = file.read(columns=chosen if unique else None)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    columns = {i: table.column(names[i] if unique else i) for i in wanted}
    return {i: _plain(column) if i in text else column for i, column in columns.items()}


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of categories as their values."""
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _damaged(path: Path, error: Exception) -> DataError:
    """The error for a file that pyarrow does not read, in plain words for what is common."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(4)
        stream.seek(-min(4, size), 2)
        end = stream.read()
    if start != MAGIC:
        seen = f"it starts with {start!r}, not with {MAGIC!r}"
    elif end != MAGIC:
        seen = f"it does not end with {MAGIC!r}: it is truncated"
    else:
        seen = "it is damaged, or holds what this version of pyarrow does not know"
    return DataError(f"{path.name} cannot be read as Parquet ({size} bytes): {seen}.")
