"""Docstrings of classes with what another class says of a parameter, where they only name that class.

>>> class Base:
...     '''A base.
...
...     Args:
...         tol: tolerance.
...         seed: of the start.
...     '''
>>> class Method(Base):
...     '''A method.
...
...     Args:
...         alpha: a number.
...         tol, …: see `Base`.
...     '''
>>> print(complete(Method))
A method.
<BLANKLINE>
Args:
    alpha: a number.
    tol: tolerance.
    seed: of the start.
"""

from __future__ import annotations

import inspect
import re
import sys
from textwrap import dedent, fill, indent

COMPLETED = ("Args", "Attributes")
"""Sections whose entries may say "see `Base`"."""

WIDTH = 112
"""Characters of a line below a heading of a completed docstring, its indentation not counted."""

REST = "…"
"""Name in an entry that stands for all others of the other class."""

SEE = re.compile(r"see\s+`(?:[\w.]+\.)?(\w+)`")

SECTION = re.compile(rf"^({'|'.join(COMPLETED)}):\n((?:(?:    .*)?(?:\n|\Z))+)", re.MULTILINE)


def items(body: str) -> list[tuple[str, str]]:
    """Split a list such as that below ``Args:``, without its indentation, into pairs of a name and its text."""
    found = []
    for entry in re.split(r"\n(?=\S)", body.strip("\n")):
        name, colon, text = entry.partition(":")
        found.append((name.strip(), inspect.cleandoc(text)) if colon else ("", inspect.cleandoc(entry)))
    return found


def entries(cls: type, section: str) -> list[tuple[str, str]]:
    """Names and texts of one section of a class, those of other classes in place of "see `Other`"."""
    # Two entries may share a line: "a: see `One`; b, …: see `Two`."
    written = [re.sub(r"; (?=[\w, …]+: see\s+`)", "\n", body) for body in _bodies(cls, section)]
    found: list[tuple[str, str]] = []
    own = set().union(*(_names(key) for body in written for key, _ in items(body)))
    for key, text in (entry for body in written for entry in items(body)):
        match = SEE.search(text)
        other = _class_named(cls, match[1]) if match else None
        if match is None or other is None:
            found.append((key, text))
            continue
        wanted = _names(key)
        more = (text[: match.start()] + text[match.end() :]).strip(" ;.,:\n")
        taken = set().union(*(_names(name) for name, _ in found))
        for name, theirs in entries(other, section):
            others = _names(name) - taken
            if others & wanted or (REST in wanted and others - own):
                kept = ", ".join(each.strip() for each in name.split(",") if each.strip() in others)
                # What the class itself says of a name stands before what the other one says.
                first = f"{more}. " if more and others & wanted else ""
                found.append((kept, f"{first}{theirs[:1].upper()}{theirs[1:]}" if first else theirs))
    return found


def complete(cls: type) -> str:
    """The docstring of a class, its parameters and attributes complete; empty without one."""
    text = inspect.getdoc(cls) or ""
    if not SEE.search(text):
        return text

    def lines(match: re.Match[str]) -> str:
        written = "\n".join(_entry(key, more) for key, more in entries(cls, match[1]))
        return f"{match[1]}:\n{indent(written, '    ')}\n" + "\n" * (match[0].endswith("\n\n"))

    return SECTION.sub(lines, text).rstrip("\n")


def _entry(key: str, text: str) -> str:
    """An entry of a section, its lines filled anew where they became too long."""
    written = f"{key}: {indent(text, '    ').strip()}"
    if all(len(line) <= WIDTH for line in written.splitlines()):
        return written
    return fill(" ".join(written.split()), WIDTH, subsequent_indent="    ", break_on_hyphens=False)


def _bodies(cls: type, section: str) -> list[str]:
    """The text below each heading of this name, without its indentation."""
    return [dedent(found[2]) for found in SECTION.finditer(inspect.getdoc(cls) or "") if found[1] == section]


def _class_named(cls: type, name: str) -> type | None:
    """A class of the library among the bases of ``cls``, or in its module."""
    bases = {base.__name__: base for base in cls.__mro__[1:]}
    other = bases.get(name, vars(sys.modules[cls.__module__]).get(name))
    return other if isinstance(other, type) and other is not cls else None


def _names(key: str) -> set[str]:
    return {name.strip() for name in key.split(",")}
