"""Layout of a text table: its encoding, delimiter, decimal mark and header.

Everything that the caller does not specify is detected from the first lines. Ambiguous files are decided by the rules
below, and a note tells the decision and how to overrule it.

>>> decimal_of(["0,5", "1.234,5"]), is_number("1 234.5")
(',', True)
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import dropwhile, pairwise
from pathlib import Path
from typing import NamedTuple

from jaxcluster.datasets.base import DataError, Format, listing
from jaxcluster.datasets.decoding import check_encoding, decode_head, read_head

SAMPLE_ROWS, SAMPLE_FIELDS, MIN_SAMPLE_ROWS = 200, 1 << 16, 3
"""Rows of the sample that decides the layout: fewer for wide tables, once there are so many fields, but at least 3."""

MIN_BLOCK_BYTES = 1 << 20
"""Smallest block of bytes that pyarrow parses at a time; a row must fit into a block."""

DELIMITERS = {"tab": "\t", "semicolon": ";", "pipe": "|", "comma": ",", "blank": " "}
"""Delimiters by name, in order of preference where they fit equally well."""

_WORDS = ("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL")
MISSING = frozenset(
    spelling
    for word in (*_WORDS, "NaN", "None", "")
    for spelling in (word, word.lower(), word.upper(), word.capitalize())
)
"""Spellings of a missing value: those of pandas, in lower, upper and title case."""

NUMBER = {
    ".": re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.IGNORECASE | re.ASCII),
    ",": re.compile(r"[+-]?(\d+(,\d*)?|,\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.IGNORECASE | re.ASCII),
}
"""Patterns of numbers by decimal mark: of ASCII's digits, as Arrow knows no others."""

GROUPED = {
    ".": re.compile(r"[+-]?[1-9]\d{0,2}(?:(?:,\d{3})+|(?:[ \u00a0\u202f'’]\d{3})+)(?:\.\d*)?", re.ASCII),
    ",": re.compile(r"[+-]?[1-9]\d{0,2}(?:(?:\.\d{3})+|(?:[ \u00a0\u202f'’]\d{3})+)(?:,\d*)?", re.ASCII),
}
"""Patterns of numbers with thousands separators, by decimal mark: 0,123 is none."""

YEAR = re.compile(r"1[5-9]\d\d|2[01]\d\d")

MIN_STEPS = 5
"""Length of an arithmetic sequence that is taken for column names, for example wavelengths, and not for chance."""


class Layout(NamedTuple):
    """The layout of a text table.

    Attributes:
        encoding: Python's name.
        delimiter: of fields; a blank stands for any run of blanks and tabs.
        decimal: decimal mark, "." or ","; None if the sample is ambiguous.
        names: of the columns, "" for one without a name.
        skip: lines before the first row.
        block: bytes to parse at a time, into which a row must fit.
        blank_end: True if each row ends with a delimiter and no field after it.
        row_names: True if rows have a first field that the header has no name for.
        sample: the first rows.
        notes: decisions about an ambiguous file.
        missing: cells that are missing values.
        blank_quotes: True if blanks stand between a delimiter and a quotation mark.
    """

    encoding: str
    delimiter: str
    decimal: str | None
    names: list[str]
    skip: int
    block: int
    blank_end: bool
    row_names: bool
    sample: list[list[str]]
    notes: tuple[str, ...]
    missing: frozenset[str] = MISSING
    blank_quotes: bool = False


def check_format(form: Format) -> Format:
    """``form`` with its delimiter as a character. Raises DataError for invalid options."""
    delimiter = form.delimiter
    if delimiter is not None:
        named = {**DELIMITERS, "space": " ", "\\t": "\t"}
        delimiter = named.get(delimiter.lower(), delimiter)
        if not _is_delimiter(delimiter):
            raise DataError(
                f"delimiter {form.delimiter!r} cannot separate fields: choose one character, such as ';', or one of "
                f"{', '.join(DELIMITERS)}."
            )
    if form.decimal not in (None, ".", ","):
        raise DataError(f"decimal mark {form.decimal!r} is not known; choose '.' or ','.")
    if form.encoding is not None:
        check_encoding(form.encoding)
    return form._replace(delimiter=delimiter)


def _is_delimiter(delimiter: str) -> bool:
    """True for one character that is part of no number, word or quotation."""
    return len(delimiter) == 1 and not delimiter.isalnum() and delimiter not in "\"'\r\n\0.+-"


def sniff(path: Path, form: Format, *, not_utf8: bool = False) -> Layout:
    """Detect the layout of a file from its first lines; options in ``form`` take precedence.

    Args:
        path: of the file.
        form: options of the caller.
        not_utf8: True if the file is known to hold bytes that are not UTF-8.

    Raises:
        DataError: an empty file, or one that is not text.
    """
    form = check_format(form)
    missing = MISSING.union(form.na or ())
    head, whole = read_head(path)
    encoding, text, notes = decode_head(path.name, head, whole, form.encoding, not_utf8)
    if not text.strip():
        raise DataError(f"{path.name} is empty.")
    text, before, marked = _skip_separator_line(text)
    delimiter = form.delimiter or marked or _delimiter(text, form.decimal, missing)
    rows = _sample(text, delimiter, path.name, whole)
    notes += _delimiter_notes(path.name, text, form, missing)
    # Up to 4 bytes per character, and rows below that may be twice as long.
    block = max(MIN_BLOCK_BYTES, 8 * max((len("".join(row)) for _, row in rows[:2]), default=0))
    rows = _without_comments(rows, form, missing)
    if not rows:
        raise DataError(f"{path.name} is empty.")
    (line, first), below = rows[0], [row for _, row in rows[1:]]
    decimal = form.decimal or _decimal(below or [first])
    header, note = (form.header, None) if form.header is not None else _is_header(first, below, decimal or ".", missing)
    notes = [*notes, note] if note else notes
    if not header:
        below = [first, *below]
    # The most common length, as single rows may be damaged: they are reported later, with their line.
    width = _most_common_length(below) if below else len(first)
    ended = bool(below) and all(len(row) == width and not row[-1].strip() for row in below)
    if header:
        names, skip = [field.strip() for field in first], before + line
        names[0] = names[0].removeprefix("#").strip()
        blank_end = ended and (len(names) + 1 == width or (len(names) == width and not names[-1]))
    else:
        names, skip = [str(i) for i in range(width)], before + line - _line_count(first)
        blank_end = ended and width > 1
    names = names[: width - 1] if blank_end else names
    # R's write.table writes row names without a name for their column.
    row_names = header and not blank_end and len(names) + 1 == width
    names = ["", *names] if row_names else names
    if row_names and len(names) == 2 and form.delimiter is None and not _name_rows([row[0] for row in below]):
        # The comma is the decimal mark of a single column instead.
        names, row_names, delimiter, decimal = names[1:], False, ";", ","
        below = [[",".join(row)] for row in below]
    spaced = delimiter != " " and re.search(re.escape(delimiter) + ' +"', text) is not None
    found = encoding, delimiter, decimal, names, skip, block, blank_end, row_names, below, tuple(notes), missing
    return Layout(*found, blank_quotes=spaced)


def numbered_rows(text: str, delimiter: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with the number of its last line, from 1."""
    lines, blanks = io.StringIO(text, newline=""), delimiter == " "
    lines = map(_collapse_blanks, lines) if blanks else lines
    # A quotation mark may follow blanks.
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=not blanks)
    try:
        for row in reader:
            # NumPy's savetxt writes the header as "# a b": the # is no field of its own.
            if blanks and row[:1] == ["#"]:
                row = ["#" + row[1], *row[2:]] if row[1:] else row
            if row and (len(row) > 1 or row[0].strip()):
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(
            f"{name} cannot be read as a table near line {reader.line_num}: a quotation mark is not closed, or a field "
            f"is longer than {csv.field_size_limit():,} characters."
        ) from error


def is_number(field: str, decimal: str = ".") -> bool:
    """True for a number with this decimal mark."""
    field = field.strip()
    return bool(NUMBER[decimal].fullmatch(field) or GROUPED[decimal].fullmatch(field))


# Delimiter ----------------------------------------------------------------------------------------------------------


def _skip_separator_line(text: str) -> tuple[str, int, str | None]:
    """Skip a first line ``sep=;``, Excel's way to state the delimiter.

    Returns:
        The rest of the text, the number of skipped lines, and the delimiter or None.
    """
    match = re.match(r'\s*"?sep=(.)"?[ \t]*(\r\n|\r|\n|$)', text, re.IGNORECASE)
    if not match or not _is_delimiter(match[1]):
        return text, 0, None
    return text[match.end() :], len(match[0].splitlines()), match[1]


def _delimiter(text: str, decimal: str | None, missing: Collection[str]) -> str:
    """The delimiter with the most regular rows and the most numbers."""
    best, chosen = 0.0, ";" if decimal == "," else ","
    for delimiter in DELIMITERS.values():
        try:
            rows = [row for _, row in _sample(text, delimiter, "", whole=True)]
        except DataError:
            continue
        if delimiter == decimal and not any(delimiter in field for row in rows for field in row):
            # No field is quoted, so that this delimiter would split numbers at their decimal mark.
            continue
        score = _fitness(rows, delimiter, missing)
        if score > best:
            best, chosen = score, delimiter
    return chosen


def _delimiter_notes(name: str, text: str, form: Format, missing: Collection[str]) -> list[str]:
    """A note on a delimiter of the caller that stands nowhere, where another one separates fields."""
    given = form.delimiter
    if given is None or given in text:
        return []
    other = _delimiter(text, form.decimal, missing)
    rows = [row for _, row in _sample(text, other, name, whole=True)]
    if other not in text or len(rows[0]) != _most_common_length(rows[1:] or rows):
        return []
    return [f"{name} holds no {given!r}, so that each line is one field; {other!r} would give {len(rows[0])} columns."]


def _sample(text: str, delimiter: str, name: str, whole: bool) -> list[tuple[int, list[str]]]:
    """The first rows, with the numbers of their last lines; without the last row if the text may end within it."""
    rows: list[tuple[int, list[str]]] = []
    fields = 0
    for line, row in numbered_rows(text, delimiter, name):
        rows.append((line, row))
        fields += len(row)
        if len(rows) == SAMPLE_ROWS or (fields > SAMPLE_FIELDS and len(rows) >= MIN_SAMPLE_ROWS):
            return rows
    return rows if whole or len(rows) < 2 else rows[:-1]


def _most_common_length(rows: Sequence[list[str]]) -> int:
    return Counter(map(len, rows)).most_common(1)[0][0]


def _fitness(rows: list[list[str]], delimiter: str, missing: Collection[str] = MISSING) -> float:
    """Score of a delimiter: fraction of rows of the most common length, weighted by numbers and a fitting header.

    0 for a single column.
    """
    below = rows[1:] or rows
    width = _most_common_length(below) if below else 0
    if width < 2:
        return 0.0
    count = sum(len(row) == width for row in below)
    fields = [field for row in below if len(row) == width for field in row]
    numbers = sum(field.strip() in missing or is_number(field) or is_number(field, ",") for field in fields)
    if delimiter == " " and not numbers:
        return 0.0  # words with blanks between them are sentences, not fields
    # A header may lack a name for row names (0.75); other lengths speak against the delimiter. Without any number the
    # score is a tenth, so that tables of words are recognized only if nothing else fits.
    fit = {width: 1.0, width - 1: 0.75}.get(len(rows[0]), 0.25)
    return count / len(below) * fit * (0.1 + numbers / len(fields))


def _decimal(rows: list[list[str]]) -> str | None:
    """The decimal mark that some field requires; None if all are ambiguous."""
    fields = [field.strip() for row in rows for field in row]
    return decimal_of([field for field in fields if "," in field or "." in field])


def decimal_of(fields: Sequence[str]) -> str | None:
    """The decimal mark of numbers such as 0,5 or 1.234,5; None if all are ambiguous, or they contradict each other."""
    marks = {mark for field in fields for mark in ".," if _requires_mark(field, mark)}
    return marks.pop() if len(marks) == 1 else None


def _requires_mark(field: str, mark: str) -> bool:
    """True for a number with this decimal mark that is none with the other."""
    other = "," if mark == "." else "."
    return mark in field and is_number(field, mark) and not is_number(field, other)


# Header -------------------------------------------------------------------------------------------------------------


def _is_header(
    first: list[str], below: list[list[str]], decimal: str, missing: Collection[str] = MISSING
) -> tuple[bool, str | None]:
    """Decide if the first row holds column names.

    It does if it has a word over a column of numbers. Words over words are names unless they recur below. Numbers are
    names if they count (0, 1, 2), are years, or rise in equal steps, and differ from the rows below.

    Returns:
        The decision, and a note if the row is ambiguous.
    """
    fields = [field.strip().removeprefix("#").strip() for field in first]
    extra = int(bool(below) and _most_common_length(below) == len(fields) + 1)
    columns = [[row[i + extra].strip() for row in below if i + extra < len(row)] for i in range(len(fields))]
    columns = [[cell for cell in column if cell not in missing] for column in columns]
    words = [i for i, field in enumerate(fields) if _is_word(field)]
    numbers = [i for i, field in enumerate(fields) if is_number(field, decimal)]
    if any(columns[i] and all(is_number(cell, decimal) for cell in columns[i]) for i in words):
        return True, None
    if words and all(fields[i] in columns[i] for i in words):
        return False, None
    if not numbers:
        return bool(words) or not any(columns), None
    index = fields[0] == "" and numbers == list(range(1, len(fields)))
    resembles, differs = _resemble_names(
        [fields[i] for i in numbers], [columns[i] for i in numbers], decimal, index or bool(extra)
    )
    if not resembles or len(numbers) + len(words) + index < len(fields):
        return False, None
    name_list = listing((field for field in fields if field), 6)
    if differs:
        taken = f"the first line ({name_list}) is taken for the names of columns"
        return True, f"{taken}; pass header=False if it is a row."
    if len(numbers) < 2:
        return False, None
    return False, f"the first line ({name_list}) is taken for a row; pass header=True if it holds the names of columns."


def _is_word(field: str) -> bool:
    return any(letter.isalpha() for letter in field) and field not in MISSING and not is_number(field)


def _resemble_names(fields: list[str], columns: list[list[str]], decimal: str, index: bool) -> tuple[bool, bool]:
    """Compare numbers in the first row with the usual forms of column names, and with the rows below.

    Three or more that count (0, 1, 2) differ from a table with fractions, and from one of integers unless another row
    counts too. A pair, years and steps must differ from their columns.

    Returns:
        True if they have the form of names, and True if they also differ from the rows below.
    """
    if not all(re.fullmatch(r"\d+", field) for field in fields):
        return False, False
    values = [int(field) for field in fields]
    if fields == [str(i) for i in range(len(fields))]:
        if index or len(fields) > 2:
            whole = all(re.fullmatch(r"[+-]?\d+", cell) for column in columns for cell in column)
            return True, index or not whole or not any(map(_is_sequence, zip(*columns, strict=False)))
        far = any(_is_outlier(*pair, decimal) for pair in zip(values, columns, strict=True))
        return True, far or any(_has_fractions(column, decimal) for column in columns)
    steps = {b - a for a, b in pairwise(values)}
    rising = len(values) >= MIN_STEPS and len(steps) == 1 and min(steps) > 0
    years = len(set(values)) == len(values) and all(map(YEAR.fullmatch, fields))
    if not (rising or years):
        return False, False
    return True, all(_differs_from(*pair, decimal) for pair in zip(fields, columns, strict=True))


def _is_sequence(row: Sequence[str]) -> bool:
    """True for integers that increase by 1."""
    return all(re.fullmatch(r"\d+", field) for field in row) and all(int(b) - int(a) == 1 for a, b in pairwise(row))


def _has_fractions(column: list[str], decimal: str) -> bool:
    """True if every cell has a fraction or an exponent."""
    return bool(column) and all(is_number(cell, decimal) and not re.fullmatch(r"[+-]?\d+", cell) for cell in column)


def _differs_from(field: str, column: list[str], decimal: str) -> bool:
    """True for a whole number over fractions, or outside of the range of a column that is not all years."""
    values = _values(column, decimal)
    if not values:
        return False
    outside = not min(values) <= int(field) <= max(values) and not all(map(YEAR.fullmatch, column))
    return _has_fractions(column, decimal) or outside


def _is_outlier(value: int, column: list[str], decimal: str) -> bool:
    """True for a number farther from the column than the column's range."""
    values = _values(column, decimal)
    if len(values) < 2:
        return False
    low, high = min(values), max(values)
    return max(low - value, value - high) > high - low


def _values(column: list[str], decimal: str) -> list[float]:
    """The numbers of a column; empty if a cell is no number."""
    if not all(NUMBER[decimal].fullmatch(cell) for cell in column):
        return []
    return [float(cell.replace(",", ".")) for cell in column]


# Lines --------------------------------------------------------------------------------------------------------------


def _without_comments(
    rows: list[tuple[int, list[str]]], form: Format, missing: Collection[str]
) -> list[tuple[int, list[str]]]:
    """Rows from the header on. Leading lines with # are comments, but for a header, and for rows like those below."""
    plain = [i for i, (_, row) in enumerate(rows) if not row[0].lstrip().startswith("#")]
    if not plain:  # a file of such rows
        width = _most_common_length([row for _, row in rows]) if rows else 0
        return list(dropwhile(lambda each: len(each[1]) != width, rows))
    first = plain[0]
    width = _most_common_length([row for _, row in rows[first:]])
    decimal = form.decimal or _decimal([row for _, row in rows[first + 1 :]]) or "."
    if form.header is None and _is_header(rows[first][1], [row for _, row in rows[first + 1 :]], decimal, missing)[0]:
        return rows[first:]
    # Cells such as #ff0000 in the first column.
    while first and _is_like(rows[first - 1][1], [row for _, row in rows[first:]], width, decimal, missing):
        first -= 1
    named = first and form.header is not False and len(rows[first - 1][1]) == width
    return rows[first - 1 :] if named else rows[first:]


def _is_like(
    row: Sequence[str], below: Sequence[list[str]], width: int, decimal: str, missing: Collection[str]
) -> bool:
    """True for a row with numbers exactly where most rows below have them, apart from its first field."""
    if len(row) != width or width < 2:
        return False
    others = [other for other in below if len(other) == width]

    def numbers(cells: Sequence[str]) -> int:
        return sum(cell.strip() in missing or is_number(cell, decimal) for cell in cells)

    usual = [2 * numbers([other[j] for other in others]) > len(others) for j in range(1, width)]
    return any(usual) and usual == [numbers([cell]) == 1 for cell in row[1:]]


def _collapse_blanks(line: str) -> str:
    end = line[len(line.rstrip("\r\n")) :]
    return re.sub(r"[ \t]+", " ", line.strip(" \t\r\n")) + end


def _line_count(row: list[str]) -> int:
    """Number of lines of a row: quoted fields may hold line breaks."""
    return 1 + sum(len(field.splitlines()) - 1 for field in row if "\n" in field or "\r" in field)


def _name_rows(values: list[str]) -> bool:
    """True for distinct cells that name rows, or that number them one by one."""
    return len(set(values)) == len(values) and (not all(map(is_number, values)) or _is_sequence(values))
