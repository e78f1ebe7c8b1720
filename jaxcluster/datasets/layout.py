"""The layout of a text table: its encoding, what separates fields and fractions, and whether it has a header.

What a caller does not tell is found out from the first lines. What can be read in two ways is decided by the rules
below, and said in a note together with the way to overrule it.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from jaxcluster.datasets.base import DataError, Format, arrow_stream, listing

HEAD = 1 << 24
"""Bytes in which the first lines are looked for: some hundred thousand columns."""

SAMPLE_ROWS, SAMPLE_FIELDS, LEAST_ROWS = 200, 1 << 16, 3
"""Rows by which a layout is judged: fewer of wide tables, as soon as they have so many fields."""

LEAST_BLOCK = 1 << 20
"""Bytes that are parsed at a time, at the least."""

DELIMITERS = {"tab": "\t", "semicolon": ";", "pipe": "|", "comma": ",", "blank": " "}
"""Delimiters by name; of those that fit equally well the first is taken."""

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The encoding that each first bytes stand for; UTF-32's begin with those of UTF-16."""

LEGACY = ("cp1252", "latin-1")
"""Encodings of text that is not UTF-8: Windows' of Western Europe, of which five bytes are undefined; then all are."""

_WORDS = ("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL")
MISSING = frozenset(
    spelling
    for word in (*_WORDS, "NaN", "None", "")
    for spelling in (word, word.lower(), word.upper(), word.capitalize())
)
"""Spellings of a cell without a value: those of pandas, in small and capital letters."""

NUMBER = {
    ".": re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.IGNORECASE),
    ",": re.compile(r"[+-]?(\d+(,\d*)?|,\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.IGNORECASE),
}
"""Numbers by their decimal mark."""

GROUPED = {
    ".": re.compile(r"[+-]?\d{1,3}(?:(?:,\d{3})+|(?:[ \u00a0\u202f'’]\d{3})+)(?:\.\d*)?"),
    ",": re.compile(r"[+-]?\d{1,3}(?:(?:\.\d{3})+|(?:[ \u00a0\u202f'’]\d{3})+)(?:,\d*)?"),
}
"""Numbers whose thousands are apart, by their decimal mark."""

YEAR = re.compile(r"1[5-9]\d\d|2[01]\d\d")

STEPS = 5
"""So many numbers in equal steps are no accident: wavelengths, for example, as names of columns."""


class Layout(NamedTuple):
    """The layout of a text table.

    Attributes:
        encoding: as Python calls it.
        delimiter: of fields; a blank stands for any run of blanks and tabs.
        decimal: "." or ","; None where the sample does not tell.
        names: of the columns, "" for one without a name.
        skip: lines before the first row.
        block: bytes to read at a time, into which a row must fit.
        blank_end: whether each row ends with a delimiter and no field after it.
        row_names: whether rows have a first field that the header has no place for.
        sample: the first rows.
        notes: what was decided where a file can be read in two ways.
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


def check_format(form: Format) -> Format:
    """``form`` with its delimiter as a character. Raises DataError for what no table can have."""
    delimiter = form.delimiter
    if delimiter is not None:
        named = {**DELIMITERS, "space": " ", "\\t": "\t"}
        delimiter = named.get(delimiter.lower(), delimiter)
        if not _separates(delimiter):
            raise DataError(
                f"delimiter {form.delimiter!r} cannot separate fields: choose one character, such as ';', or one of "
                f"{', '.join(DELIMITERS)}."
            )
    if form.decimal not in (None, ".", ","):
        raise DataError(f"decimal mark {form.decimal!r} is not known; choose '.' or ','.")
    if form.encoding is not None:
        try:
            codecs.lookup(form.encoding)
        except LookupError:
            raise DataError(
                f"encoding {form.encoding!r} is not known; common ones are utf-8, utf-16, latin-1 and cp1252."
            ) from None
    return form._replace(delimiter=delimiter)


def _separates(delimiter: str) -> bool:
    """Whether fields can be separated by this: by one character that is part of no number, word or quotation."""
    return len(delimiter) == 1 and not delimiter.isalnum() and delimiter not in "\"'\r\n\0.+-"


def sniff(path: Path, form: Format, *, not_utf8: bool = False) -> Layout:
    """The layout of a file, as far as ``form`` tells it and for the rest from its first lines.

    Args:
        path: of the file.
        form: what the caller knows.
        not_utf8: whether the file is known to hold bytes that are not UTF-8.

    Raises:
        DataError: a file without text, and one that is not text.
    """
    form = check_format(form)
    head, whole = _head(path)
    encoding, text, notes = _decoded(path.name, head, whole, form.encoding, not_utf8)
    if not text.strip():
        raise DataError(f"{path.name} is empty.")
    text, before, marked = _without_mark(text)
    delimiter = form.delimiter or marked or _delimiter(text, form.decimal)
    rows = _sample(text, delimiter, path.name, whole)
    block = max(LEAST_BLOCK, 8 * max((len("".join(row)) for _, row in rows[:2]), default=0))
    rows = _without_comments(rows)
    if not rows:
        raise DataError(f"{path.name} is empty.")
    (line, first), below = rows[0], [row for _, row in rows[1:]]
    decimal = form.decimal or _decimal(below or [first])
    header, said = (form.header, None) if form.header is not None else _is_header(first, below, decimal or ".")
    notes = [*notes, said] if said else notes
    if not header:
        below = [first, *below]
    width = _commonest_length(below) if below else len(first)
    ended = bool(below) and all(len(row) == width and not row[-1].strip() for row in below)
    if header:
        names, skip = [field.strip() for field in first], before + line
        names[0] = names[0].removeprefix("#").strip()
        blank_end = ended and (len(names) + 1 == width or (len(names) == width and not names[-1]))
    else:
        names, skip = [str(i) for i in range(width)], before + line - _lines(first)
        blank_end = ended and width > 1
    names = names[: width - 1] if blank_end else names
    row_names = header and not blank_end and len(names) + 1 == width
    names = ["", *names] if row_names else names
    if row_names and len(names) == 2 and form.delimiter is None and _repeats([row[0] for row in below]):
        # What seemed to be names of rows comes twice, so that the comma is in the numbers of a single column.
        names, row_names, delimiter, decimal = names[1:], False, ";", ","
        below = [[",".join(row)] for row in below]
    return Layout(encoding, delimiter, decimal, names, skip, block, blank_end, row_names, below, tuple(notes))


def numbered_rows(text: str, delimiter: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, and the number of the line that it ends in, from 1."""
    lines = io.StringIO(text, newline="")
    blanks = delimiter == " "
    reader = csv.reader(map(_one_blank, lines) if blanks else lines, delimiter=delimiter)
    try:
        for row in reader:
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
    """Whether a field is a number with this decimal mark."""
    field = field.strip()
    return bool(NUMBER[decimal].fullmatch(field) or GROUPED[decimal].fullmatch(field))


# Encoding -----------------------------------------------------------------------------------------------------------


def _head(path: Path) -> tuple[bytes, bool]:
    """The first bytes, unzipped, and whether they are all."""
    try:
        with arrow_stream(path) as stream:
            head = stream.read(HEAD + 1)
    except OSError as error:
        zipped = " as a gzipped file; is it truncated?" if path.suffix.lower() == ".gz" else "."
        raise DataError(f"{path.name} cannot be read ({path.stat().st_size} bytes){zipped}") from error
    return head[:HEAD], len(head) <= HEAD


def _decoded(name: str, head: bytes, whole: bool, given: str | None, not_utf8: bool) -> tuple[str, str, list[str]]:
    """Encoding and text of the first bytes, and what was decided."""
    marked = next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    if given is not None:
        own = marked if marked and codecs.lookup(given).name in ("utf-8", "utf-16", "utf-32") else given
        tried = [own]
    elif marked:
        tried = [marked]
    else:
        tried = [*(() if not_utf8 else ("utf-8",)), *LEGACY]
    for encoding in tried:
        try:
            text = codecs.getincrementaldecoder(encoding)("strict").decode(head, final=whole)
        except UnicodeError:
            continue
        _check_text(name, head, text)
        notes = []
        if encoding in LEGACY and given is None:
            notes = [f"{name} is not UTF-8 and is read as {encoding}; pass encoding= if its letters come out wrong."]
        return encoding, text, notes
    raise DataError(
        f"{name} is not {tried[0]}: its bytes do not decode. Leave the encoding out, or name the right one (encoding=)."
    )


def _check_text(name: str, head: bytes, text: str) -> None:
    """Raises DataError for text with NUL characters, which no table has."""
    at = text.find("\0")
    if at < 0:
        return
    for encoding, offset in (("utf-16-le", 1), ("utf-16-be", 0)):
        half = head[offset:SAMPLE_FIELDS:2]
        if half.count(0) > len(half) / 2:
            raise DataError(f"{name} looks like UTF-16 without a byte order mark: pass encoding={encoding}.")
    line = text.count("\n", 0, at) + 1
    raise DataError(f"{name} holds binary data, a NUL character in line {line}: it is no text table, or damaged.")


# Delimiter ----------------------------------------------------------------------------------------------------------


def _without_mark(text: str) -> tuple[str, int, str | None]:
    """The text after a line ``sep=;``, how many lines that are, and the delimiter in it, as Excel takes it."""
    found = re.match(r'\s*"?sep=(.)"?[ \t]*(\r\n|\r|\n|$)', text, re.IGNORECASE)
    if not found or not _separates(found[1]):
        return text, 0, None
    before = found[0]
    return text[found.end() :], len(before.splitlines()), found[1]


def _delimiter(text: str, decimal: str | None) -> str:
    """The delimiter by which rows have equally many fields, and most fields are numbers."""
    best, chosen = 0.0, ";" if decimal == "," else ","
    for delimiter in DELIMITERS.values():
        try:
            rows = [row for _, row in _sample(text, delimiter, "", whole=True)]
        except DataError:
            continue
        if delimiter == decimal and not any(decimal in field for row in rows for field in row):
            continue  # no field is quoted, so that it would separate the digits of numbers
        score = _fitness(rows, delimiter)
        if score > best:
            best, chosen = score, delimiter
    return chosen


def _sample(text: str, delimiter: str, name: str, whole: bool) -> list[tuple[int, list[str]]]:
    """The first rows and the lines that they end in; the last one is left out where the text may end within it."""
    rows: list[tuple[int, list[str]]] = []
    fields = 0
    for line, row in numbered_rows(text, delimiter, name):
        rows.append((line, row))
        fields += len(row)
        if len(rows) == SAMPLE_ROWS or (fields > SAMPLE_FIELDS and len(rows) >= LEAST_ROWS):
            return rows
    return rows if whole or len(rows) < 2 else rows[:-1]


def _commonest_length(rows: Sequence[list[str]]) -> int:
    return Counter(map(len, rows)).most_common(1)[0][0]


def _fitness(rows: list[list[str]], delimiter: str) -> float:
    """The share of rows of the commonest length, more for numbers and a header of this length; 0 for one column."""
    below = rows[1:] or rows
    width = _commonest_length(below) if below else 0
    if width < 2:
        return 0.0
    count = sum(len(row) == width for row in below)
    fields = [field for row in below if len(row) == width for field in row]
    numbers = sum(field.strip() in MISSING or is_number(field) or is_number(field, ",") for field in fields)
    if delimiter == " " and not numbers:
        return 0.0  # sentences
    fit = {width: 1.0, width - 1: 0.75}.get(len(rows[0]), 0.25)
    return count / len(below) * fit * (0.1 + numbers / len(fields))


def _decimal(rows: list[list[str]]) -> str | None:
    """The decimal mark that some field cannot do without; None where all can be read either way."""
    fields = [field.strip() for row in rows for field in row]
    return decimal_of([field for field in fields if "," in field or "." in field])


def decimal_of(fields: Sequence[str]) -> str | None:
    """The decimal mark of numbers such as 0,5 or 1.234,5; None where none of them tells, or they contradict."""
    told = {mark for field in fields for mark in ".," if _needs(field, mark)}
    return told.pop() if len(told) == 1 else None


def _needs(field: str, mark: str) -> bool:
    """Whether a field is a number with this decimal mark and none with the other."""
    other = "," if mark == "." else "."
    return mark in field and is_number(field, mark) and not is_number(field, other)


# Header -------------------------------------------------------------------------------------------------------------


def _is_header(first: list[str], below: list[list[str]], decimal: str) -> tuple[bool, str | None]:
    """Whether the first row holds names, and a note where that can be seen in two ways.

    It does if it has a word over a column of numbers. Words over words are names unless they come again below. Numbers
    are names if they count (0, 1, 2), are years, or rise in equal steps, and are unlike the rows below.
    """
    fields = [field.strip().removeprefix("#").strip() for field in first]
    extra = int(bool(below) and _commonest_length(below) == len(fields) + 1)
    columns = [[row[i + extra].strip() for row in below if i + extra < len(row)] for i in range(len(fields))]
    columns = [[cell for cell in column if cell not in MISSING] for column in columns]
    words = [i for i, field in enumerate(fields) if _is_word(field)]
    numbers = [i for i, field in enumerate(fields) if is_number(field, decimal)]
    if any(columns[i] and all(is_number(cell, decimal) for cell in columns[i]) for i in words):
        return True, None
    if words and all(fields[i] in columns[i] for i in words):
        return False, None
    if not numbers:
        return bool(words) or not any(columns), None
    index = fields[0] == "" and numbers == list(range(1, len(fields)))
    counts, apart = _names_like(
        [fields[i] for i in numbers], [columns[i] for i in numbers], decimal, index or bool(extra)
    )
    if not counts or len(numbers) + len(words) + index < len(fields):
        return False, None
    shown = listing((field for field in fields if field), 6)
    if apart:
        return True, f"the first line ({shown}) is taken for the names of columns; pass header=False if it is a row."
    if len(numbers) < 2:
        return False, None
    return False, f"the first line ({shown}) is taken for a row; pass header=True if it holds the names of columns."


def _is_word(field: str) -> bool:
    return any(letter.isalpha() for letter in field) and field not in MISSING and not is_number(field)


def _names_like(fields: list[str], columns: list[list[str]], decimal: str, index: bool) -> tuple[bool, bool]:
    """Whether numbers are such as columns are named by, and whether they are unlike the rows below.

    Three and more that count are unlike a table with fractions, and one of integers unless another row counts too. A
    pair, years and steps must be unlike the columns below.
    """
    if not all(re.fullmatch(r"\d+", field) for field in fields):
        return False, False
    values = [int(field) for field in fields]
    if fields == [str(i) for i in range(len(fields))]:
        if index or len(fields) > 2:
            whole = all(re.fullmatch(r"[+-]?\d+", cell) for column in columns for cell in column)
            return True, index or not whole or not any(map(_counts, zip(*columns, strict=False)))
        far = any(_far(*pair, decimal) for pair in zip(values, columns, strict=True))
        return True, far or any(_fractions(column, decimal) for column in columns)
    steps = {b - a for a, b in pairwise(values)}
    rising = len(values) >= STEPS and len(steps) == 1 and min(steps) > 0
    years = len(set(values)) == len(values) and all(map(YEAR.fullmatch, fields))
    if not (rising or years):
        return False, False
    return True, all(_apart(*pair, decimal) for pair in zip(fields, columns, strict=True))


def _counts(row: Sequence[str]) -> bool:
    """Whether the fields of a row are integers, each one more than the field before."""
    return all(re.fullmatch(r"\d+", field) for field in row) and all(int(b) - int(a) == 1 for a, b in pairwise(row))


def _fractions(column: list[str], decimal: str) -> bool:
    """Whether every cell is written with a fraction or an exponent, unlike a whole number above."""
    return bool(column) and all(is_number(cell, decimal) and not re.fullmatch(r"[+-]?\d+", cell) for cell in column)


def _apart(field: str, column: list[str], decimal: str) -> bool:
    """Whether a whole number is unlike those below: they are fractions, or others, and not all of them years."""
    values = _values(column, decimal)
    if not values:
        return False
    outside = not min(values) <= int(field) <= max(values) and not all(map(YEAR.fullmatch, column))
    return _fractions(column, decimal) or outside


def _far(value: int, column: list[str], decimal: str) -> bool:
    """Whether a number lies beyond those below by more than they differ."""
    values = _values(column, decimal)
    if len(values) < 2:
        return False
    low, high = min(values), max(values)
    return max(low - value, value - high) > high - low


def _values(column: list[str], decimal: str) -> list[float]:
    """The numbers of a column; none where a cell is no number."""
    if not all(NUMBER[decimal].fullmatch(cell) for cell in column):
        return []
    return [float(cell.replace(",", ".")) for cell in column]


# Lines --------------------------------------------------------------------------------------------------------------


def _without_comments(rows: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """Rows from the header on, which may begin with #: further lines before it that do are comments."""
    while len(rows) > 1 and rows[0][1][0].lstrip().startswith("#"):
        width = _commonest_length([row for _, row in rows[1:]])
        if len(rows[0][1]) == width and not rows[1][1][0].lstrip().startswith("#"):
            break
        rows = rows[1:]
    return rows


def _one_blank(line: str) -> str:
    end = line[len(line.rstrip("\r\n")) :]
    return re.sub(r"[ \t]+", " ", line.strip(" \t\r\n")) + end


def _lines(row: list[str]) -> int:
    """Lines that a row takes: more than one where a quoted field holds line breaks."""
    return 1 + sum(len(field.splitlines()) - 1 for field in row if "\n" in field or "\r" in field)


def _repeats(values: list[str]) -> bool:
    return len(set(values)) < len(values)
