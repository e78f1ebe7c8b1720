"""Docstrings of classes with what their base classes say of a parameter, where they only name the base class."""

from __future__ import annotations

import inspect
import re
from textwrap import indent

from site_pages.rst import items, sections

EXPANDED = ("Args", "Attributes")
"""Sections whose entries may say "see `Base`"."""

REST = "…"
"""Name in an entry that stands for all others of the base class."""

SEE = re.compile(r"see `(?:[\w.]+\.)?(\w+)`")


def _names(key: str) -> set[str]:
    return {name.strip() for name in key.split(",")}


def entries(cls: type, section: str) -> list[tuple[str, str]]:
    """Names and texts of one section of a class, those of base classes in place of "see `Base`"."""
    bases = {base.__name__: base for base in cls.__mro__[1:] if base.__module__.startswith("jaxcluster")}
    bodies = [body for name, body in sections(inspect.getdoc(cls) or "") if name == section]
    # Two entries may share a line: "a: see `One`; b, …: see `Two`."
    written = [re.sub(r"; (?=[\w, …]+: see `)", "\n", body) for body in bodies]
    found: list[tuple[str, str]] = []
    own = set().union(*(_names(key) for body in written for key, _ in items(body)))
    for key, text in (entry for body in written for entry in items(body)):
        match = SEE.search(text)
        base = bases.get(match[1]) if match else None
        if match is None or base is None:
            found.append((key, text))
            continue
        wanted = _names(key)
        more = (text[: match.start()] + text[match.end() :]).strip(" ;.,:\n")
        taken = set().union(*(_names(name) for name, _ in found))
        for name, inherited in entries(base, section):
            others = _names(name) - taken
            if others & wanted or (REST in wanted and others - own):
                kept = [each.strip() for each in name.split(",") if each.strip() in others]
                # What the class itself says of a name stands before what its base says.
                found.append(
                    (
                        ", ".join(kept),
                        f"{more}. {inherited[:1].upper()}{inherited[1:]}" if more and others & wanted else inherited,
                    )
                )
    return found


def docstring(cls: type) -> str:
    """The docstring of a class, its parameters and attributes complete."""
    text = inspect.getdoc(cls) or ""
    if not SEE.search(text):
        return text
    parts = []
    for name, body in sections(text):
        if name in EXPANDED:
            body = "\n".join(f"{key}: " + indent(more, "    ").strip() for key, more in entries(cls, name))
        parts.append(f"{name}:\n{indent(body, '    ')}" if name else body)
    return "\n\n".join(part.strip("\n") for part in parts)
