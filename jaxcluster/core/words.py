"""Text from files and paths, as it can be shown anywhere."""

from __future__ import annotations

import re
import unicodedata

UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of Unicode that a terminal obeys, or that have no picture: control signs, directions, lone halves."""

NEVER_ON_PAGES = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control signs but for tabs and lines, and halves of signs that UTF-8 cannot write."""

JOINERS = {"\u200c", "\u200d"}
"""Of these, what ordinary words of some languages need."""


def visible(text: str) -> str:
    r"""``text`` with every sign that is obeyed and not seen written out, as in ``\x1b``, tabs and lines as blanks.

    A name may hold commands to a terminal, such as to clear it, or bytes that are no text.

    >>> visible("price\x1b[2J")
    'price\\x1b[2J'
    """
    if text.isprintable():
        return text
    shown = (" " if sign in "\t\n\r" else sign if _is_seen(sign) else _written_out(sign) for sign in text)
    return re.sub(" {2,}", " ", "".join(shown)) if "\n" in text or "\r" in text else "".join(shown)


def _is_seen(sign: str) -> bool:
    return sign in JOINERS or unicodedata.category(sign) not in UNSEEN


def _written_out(sign: str) -> str:
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no text, as paths have it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def on_page(page: str) -> str:
    """An HTML page without signs that no page may hold: they are written out."""
    return NEVER_ON_PAGES.sub(lambda found: _written_out(found[0]), page)
