"""Files with a JSON object on each line.

Arrow reads them. What it cannot read is read once more line by line, by Python, so that the line and the reason are
named; so are integers of more than 64 bits, which Arrow rounds to float64.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.datasets.base import MAX_EXACT_INTEGER, DataError, open_arrow_stream
from jaxcluster.datasets.columns import warn_of_merged
from jaxcluster.datasets.decoding import kind_hint
from jaxcluster.datasets.files import arrow_table
from jaxcluster.datasets.tables import Table

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST_BLOCK = 2**31 - 1
"""Largest block of bytes that pyarrow parses at a time; a line lies in one block."""

KINDS = {str: "text", bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
"""Types of JSON, in words."""

ABSENT_HINT = "Leave the key of a missing cell out, or write null."


def open_json_lines(path: Path) -> Table:
    """Open a file with a JSON object on each line, compressed or not; a key that a line lacks is a missing cell.

    Raises:
        DataError: a line that is no object, or a key with values of several types, with the line.
    """
    import pyarrow as pa
    from pyarrow import json as arrow_json

    for block in (1 << 20, LARGEST_BLOCK):
        try:
            with open_arrow_stream(path) as stream:
                table = arrow_json.read_json(stream, read_options=arrow_json.ReadOptions(block_size=block))
            names = table.column_names
            break
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if "straddl" in str(error) and block < LARGEST_BLOCK:  # a line is longer than a block
                continue
            raise DataError(f"{path.name}: {_reason(path)}") from error
    columns = [_exact(path, name, column) for name, column in zip(names, table.columns, strict=True)]
    return arrow_table(path, names, columns)


def _exact(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of float64 that holds integers beyond 2^53 as 64-bit integers, or with a warning."""
    import pyarrow as pa

    if not pa.types.is_floating(column.type):
        return column
    values = column.to_numpy()
    if not (np.abs(values[np.isfinite(values)]) > MAX_EXACT_INTEGER).any():
        return column
    cells = [row.get(name) for row in _objects(path)]
    if all(type(cell) is int and 0 <= cell < 2**64 for cell in cells):
        return pa.chunked_array([pa.array(cells, pa.uint64())])
    text = pa.chunked_array([pa.array([str(cell) if type(cell) is int else None for cell in cells], pa.string())])
    warn_of_merged(f"{path.name}: column {name!r}", text.drop_null(), column.filter(text.is_valid()))
    return column


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file that Arrow has read: it takes several in a line, one over several lines, and null."""
    with open_arrow_stream(path) as stream:
        text = stream.read().decode("utf-8-sig")
    decoder, at = json.JSONDecoder(), 0
    while word := re.compile(r"\S").search(text, at):
        row, at = decoder.raw_decode(text, word.start())
        yield row or {}


def _lines(path: Path) -> Iterable[tuple[int, bytes]]:
    with open_arrow_stream(path) as stream:
        lines = stream.read().split(b"\n")
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _reason(path: Path) -> str:
    """The first line that makes a file unreadable, and why."""
    hint = kind_hint(path)
    try:
        lines = list(_lines(path))
    except OSError:
        return f"it cannot be unpacked ({path.stat().st_size} bytes).{hint or ' Is it truncated?'}"
    if hint:
        return f"it holds no lines of JSON.{hint}"
    if not lines:
        return "it is empty."
    seen: dict[str, tuple[str, int]] = {}
    for number, line in lines:
        try:
            row = json.loads(line.decode(), object_pairs_hook=_checked_pairs)
        except UnicodeDecodeError:
            return f"line {number} is not UTF-8, as JSON is. Save the file again in UTF-8."
        except RepeatedKeyError as error:
            return f"line {number} has the key {error} twice. Rename one of them."
        except (ValueError, RecursionError):
            return f"line {number} is no JSON object: {_quoted(line)}. Is the file truncated, or of another kind?"
        if not isinstance(row, dict):
            return f"line {number} holds {KINDS.get(type(row), 'nothing')}, where an object is expected."
        for key, value in row.items():
            kind = "nothing" if value is None else KINDS[type(value)]
            before, first = seen.setdefault(key, (kind, number)) if value is not None else (kind, number)
            if isinstance(value, float) and not math.isfinite(value):
                cell = f"key {key!r} in line {number}"
                return f"{cell} holds no number within float64's range: {_quoted(line)}. {ABSENT_HINT}"
            if kind != before:
                return f"key {key!r} holds {before} in line {first} and {kind} in line {number}. Make them one type."
    return "it cannot be read as JSON lines, an object on each line."


class RepeatedKeyError(ValueError):
    """A key that an object has twice."""


def _checked_pairs(pairs):
    keys = [key for key, _ in pairs]
    if repeated := next((key for i, key in enumerate(keys) if key in keys[:i]), None):
        raise RepeatedKeyError(repr(repeated))
    return dict(pairs)


def _quoted(line: bytes) -> str:
    text = line.decode(errors="replace").strip()
    return repr(text if len(text) <= 40 else text[:40] + "…")
