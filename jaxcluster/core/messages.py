"""Messages to users: warnings at the caller's line, text that any terminal or page can show, and pieces of HTML.

>>> "polyline" in sparkline([3.0, 2.0, 1.5])
True
"""

from __future__ import annotations

import difflib
import html
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

LIBRARY_PACKAGES = {"jaxcluster", "jax", "sklearn", "joblib", "contextlib", "jaxtyping", "beartype"}
"""Packages whose frames are skipped by `warn`: the library, its callers in between, and type checkers."""

INVISIBLE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories of control characters, directions and lone surrogates: a terminal obeys or cannot show them."""

INVALID_IN_HTML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters other than tabs and line breaks, those that turn the direction of what follows, and surrogates,
which UTF-8 cannot encode."""

JOINERS = {"\u200c", "\u200d"}
"""Invisible characters that words of some languages need."""


def did_you_mean(value: Any, known: Iterable[str]) -> str:
    """A hint with the closest known name, the first of those that are equally close, to end an error message.

    Empty if no name is close.

    >>> did_you_mean("kmeans", ["k-means++", "random", "k-means||"])
    " Did you mean 'k-means++'?"
    """
    known, word = list(known), str(value)
    matches = difflib.get_close_matches(word, known, n=len(known) or 1)
    if not matches:
        return ""
    closeness = {each: difflib.SequenceMatcher(a=each, b=word).ratio() for each in matches}
    guess = max((each for each in known if each in closeness), key=closeness.__getitem__)
    return f" Did you mean {guess!r}?"


def no_attribute(module: str, name: str, known: Iterable[str]) -> AttributeError:
    """The error for a name that a package which loads its names on first use does not have."""
    known = list(known)
    hint = did_you_mean(name, known)
    return AttributeError(f"module {module!r} has no attribute {name!r}.{hint} It has {', '.join(known)}.")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the first caller outside the library."""
    # Python shows a warning once for each line: with a line of the library, a second model would be silent.
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in LIBRARY_PACKAGES:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def printable(text: str) -> str:
    r"""Printable text: invisible characters as escapes such as ``\x1b``, tabs and line breaks as blanks.

    A file name may contain commands to a terminal, or bytes that are not text.

    >>> printable("price\x1b[2J")
    'price\\x1b[2J'
    """
    if text.isprintable():
        return text
    shown = (" " if char in "\t\n\r" else char if _is_visible(char) else _escape(char) for char in text)
    return re.sub(" {2,}", " ", "".join(shown)) if "\n" in text or "\r" in text else "".join(shown)


def _is_visible(char: str) -> bool:
    return char in JOINERS or unicodedata.category(char) not in INVISIBLE_CATEGORIES


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a path that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def valid_html(page: str) -> str:
    """HTML page with invalid characters as escapes."""
    return INVALID_IN_HTML.sub(lambda match: _escape(match[0]), page)


MAX_POINTS = 200
"""Points of a curve: more cannot be seen."""


def sparkline(values: Any, title: str = "") -> str:
    """A curve of the finite values as an SVG in the color of the text around it; empty for fewer than 2 of them."""
    values = np.asarray(values, np.float64).ravel()
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return ""
    chosen = values[np.linspace(0, len(values) - 1, min(MAX_POINTS, len(values))).round().astype(int)]
    least, height = chosen.min(), np.ptp(chosen)
    up = (chosen - least) / height if height > 0 else np.full(len(chosen), 0.5)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(np.linspace(2, 118, len(chosen)), 22 - 20 * up, strict=True))
    label = html.escape(f"{title} from {values[0]:.6g} to {values[-1]:.6g}".strip())
    return (
        f'<svg width="120" height="24" viewBox="0 0 120 24" role="img" aria-label="{label}"><title>{label}</title>'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
    )


def facts(title: str, rows: Mapping[str, str]) -> str:
    """A table of names and values; the values are HTML, and lines without one are left out."""
    lines = "".join(
        f'<tr><th scope="row" style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{value}</td></tr>'
        for name, value in rows.items()
        if value
    )
    caption = f'<caption style="text-align:left">{html.escape(title)}</caption>'
    return valid_html(f"<table>{caption}<tbody>{lines}</tbody></table>")


def sizes_in_words(labels: Any) -> str:
    """The number of clusters and of the rows in them, for HTML: 3 clusters of 38 to 62 rows, 4 rows of noise."""
    names, counts = np.unique(np.asarray(labels), return_counts=True)
    inside = counts[names != -1]
    noise = int(counts[names == -1].sum())
    if not len(inside):
        return f"no clusters: all {noise:,} rows are noise"
    least, most = int(inside.min()), int(inside.max())
    rows = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    text = f"{len(inside):,} cluster{'s' * (len(inside) > 1)} of {rows} rows"
    return f"{text}, {noise:,} row{'s' * (noise > 1)} of noise" if noise else text
