"""Other files that hold a table: a sheet of Excel, and several files as one."""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcluster.datasets.base import MAX_EXACT_INTEGER, DataError, listing
from jaxcluster.datasets.columns import plain, title_of
from jaxcluster.datasets.layout import MISSING
from jaxcluster.datasets.tables import Table
from jaxcluster.datasets.texts import text_files

if TYPE_CHECKING:
    import pyarrow as pa

ROW_FILES = (".npy", ".parquet")
"""Endings of files whose rows are read in blocks, and which a folder of rows holds."""


def open_excel(path: Path, sheet: str | None, na: Sequence[str] | None) -> Table:
    """Open a sheet of an .xlsx file, whose first row holds the names of the columns.

    Args:
        path: of the file.
        sheet: name of the sheet; None for the only one that is not empty.
        na: words for missing cells, besides the usual ones.

    Raises:
        DataError: a file that is no .xlsx, several sheets without a choice, or a missing openpyxl.
    """
    try:
        import openpyxl  # pyright: ignore[reportMissingModuleSource]  # of the extra "tables"
    except ImportError as error:
        raise DataError(f"{path.name} needs openpyxl: pip install 'jaxcluster[tables]', or save it as .csv.") from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheets = {each.title: [list(row) for row in each.iter_rows(values_only=True)] for each in book.worksheets}
    except Exception as error:  # openpyxl lets through whatever zipfile and its XML parser raise
        raise DataError(f"{path.name} cannot be read as .xlsx ({path.stat().st_size} bytes). Save it again.") from error
    filled = {name: rows for name, rows in sheets.items() if any(cell is not None for row in rows for cell in row)}
    if sheet is None and len(filled) != 1:
        seen = f"sheets {listing(filled)}" if filled else "no cells"
        raise DataError(f"{path.name} holds {seen}. Choose one: --key NAME in the shell, key= in Python.")
    if sheet is not None and sheet not in sheets:
        raise DataError(f"{path.name} has no sheet {sheet!r}; there are: {listing(sheets)}.")
    chosen = next(iter(filled)) if sheet is None else sheet
    rows = [row for row in sheets[chosen] if any(cell is not None for cell in row)]
    if not rows:
        raise DataError(f"{path.name}: sheet {chosen!r} is empty.")
    width = max(max((i + 1 for i, cell in enumerate(row) if cell is not None), default=0) for row in rows)
    names = ["" if cell is None else str(cell).strip() for cell in [*rows[0], *[None] * width][:width]]
    missing = MISSING.union(na or ())
    columns = [_typed([row[i] if i < len(row) else None for row in rows[1:]], missing) for i in range(width)]
    return arrow_table(path, names, columns)


def _typed(cells: list[Any], missing: Collection[str]) -> pa.ChunkedArray:
    """Cells of a sheet as a column of numbers, truth values or dates if all are, else of text."""
    import pyarrow as pa

    cells = [None if cell is None or (isinstance(cell, str) and cell.strip() in missing) else cell for cell in cells]
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds == {int} and None not in cells and max(map(abs, cells)) > MAX_EXACT_INTEGER:
        with suppress(OverflowError, pa.ArrowInvalid):  # beyond 64 bits
            return pa.chunked_array([pa.array(cells, pa.int64())])
    if kinds <= {int, float}:
        return pa.chunked_array([pa.array([None if cell is None else float(cell) for cell in cells], pa.float64())])
    if kinds == {bool}:
        return pa.chunked_array([pa.array(cells, pa.bool_())])
    if kinds <= {datetime, date}:
        days = [datetime(c.year, c.month, c.day) if type(c) is date else c for c in cells]
        return pa.chunked_array([pa.array(days, pa.timestamp("us"))])
    shown = [f"{cell:.0f}" if isinstance(cell, float) and cell.is_integer() else cell for cell in cells]
    return pa.chunked_array([pa.array([None if word is None else str(word) for word in shown], pa.string())])


def arrow_table(path: Path, names: Sequence[str], columns: Sequence[pa.ChunkedArray]) -> Table:
    """A `Table` of columns in memory."""

    def read(wanted: Iterable[int], text: Collection[int], *, words: bool = False) -> dict[int, pa.ChunkedArray]:
        return {i: plain(columns[i]) for i in wanted}

    return Table(path, list(names), read)


def row_files(folder: Path) -> list[Path]:
    """Files of rows in a folder, sorted, but hidden ones: half of a download, or what macOS leaves beside a file."""
    return sorted(each for each in folder.iterdir() if each.suffix in ROW_FILES and each.name[0] != ".")


def matching_files(pattern: str) -> list[Path]:
    """Files of a pattern such as ``part-*.csv``, or of a folder of rows, sorted; none for a file or for texts."""
    if Path(pattern).is_dir():
        return [] if text_files(Path(pattern)) else row_files(Path(pattern))
    if not glob.has_magic(pattern) or Path(pattern).exists():
        return []
    return sorted(path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file())


def join_tables(pattern: str, tables: Sequence[Table]) -> Table:
    """One table of the rows of several files, in their order.

    Raises:
        DataError: files with other columns than the first, naming them; another order of the columns is accepted.
    """
    first = tables[0]
    for table in tables[1:]:
        if sorted(table.names) != sorted(first.names):
            missing = [name for name in first.names if name not in table.names]
            more = [name for name in table.names if name not in first.names]
            seen = [f"it lacks {listing(map(repr, missing), 5)}"] * bool(missing)
            seen += [f"it has {listing(map(repr, more), 5)} besides"] * bool(more)
            raise DataError(
                f"{table.path.name} has other columns than {first.path.name}: "
                f"{' and '.join(seen) or 'a name is repeated'}."
            )
    notes = [f"{len(tables):,} files are read as one table: {listing((table.path.name for table in tables), 4)}."]
    notes += [note for table in tables for note in table.notes]
    read = partial(_read_all, tables)
    return Table(Path(pattern), first.names, read, tuple(dict.fromkeys(notes)), first.row_names, first, first.index)


def _read_all(
    tables: Sequence[Table], wanted: Iterable[int], text: Collection[int], *, words: bool = False
) -> Mapping[int, pa.ChunkedArray]:
    """The wanted columns of all tables, one below the other."""
    wanted = list(dict.fromkeys(wanted))
    found = [_read_by_name(table, tables[0].names, wanted, text, words=words) for table in tables]
    # A column of numbers in one file may hold words in another: it is one of words in all.
    other = {i for i in wanted if i not in text and len({_is_text(each[i].type) for each in found}) > 1}
    if other:
        again = [_read_by_name(table, tables[0].names, sorted(other), other, words=True) for table in tables]
        found = [{**each, **more} for each, more in zip(found, again, strict=True)]
    first = tables[0]
    return {
        i: _stacked([each[i] for each in found], f"{first.path.name}: column {title_of(first.names, i)}")
        for i in wanted
    }


def _read_by_name(
    table: Table, names: list[str], wanted: list[int], text: Collection[int], *, words: bool
) -> dict[int, pa.ChunkedArray]:
    """Columns of a table by their positions in another one of the same names."""
    positions = {}
    for i in wanted:
        same = [j for j, name in enumerate(table.names) if name == names[i]]
        positions[i] = same[names[:i].count(names[i])]
    columns = table.read(positions.values(), {positions[i] for i in wanted if i in text}, words=words)
    return {i: columns[j] for i, j in positions.items()}


def _is_text(kind: pa.DataType) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind)


def _stacked(columns: Sequence[pa.ChunkedArray], where: str) -> pa.ChunkedArray:
    """Columns of several files as one, of text if one of them is, else of float64 where the types differ.

    Raises:
        DataError: integers that float64 rounds in one file, and other numbers in another.
    """
    import pyarrow as pa
    from pyarrow import types

    kinds = {column.type for column in columns}
    if len(kinds) > 1:
        common = pa.string() if any(map(_is_text, kinds)) else pa.float64()
        try:  # a safe cast raises for integers that float64 rounds
            columns = [
                (column.cast(pa.uint8()) if types.is_boolean(column.type) else column).cast(common)
                for column in columns
            ]
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{where} has integers beyond 2^53, which float64 rounds, and other numbers in another file. Leave it "
                "out (drop=), or write one type of number to all files."
            ) from error
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)
