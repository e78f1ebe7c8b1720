"""Messages to users: warnings at the caller's line, and text that any terminal or page can show."""

from __future__ import annotations

import re
import sys
import unicodedata
import warnings

LIBRARY_PACKAGES = {"jaxcluster", "jax", "sklearn", "joblib", "contextlib", "jaxtyping", "beartype"}
"""Packages whose frames are skipped by `warn`: the library, its callers in between, and type checkers."""

INVISIBLE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories of control characters, directions and lone surrogates: a terminal obeys or cannot show them."""

INVALID_IN_HTML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters other than tabs and line breaks, and surrogates, which UTF-8 cannot encode."""

JOINERS = {"\u200c", "\u200d"}
"""Invisible characters that words of some languages need."""


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
