"""Parquet files: only the wanted columns are read."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcluster.datasets.base import DataError
from jaxcluster.datasets.tables import Table

if TYPE_CHECKING:
    import pyarrow as pa


def open_parquet(path: Path) -> Table:
    """A Parquet file. Columns of equally long lists of numbers (embeddings) are welcome."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    names = list(file.schema_arrow.names)
    return Table(path, names, partial(_read, path, file, names))


def _read(path: Path, file: Any, names: list[str], wanted: Iterable[int], _: int | None) -> dict[int, pa.ChunkedArray]:
    import pyarrow as pa

    wanted = list(dict.fromkeys(wanted))
    try:
        table = file.read(columns=[names[i] for i in wanted])
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    return {i: table.column(names[i]) for i in wanted}


def _damaged(path: Path, error: Exception) -> DataError:
    seen = str(error).splitlines()[0].rstrip(".")
    return DataError(f"{path} cannot be read as Parquet ({path.stat().st_size} bytes): {seen}.")
