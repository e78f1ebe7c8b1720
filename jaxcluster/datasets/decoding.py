"""Start of a text file: unpacked, decoded, and told apart from files of other kinds.

>>> ending_of(b"PAR1...")
'.parquet'
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from jaxcluster.datasets.base import COMPRESSIONS, DataError, open_arrow_stream

HEAD_BYTES = 1 << 24
"""Bytes that are read to detect the layout, 16 MiB: enough for some hundred thousand columns."""

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by byte order mark; UTF-32's marks precede UTF-16's, as they begin with them."""

LEGACY_ENCODINGS = ("cp1252", "latin-1")
"""Encodings to try on text that is not UTF-8: Windows Western European, which leaves five bytes undefined, then
Latin-1, which decodes every byte."""

STARTS = {
    b"PAR1": ".parquet",
    b"PK\x03\x04": ".xlsx",
    b"\x1f\x8b": ".csv.gz",
    b"\x28\xb5\x2f\xfd": ".csv.zst",
    b"\xfd7zXZ\0": ".csv.xz",
    **{b"BZh%d1AY&SY" % level: ".csv.bz2" for level in range(1, 10)},
    b"\x93NUMPY": ".npy",
    b"{": ".jsonl",
}
"""Endings of files by their first bytes; other bytes are a text table."""

BINARY = frozenset(STARTS.values()) - {".parquet", ".jsonl"}
"""Endings of files whose first bytes begin no text: that of Parquet, PAR1, may be the name of a column."""

WEB_PAGE = re.compile(r"\s*<(!doctype|html|head|\?xml)\b", re.IGNORECASE)
"""Start of a web page, which a server sends in place of a file that it refuses."""


def ending_of(start: bytes) -> str | None:
    """The ending of a file with these first bytes; None for text."""
    return next((ending for mark, ending in STARTS.items() if start.startswith(mark)), None)


def check_encoding(encoding: str) -> None:
    """Raise DataError for a name that is none of an encoding of text."""
    try:
        "a".encode(encoding)  # codecs.lookup finds those of bytes too, such as base64
    except (LookupError, ValueError):
        raise DataError(f"encoding {encoding!r} is not known; try utf-8, utf-16, latin-1 or cp1252.") from None


def kind_hint(path: Path) -> str:
    """A sentence on a file whose first bytes are those of another kind than its name says; empty without one."""
    with path.open("rb") as stream:
        kind = ending_of(stream.read(16))
    own = path.suffix.lower().replace(".ndjson", ".jsonl")
    if kind is None or kind.endswith(own):
        return ""
    return f" It begins like a {kind} file: let its name end so if it is one."


def read_head(path: Path) -> tuple[bytes, bool]:
    """Read the start of the file.

    Returns:
        The first bytes, unzipped, and True if they are the whole file.
    """
    try:
        with open_arrow_stream(path) as stream:
            head = stream.read(HEAD_BYTES + 1)
    except OSError as error:
        compression = COMPRESSIONS.get(path.suffix.lower())
        other = kind_hint(path)
        zipped = f" as a file packed by {compression}{'' if other else '; is it truncated'}" if compression else ""
        end = "." if other or not compression else "?"
        raise DataError(f"{path.name} cannot be read ({path.stat().st_size} bytes){zipped}{end}{other}") from error
    return head[:HEAD_BYTES], len(head) <= HEAD_BYTES


def decode_head(
    name: str, head: bytes, whole: bool, requested: str | None, not_utf8: bool
) -> tuple[str, str, list[str]]:
    """Decode the start of the file.

    Returns:
        Encoding, text, and notes.
    """
    if (kind := ending_of(head)) in BINARY:
        raise DataError(f"{name} is no text table: it begins like a {kind} file. Let its name end so if it is one.")
    marked = next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    if requested is not None:
        own = marked if marked and codecs.lookup(requested).name in ("utf-8", "utf-16", "utf-32") else requested
        tried = [own]
    elif marked:
        tried = [marked]
    else:
        tried = [*(() if not_utf8 else ("utf-8",)), *LEGACY_ENCODINGS]
    # Incrementally, as the end of the first bytes may cut a character in two.
    for encoding in tried:
        try:
            text = codecs.getincrementaldecoder(encoding)("strict").decode(head, final=whole)
        except UnicodeError:
            continue
        _check_text(name, head, text)
        notes = []
        if encoding in LEGACY_ENCODINGS and requested is None:
            notes = [f"{name} is not UTF-8 and is read as {encoding}; pass encoding= if its letters come out wrong."]
        return encoding, text, notes
    raise DataError(
        f"{name} is not {tried[0]}: its bytes do not decode. Leave the encoding out, or name the right one (encoding=)."
    )


def _check_text(name: str, head: bytes, text: str) -> None:
    """Raise DataError for a web page, and for text with NUL characters, which no table has."""
    if WEB_PAGE.match(text):
        raise DataError(f"{name} is a web page (HTML) or XML, and no table. Save the table itself from its source.")
    at = text.find("\0")
    if at < 0:
        return
    if kind := ending_of(head):
        raise DataError(f"{name} is no text table: it begins like a {kind} file. Let its name end so if it is one.")
    # In Latin text every second byte of UTF-16 is zero.
    for encoding, offset in (("utf-16-le", 1), ("utf-16-be", 0)):
        half = head[offset : 1 << 16 : 2]
        if half.count(0) > len(half) / 2:
            raise DataError(f"{name} looks like UTF-16 without a byte order mark: pass encoding={encoding}.")
    line = text.count("\n", 0, at) + 1
    raise DataError(f"{name} holds binary data, a NUL character in line {line}: it is no text table, or damaged.")
