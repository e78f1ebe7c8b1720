"""CSV files: what separates the fields, whether there is a header, and the columns of numbers and labels."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxcluster.datasets.base import DataError
from jaxcluster.datasets.tables import CHOOSE, Table, refuse_text

if TYPE_CHECKING:
    import pyarrow as pa


HEAD = 1 << 24
"""Bytes in which the first two lines are looked for: some hundred thousand columns."""

LEAST_BLOCK = 1 << 20


class Layout(NamedTuple):
    """How a CSV file is laid out.

    Attributes:
        delimiter: what separates the fields.
        names: of the columns.
        skip: lines before the first row.
        block: bytes to read at a time, into which a row must fit.
    """

    delimiter: str
    names: list[str]
    skip: int
    block: int


def open_csv(path: Path) -> Table:
    """A CSV file with a header or headerless, separated by commas, semicolons or tabs, gzipped or not."""
    layout = sniff(path)
    return Table(path, layout.names, partial(_read, path, layout))


def sniff(path: Path) -> Layout:
    """Separator and header, from the first two lines that are not blank.

    The first is a header if none of its fields is a number, or if one is not where the second line has one; so is
    ``0,1,2,…``, as pandas writes columns without names, over rows with fractions. Without a header the columns are
    called by their index.
    """
    import pyarrow as pa

    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            head = stream.read(HEAD)
    except OSError as error:
        raise DataError(f"{path.name} cannot be read ({path.stat().st_size} bytes): {error}.") from error
    if b"\0" in head:
        raise DataError(f"{path.name} holds binary data, not UTF-8 text.")
    start = head.decode("utf-8-sig", errors="replace")
    if not start.strip():
        raise DataError(f"{path.name} is empty.")
    first_line = start.lstrip().splitlines()[0]
    delimiter = max(",;\t", key=first_line.count)
    reader = csv.reader(io.StringIO(start, newline=""), delimiter=delimiter)
    rows = (row for row in reader if row)
    try:
        first = next(rows)
        skip = reader.line_num
        second = next(rows, [])
    except csv.Error as error:
        raise DataError(f"{path.name} cannot be read as CSV: {error}.") from error
    block = max(LEAST_BLOCK, 8 * max(len("".join(first)), len("".join(second))))
    if not _is_header(first, second):
        return Layout(delimiter, [str(i) for i in range(len(first))], 0, block)
    names = [field.strip() for field in first]
    return Layout(delimiter, [names[0].removeprefix("#").strip(), *names[1:]], skip, block)


def _is_header(first: list[str], second: list[str]) -> bool:
    numbers, below = [[_is_number(field) for field in row] for row in (first, second)]
    if not any(numbers) or any(b and not a for a, b in zip(numbers, below, strict=False)):
        return True
    return first == [str(i) for i in range(len(first))] and any("." in field for field in second)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _read(path: Path, layout: Layout, wanted: Iterable[int], truth: int | None) -> dict[int, pa.ChunkedArray]:
    """The wanted columns, by position: numbers as float32, the truth as text.

    Types are settled from the first block before the file is read as a whole: left alone, pyarrow takes them from
    there as well, and refuses a later 1.5 in a column that began with integers.
    """
    import pyarrow as pa
    from pyarrow import csv as pacsv

    ragged: list[Any] = []

    def leave_out(row: Any) -> str:
        ragged.append(row)
        return "skip"

    include = [str(i) for i in dict.fromkeys(wanted)]
    names = [str(i) for i in range(len(layout.names))]
    options = {
        "read_options": pacsv.ReadOptions(skip_rows=layout.skip, column_names=names, block_size=layout.block),
        "parse_options": pacsv.ParseOptions(
            delimiter=layout.delimiter, newlines_in_values=True, invalid_row_handler=leave_out
        ),
    }
    types = {} if truth is None else {str(truth): pa.string()}
    try:
        guess = pacsv.ConvertOptions(include_columns=include, column_types=types)
        with pacsv.open_csv(path, **options, convert_options=guess) as reader:
            block = reader.read_next_batch()
        refuse_text(path.name, layout.names, {int(i): block.column(i) for i in include if i not in types})
        for name in set(include) - set(types):
            kind = block.schema.field(name).type
            types[name] = kind if pa.types.is_boolean(kind) else pa.float32()
        ragged.clear()
        convert = pacsv.ConvertOptions(include_columns=include, column_types=types)
        table = pacsv.read_csv(path, **options, convert_options=convert)
    except StopIteration:
        raise DataError(f"{path.name} has no rows, only a header: {', '.join(layout.names)}.") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name}: {_explain(error, layout.names)}") from error
    if ragged:
        raise DataError(f"{path.name}: {_ragged(ragged, table.num_rows)}")
    return {int(name): table.column(name) for name in include}


def _ragged(rows: list[Any], good: int) -> str:
    row = rows[0]
    return (
        f"{len(rows)} of {good + len(rows)} rows do not have {row.expected_columns} fields; the first has "
        f"{row.actual_columns}: {row.text[:60]!r}. Is the file truncated?"
    )


def _explain(error: Exception, names: Sequence[str]) -> str:
    """pyarrow's complaint in one line, with a column's name for its number."""
    message = str(error).splitlines()[0]
    found = re.match(r"In CSV column #(\d+): .*invalid value '(.*)'", message)
    if not found:
        return message.rstrip(".") + "."
    return f"column {names[int(found[1])]!r} holds {found[2]!r}, which is not a number. {CHOOSE}"
