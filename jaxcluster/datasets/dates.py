"""Dates as numbers of days since 1970-01-01, which keep their order and their differences.

>>> days(["1970-01-02", "1970-01-01 12:00", "2.1.1970"])
{'1970-01-02': 1.0, '1970-01-01 12:00': 0.5, '2.1.1970': 1.0}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.datasets.base import DataError, arrow_compute

if TYPE_CHECKING:
    import pyarrow as pa

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

UNITS_OF_A_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
"""Units of Arrow's times in a day; its dates of 64 bits count milliseconds."""

_TIME = r"(?:[T ]+(\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?)\s*(Z|[+-]\d\d:?\d\d)?)?"

YEAR_FIRST = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})" + _TIME)
"""Year, month, day, as ISO 8601 has them."""

DAY_FIRST = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})" + _TIME)
"""Day, month, year, with points."""

YEAR_LAST = re.compile(r"(\d{1,2})[/-](\d{1,2})[/-](\d{4})" + _TIME)
"""Day and month in either order, and the year."""


def is_date(cell: str) -> bool:
    """True for text in the form of a date, with or without a time."""
    return any(form.fullmatch(cell.strip()) for form in (YEAR_FIRST, DAY_FIRST, YEAR_LAST))


def days(cells: Sequence[str], where: str = "the column") -> dict[str, float]:
    """Days since 1970-01-01 of each distinct cell; times without a zone are UTC.

    Args:
        cells: text in the form of dates.
        where: of the column, for messages.

    Raises:
        DataError: a cell that is no date, or dates such as 3/4/2024 alone, whose day may be either number.
    """
    distinct = list(dict.fromkeys(cells))
    pairs = [(int(found[1]), int(found[2])) for found in map(YEAR_LAST.fullmatch, map(str.strip, distinct)) if found]
    day_first, month_first = any(a > 12 for a, _ in pairs), any(b > 12 for _, b in pairs)
    if pairs and day_first == month_first:
        cell = next(cell for cell in distinct if YEAR_LAST.fullmatch(cell.strip()))
        doubt = "both orders of day and month" if day_first else f"{cell!r}, whose day may be either number"
        raise DataError(f"{where} holds {doubt}: write the year first, as in 2024-04-03.")
    return {cell: _days(cell.strip(), day_first, where) for cell in distinct}


def _days(cell: str, day_first: bool, where: str) -> float:
    for form, order in (
        (YEAR_FIRST, (0, 1, 2)),
        (DAY_FIRST, (2, 1, 0)),
        (YEAR_LAST, (2, 1, 0) if day_first else (2, 0, 1)),
    ):
        if found := form.fullmatch(cell):
            parts = [int(number) for number in found.groups()[:3]]
            date = "-".join(f"{parts[i]:0{4 if i == order[0] else 2}d}" for i in order)
            hour, _, rest = (found[4] or "0:00").partition(":")
            try:
                moment = datetime.fromisoformat(f"{date}T{int(hour):02d}:{rest}{found[5] or '+00:00'}")
            except ValueError:
                break
            return (moment - EPOCH) / timedelta(days=1)
    raise DataError(f"{where} holds {cell!r} among dates, which is none. Correct or empty it, or leave the column out.")


def as_moments(numbers: np.ndarray) -> np.ndarray:
    """(n,) datetime64 of numbers of days since 1970-01-01, to the millisecond; NaT for NaN."""
    missing = np.isnan(numbers)
    moments = np.rint(np.where(missing, 0, numbers) * 86_400_000).astype("datetime64[ms]")
    return np.where(missing, np.datetime64("NaT", "ms"), moments)


def date_text(number: float) -> str:
    """The date of a number of days since 1970-01-01, with the time if it is not midnight.

    >>> date_text(1.0), date_text(0.5)
    ('1970-01-02', '1970-01-01 12:00')
    """
    try:
        moment = EPOCH + timedelta(days=number)
    except OverflowError:
        return f"day {number:.15g}"
    return f"{moment:%Y-%m-%d}" if moment.time() == EPOCH.time() else f"{moment:%Y-%m-%d %H:%M}"


def is_dates(column: pa.ChunkedArray) -> bool:
    """True for a column of dates or times, or of text in the form of dates for the most part."""
    from pyarrow import types

    if types.is_date(column.type) or types.is_timestamp(column.type):
        return True
    if not (types.is_string(column.type) or types.is_large_string(column.type)):
        return False
    cells = column.drop_null().unique().to_pylist()
    return bool(cells) and 2 * sum(map(is_date, cells)) > len(cells)


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of dates or times as text, without the times if all are midnight; others as they are."""
    import pyarrow as pa
    from pyarrow import types

    compute = arrow_compute()
    if not (types.is_temporal(column.type)):
        return column
    if types.is_date64(column.type):
        column = column.cast(pa.date32())
    text = column.cast(pa.string())
    if not types.is_timestamp(column.type):
        return text
    text = compute.replace_substring_regex(text, r"\.0+(Z?)$", r"\1")
    midnight = compute.match_substring_regex(text, " 00:00:00Z?$")
    return compute.replace_substring_regex(text, " .*", "") if compute.all(midnight).as_py() else text


def as_days(column: pa.ChunkedArray, where: str) -> np.ndarray:
    """(n,) float64 days since 1970-01-01 of a column of dates, NaN for a missing cell."""
    import pyarrow as pa
    from pyarrow import types

    compute = arrow_compute()

    if types.is_date(column.type) or types.is_timestamp(column.type):
        # Not by another unit, which Arrow refuses where it loses digits or is beyond 64 bits.
        short = types.is_date32(column.type)
        a_day = 1 if short else UNITS_OF_A_DAY[getattr(column.type, "unit", "ms")]
        counts = compute.fill_null(column.cast(pa.int32() if short else pa.int64()), 0).to_numpy().astype(np.int64)
        found = counts // a_day + counts % a_day / a_day
        return np.where(column.is_null().to_numpy(), np.nan, found)
    if not (types.is_string(column.type) or types.is_large_string(column.type)):
        raise DataError(f"{where} holds {column.type} and no dates, as it did in the fit.")
    numbers: dict[Any, float] = {None: np.nan, **days(column.drop_null().unique().to_pylist(), where)}
    return np.array([numbers[cell] for cell in column.to_pylist()], np.float64)
