"""Text tables (CSV and similar): columns as numbers or text, and errors that name the first bad cell and its line.

>>> quote_cell("abc")
"'abc'"
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.datasets.base import MAX_EXACT_INTEGER, DataError, Format, arrow_compute, listing, open_arrow_stream
from jaxcluster.datasets.columns import CHOOSE_HINT, integers_with_nan, marker_hint, title_of, warn_of_merged
from jaxcluster.datasets.layout import GROUPED, NUMBER, Layout, decimal_of, is_number, numbered_rows, sniff
from jaxcluster.datasets.tables import Table

if TYPE_CHECKING:
    import pyarrow as pa

    from jaxcluster.types import Absent

MAX_BLOCK_BYTES = 2**31 - 1
"""Largest block of bytes that pyarrow parses at a time."""

UNIT_SEPARATOR = "\x1f"
"""ASCII's unit separator, which replaces delimiters that pyarrow does not support."""

TRUTH_VALUES = ("true", "false")
"""Words that become 1 and 0."""

LONG_NUMBER = r"^[+-]?\d{16,}(\.\d*)?$"
"""Pattern of numbers without an exponent that have more digits than float64 holds."""

UNUSUAL_DELIMITERS = ":^~/#&\x1f"
"""Delimiters that are not looked for, as dates, times and shares hold some of them, but named to the user."""

MIN_ROWS_OF_A_LINE = 3
"""Fewest other rows from which a single line with words is taken for a line of names, or a sum."""

MAX_CELL_CHARACTERS = 40
"""Longest cell in a message."""


def open_csv(path: Path, form: Format) -> Table:
    """Open a text table, compressed or not, with the layout in ``form`` or detected from the first lines."""
    layout = sniff(path, form)
    return Table(path, layout.names, partial(_read, path, form, layout), layout.notes, layout.row_names)


def _read(
    path: Path, form: Format, layout: Layout, wanted: Iterable[int], text: Collection[int], *, words: bool = False
) -> dict[int, pa.ChunkedArray]:
    """The wanted columns by position, those in ``text`` as text, the others as numbers.

    With ``words`` a column that holds something else than numbers comes as text too, its missing cells null.

    Plain numbers are parsed by pyarrow. If that fails all columns are read as text and converted here: because of
    decimal commas, thousands separators, words for missing values, or a cell that is no number.
    """
    if not layout.sample:
        raise DataError(f"{path.name} has no rows, only a header: {listing(layout.names)}.")
    wanted = list(dict.fromkeys(wanted))
    numeric = [i for i in wanted if i not in text]
    # pyarrow's own conversion saves a second pass over text, and is tried if the sample suggests that it succeeds.
    plain = [i for i in numeric if _is_plain(layout, i)]
    columns = _parse(path, form, layout, wanted, plain) if len(plain) == len(numeric) else None
    if columns is None:
        cells = _parse(path, form, layout, wanted, [])
        _check_quotes(path, layout, cells.values())
        return {**cells, **_parse_numbers(path, layout, {i: cells[i] for i in numeric}, words=words)}
    _check_quotes(path, layout, [columns[i] for i in wanted if i in text])
    long = [i for i in plain if _beyond_exact(columns[i])]
    # float64 has rounded them. They are read again as text, and become 64-bit integers.
    if long:
        parsed = _parse(path, form, layout, long, [])
        columns |= {i: _exact(_column_title(path, layout, i), parsed[i], layout.missing, columns[i]) for i in long}
    return columns


def _is_plain(layout: Layout, column: int) -> bool:
    """True if pyarrow can parse the sampled cells of a column as numbers."""
    cells = (row[column].strip() for row in layout.sample if column < len(row))
    pattern = NUMBER[layout.decimal or "."]
    return all(cell in layout.missing or pattern.fullmatch(cell) for cell in cells)


def _parse(
    path: Path, form: Format, layout: Layout, wanted: Sequence[int], numbers: Collection[int]
) -> dict[int, pa.ChunkedArray] | Absent:
    """The wanted columns, those in ``numbers`` as float64, the others as text; None if a cell is no number.

    Raises:
        DataError: a file without rows, rows of different lengths, or another file that is no table.
    """
    import pyarrow as pa
    from pyarrow import csv

    ragged: list[Any] = []
    numeric = frozenset(numbers)  # a file may have a hundred thousand columns

    def skip_ragged(row: Any) -> str:
        if row.text.strip():  # a line of blanks is none
            ragged.append(row)
        return "skip"

    # Positions instead of names, as names may repeat; an extra column for the empty field after a last delimiter.
    names = [str(i) for i in range(len(layout.names) + layout.blank_end)]
    convert = csv.ConvertOptions(
        include_columns=[names[i] for i in wanted] + names[len(layout.names) :],
        column_types={name: pa.float64() if i in numeric else pa.string() for i, name in enumerate(names)},
        null_values=sorted(layout.missing),
        decimal_point=layout.decimal or ".",
    )
    rewritten = _is_rewritten(layout)
    parse = csv.ParseOptions(
        delimiter=UNIT_SEPARATOR if rewritten else layout.delimiter,
        newlines_in_values=True,
        invalid_row_handler=skip_ragged,
    )
    options = {"skip_rows": layout.skip, "column_names": names, "encoding": "utf-8" if rewritten else layout.encoding}
    try:
        with _open_stream(path, layout) as stream:
            read = csv.ReadOptions(block_size=layout.block, **options)
            table = csv.read_csv(stream, read_options=read, parse_options=parse, convert_options=convert)
    except (pa.ArrowInvalid, UnicodeError) as error:
        # A bad number, a row beyond the block and a wrong encoding all raise ArrowInvalid: they are told apart by what
        # succeeds next.
        if numbers:
            return None
        size = min(MAX_BLOCK_BYTES, len(_bytes(path)) + 1)
        # A row may be longer than a block.
        if layout.block < size:
            return _parse(path, form, layout._replace(block=size), wanted, numbers)
        return _diagnose(path, form, layout, wanted, error)
    if ragged:
        raise _ragged_error(path, layout, ragged, table.num_rows)
    if layout.blank_end:
        _check_blank(path, layout, table.column(names[-1]))
    return dict(zip(wanted, table.columns, strict=False))


def _bytes(path: Path) -> bytes:
    """The whole file, unpacked."""
    try:
        with open_arrow_stream(path) as stream:
            return stream.read()
    except OSError as error:
        raise DataError(f"{path.name} cannot be unpacked ({path.stat().st_size} bytes). Is it truncated?") from error


def _is_rewritten(layout: Layout) -> bool:
    """True for what pyarrow does not support: delimiters that are not a single ASCII character, `` "a"`` in a field."""
    return layout.delimiter == " " or not layout.delimiter.isascii() or layout.blank_quotes


def _open_stream(path: Path, layout: Layout) -> Any:
    """The bytes of the file, unpacked, with a delimiter that pyarrow supports."""
    import pyarrow as pa

    if not _is_rewritten(layout):
        return open_arrow_stream(path)
    text = codecs.decode(_bytes(path), layout.encoding)
    # One output line per input line, so that line numbers in pyarrow's errors stay valid.
    rows = [""] * (text.count("\n") + text.count("\r") + 1)
    for line, row in numbered_rows(text.removeprefix("\ufeff"), layout.delimiter, path.name):
        rows[line - 1] = UNIT_SEPARATOR.join(map(_quoted, row))
    return pa.BufferReader("\n".join(rows).encode())


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if re.search('["\r\n\x1f]', field) else field


# Numbers ------------------------------------------------------------------------------------------------------------


def _parse_numbers(
    path: Path, layout: Layout, cells: Mapping[int, pa.ChunkedArray], *, words: bool = False
) -> dict[int, pa.ChunkedArray]:
    """Columns of text as float64, or as integers that float64 does not hold; with ``words`` others as they are.

    Raises:
        DataError: naming every column with a cell that is no number, and the line of the first such cell.
    """
    import pyarrow as pa

    compute = arrow_compute()

    cells = {i: _trimmed(column, layout.missing) for i, column in cells.items()}
    decimal = layout.decimal or _decimal(path, layout, cells)
    parsed, bad = {}, {}
    for i, column in cells.items():
        lower = compute.utf8_lower(column)
        if compute.all(compute.is_in(lower.drop_null(), value_set=_strings(TRUTH_VALUES))).as_py():
            # A column without any cell is no column of truth values.
            known = column.null_count < len(column)
            parsed[i] = compute.equal(lower, "true") if known else lower.cast(pa.float64())
            continue
        # Patterns run on all cells in Arrow; only distinct cells that are no plain numbers come to Python.
        numbers = compute.match_substring_regex(column, f"^(?:{NUMBER[decimal].pattern})$", ignore_case=True)
        others = compute.filter(column, compute.invert(numbers)).drop_null()
        grouped = [cell for cell in compute.unique(others).to_pylist() if GROUPED[decimal].fullmatch(cell)]
        if len(grouped) < len(compute.unique(others)):
            bad[i] = next(cell for cell in others.to_pylist() if cell not in set(grouped))
            continue
        parsed[i] = _as_numbers(_column_title(path, layout, i), column, decimal, set(grouped), layout.missing)
    if bad and not words:
        raise _not_numeric_error(path, layout, cells, bad, decimal)
    return {**parsed, **{i: cells[i] for i in bad}}


def _trimmed(column: pa.ChunkedArray, missing: Collection[str]) -> pa.ChunkedArray:
    """Cells without surrounding blanks; missing values are null."""
    compute = arrow_compute()

    column = compute.utf8_trim_whitespace(column)
    return compute.if_else(compute.is_in(column, value_set=_strings(missing)), None, column)


def _strings(values: Iterable[str]) -> pa.Array:
    import pyarrow as pa

    return pa.array(sorted(values), pa.string())


def _decimal(path: Path, layout: Layout, cells: Mapping[int, pa.ChunkedArray]) -> str:
    """The decimal mark of a file whose first lines are ambiguous, from all cells with a comma or a point.

    Raises:
        DataError: only ambiguous cells such as 1,234, which may be above a thousand or just above one.
    """
    compute = arrow_compute()

    marked = []
    for i, column in cells.items():
        cells_with_mark = compute.unique(column.filter(compute.match_substring_regex(column, "[.,]"))).drop_null()
        marked += [(i, cell) for cell in cells_with_mark.to_pylist()]
    decimal = decimal_of([cell for _, cell in marked])
    if decimal is None and marked:
        both = next((each for each in marked if "," in each[1] and all(is_number(each[1], m) for m in ".,")), None)
        if both is not None:
            column, cell = both
            raise DataError(
                f"{_column_title(path, layout, column)} holds {cell!r}, which may be {cell.replace(',', '')} or "
                f"{cell.replace(',', '.')}: pass decimal='.' for the first, or decimal=',' for the second."
            )
    return decimal or "."


def _column_title(path: Path, layout: Layout, column: int) -> str:
    return f"{path.name}: column {title_of(layout.names, column)}"


def _as_numbers(
    where: str, column: pa.ChunkedArray, decimal: str, grouped: Collection[str], missing: Collection[str]
) -> pa.ChunkedArray:
    """Cells of numbers as float64, or as integers that float64 does not hold."""
    import pyarrow as pa

    compute = arrow_compute()

    if grouped:
        for mark in (("," if decimal == "." else "."), " ", "\u00a0", "\u202f", "'", "’"):
            column = compute.replace_substring(column, mark, "")
    if decimal == ",":
        column = compute.replace_substring(column, ",", ".")
    numbers = compute.replace_substring_regex(column, r"^\+", "").cast(pa.float64())
    return _exact(where, column, missing, numbers) if _beyond_exact(numbers) else numbers


def _beyond_exact(column: pa.ChunkedArray) -> bool:
    """True for numbers beyond 2⁵³, where float64 does not hold every integer."""
    values = column.to_numpy()
    return bool((np.abs(values[np.isfinite(values)]) > MAX_EXACT_INTEGER).any())


def _exact(where: str, column: pa.ChunkedArray, missing: Collection[str], numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as 64-bit integers, or as ``numbers`` in float64, with a warning if that makes some of them equal."""
    integers = _integers(where, column, missing)
    if integers is not None:
        return integers
    compute = arrow_compute()
    column = _trimmed(column, missing)
    long = compute.fill_null(compute.match_substring_regex(column, LONG_NUMBER), False)
    warn_of_merged(where, column.filter(long), numbers.filter(long))
    return numbers


def _integers(where: str, column: pa.ChunkedArray, missing: Collection[str]) -> pa.ChunkedArray | None:
    """Text as 64-bit integers; None for other text, or larger integers."""
    import pyarrow as pa

    column = _trimmed(column, missing)
    for kind in (pa.int64(), pa.uint64()):
        try:
            integers = column.cast(kind)
        except pa.ArrowInvalid:
            continue
        return integers_with_nan(where, integers) if integers.null_count else integers
    return None


# Errors -------------------------------------------------------------------------------------------------------------


def _not_numeric_error(
    path: Path, layout: Layout, cells: Mapping[int, pa.ChunkedArray], bad: Mapping[int, str], decimal: str
) -> DataError:
    """The error for columns that are not numeric, with the first such cell of each and its line."""
    compute = arrow_compute()

    rows = {i: compute.index(cells[i], cell).as_py() for i, cell in bad.items()}
    lines = _line_numbers(path, layout, set(rows.values()))
    seen = listing(
        f"{title_of(layout.names, i)} (holds {quote_cell(cell)} in line {lines.get(rows[i], '?')})"
        for i, cell in bad.items()
    )
    other = "," if decimal == "." else "."
    hint = marker_hint(((title_of(layout.names, i), quote_cell(cell), cells[i]) for i, cell in bad.items()), decimal)
    hint = _line_hint(cells, rows, decimal, lines) or hint
    if not hint:
        hint = _field_hint(bad.values(), decimal, single=len(layout.names) == 1)
    if any(is_number(cell, other) for cell in bad.values()):
        hint = f" Other numbers of the file have the decimal mark {decimal!r}: pass decimal={other!r} if that is wrong."
    return DataError(f"{path.name}: not numeric: column{'s' if len(bad) > 1 else ''} {seen}.{hint} {CHOOSE_HINT}")


def _line_hint(
    cells: Mapping[int, pa.ChunkedArray], rows: Mapping[int, int], decimal: str, lines: Mapping[int, int]
) -> str:
    """A sentence on a single line, the first or the last, that holds all cells that are no numbers; empty without one.

    Args:
        cells: of all columns.
        rows: the row of the first such cell of each column that has any.
        decimal: decimal mark of the numbers.
        lines: line of each of these rows.
    """
    compute = arrow_compute()
    at, last = next(iter(rows.values())), len(next(iter(cells.values()))) - 1
    if set(rows.values()) != {at} or last < MIN_ROWS_OF_A_LINE or at not in (0, last):
        return ""
    pattern = f"^(?:{NUMBER[decimal].pattern})$"
    for i in rows:
        numbers = compute.match_substring_regex(cells[i], pattern, ignore_case=True)
        if compute.sum(compute.invert(numbers)).as_py() != 1:
            return ""
    seen = "a second line of names, or of units" if at == 0 else "a sum, or a remark"
    return f" Line {lines.get(at, '?')} looks like {seen}: remove it from the file if it is."


def _field_hint(cells: Iterable[str], decimal: str, single: bool) -> str:
    """A sentence on fields that are numbers within single quotes, or numbers with an unusual delimiter between them."""
    for cell in cells:
        if len(cell) > 2 and cell[0] == cell[-1] == "'" and is_number(cell[1:-1], decimal):
            return " Numbers stand within single quotes: save the file without them, or with double quotes."
        for delimiter in UNUSUAL_DELIMITERS if single else "":
            fields = cell.split(delimiter)
            if len(fields) > 1 and all(is_number(field, decimal) for field in fields):
                return f" Its fields look separated by {delimiter!r}: pass delimiter={delimiter!r} if they are."
    return ""


def quote_cell(cell: str) -> str:
    """A cell in a message, shortened."""
    return repr(cell if len(cell) <= MAX_CELL_CHARACTERS else cell[:MAX_CELL_CHARACTERS] + "…")


def _line_numbers(path: Path, layout: Layout, rows: Collection[int]) -> dict[int, int]:
    """The last line of each of these rows, which are counted from 0."""
    last = max(rows)
    lines = {}
    for row, (line, _) in enumerate(_rows(path, layout)):
        if row in rows:
            lines[row] = line
        if row == last:
            break
    return lines


def _rows(path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header, by Python's reader, with the numbers of their last lines."""
    text = codecs.decode(_bytes(path), layout.encoding, "replace").removeprefix("\ufeff")
    lines = io.StringIO(text, newline="").readlines()
    rest = "".join(lines[layout.skip :])
    return ((layout.skip + line, row) for line, row in numbered_rows(rest, layout.delimiter, path.name))


def _ragged_error(path: Path, layout: Layout, ragged: Sequence[Any], good: int) -> DataError:
    """The error for rows with another number of fields than the header."""
    width = len(layout.names) + layout.blank_end
    first = ((line, len(row), layout.delimiter.join(row)) for line, row in _rows(path, layout) if len(row) != width)
    line, fields, row = next(first, ("?", ragged[0].actual_columns, ragged[0].text))
    return DataError(
        f"{path.name}: {len(ragged):,} of {good + len(ragged):,} rows do not have {width} "
        f"field{'s' * (width > 1)}; the first is line {line}, with {fields}: {quote_cell(row)}. "
        "Correct the file, or name what separates its fields (delimiter=)."
    )


def _check_blank(path: Path, layout: Layout, column: pa.ChunkedArray) -> None:
    """Raise DataError if a row has a field after the last delimiter after all."""
    compute = arrow_compute()

    filled = compute.index(compute.equal(compute.utf8_trim_whitespace(column), ""), False).as_py()
    if filled >= 0:
        line = _line_numbers(path, layout, {filled}).get(filled, "?")
        raise DataError(
            f"{path.name}: the last column has no name and no cells in the first rows, but holds "
            f"{quote_cell(column[filled].as_py())} in line {line}. Give it a name, or empty it."
        )


def _check_quotes(path: Path, layout: Layout, columns: Iterable[pa.ChunkedArray]) -> None:
    """Raise DataError if an unclosed quotation mark has swallowed the rest of the file."""
    compute = arrow_compute()

    if not any(compute.any(compute.match_substring(column, "\n")).as_py() for column in columns):
        return
    lines = io.StringIO(codecs.decode(_bytes(path), layout.encoding, "replace"), newline="").readlines()
    # An unclosed quotation mark makes the last row run to the end of the file: that row then has an odd number of them.
    before = layout.skip
    for line, _ in _rows(path, layout):
        before, start = line, before
    if "".join(lines[start:]).count('"') % 2:
        raise DataError(f"{path.name}: a quotation mark in line {start + 1} or below is not closed. Correct the file.")


def _diagnose(path, form, layout, wanted, error) -> dict[int, pa.ChunkedArray] | None:
    """Find the reason of pyarrow's error: read again if only the encoding was wrong, else raise DataError."""
    if isinstance(error, UnicodeError) or layout.encoding == "utf-8":
        try:
            codecs.decode(_bytes(path), layout.encoding)
        except UnicodeDecodeError:
            if form.encoding is None and layout.encoding == "utf-8":
                return _parse(path, form, sniff(path, form, not_utf8=True), wanted, [])
            raise DataError(
                f"{path.name} is not {layout.encoding} throughout. Name the right encoding (encoding=)."
            ) from error
    # Python's reader raises DataError for a quotation mark that is not closed.
    for _ in _rows(path, layout):
        pass
    raise DataError(
        f"{path.name} cannot be read as a table with {layout.delimiter!r} between its fields. Look for quotation marks "
        "that are not closed, or name what separates its fields (delimiter=)."
    ) from error
