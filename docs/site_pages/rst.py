"""Docstrings of this package as reStructuredText: Google's sections, prose, lists and examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from textwrap import dedent, indent

from jaxcluster.core.docstrings import items

SECTIONS = ("Args", "Returns", "Raises", "Attributes", "Yields", "Warns", "Example", "Examples", "Note", "Notes")
"""Headings of Google's style that the docstrings of this package use."""

TITLES = {"Args": "Parameters", "Example": "Examples", "Note": "Notes"}
"""The heading of a section on the page, where it is not the one in the docstring."""

LISTED = ("Args", "Raises", "Attributes", "Warns")
"""Sections that are lists of names with a text."""

_CODE = re.compile(r"``(.+?)``|:[a-z:]+:`([^`]+)`|`([^`\n]+)`|(https?://[^\s)>]*[^\s)>.,;])")

Resolve = Callable[[str], str | None]
"""The full name of a documented object, given the words between backticks; None for any other words."""


def nothing(words: str) -> None:
    """Resolve nothing: all words between backticks are code."""


def escape(text: str) -> str:
    """Plain text without a character that reStructuredText would read as markup."""
    return re.sub(r"([\\*|_`])", r"\\\1", text)


def inline(text: str, resolve: Resolve = nothing) -> str:
    """One paragraph: words between backticks are code, or a link to what they name."""
    parts, last = [], 0
    text = re.sub(r"\s+", " ", text.strip())
    for match in _CODE.finditer(text):
        parts.append(escape(text[last : match.start()]))
        code, role, word, url = match.groups()
        target = resolve(word) if word else None
        if url:
            parts.append(url)
        elif target:
            parts.append(f":py:obj:`{word} <{target}>`")
        else:
            parts.append(f"``{code or role or word}``")
        # Inline markup has to end before a space or a sign; a letter needs an escaped space between.
        if text[match.end() : match.end() + 1].isalnum():
            parts.append("\\ ")
        last = match.end()
    parts.append(escape(text[last:]))
    line = "".join(parts)
    # A line that begins like a list or a literal block is prose here: an author's initials, a minus sign.
    if re.match(r"(\w{1,4}|#)[.)]\s|[-+*•.:>=~^#]", line):
        line = "\\" + line
    return line[:-2] + ": :" if line.endswith("::") else line


def _blocks(text: str) -> list[str]:
    return [block for block in re.split(r"\n\s*\n", text.strip("\n")) if block.strip()]


def _block(block: str, resolve: Resolve) -> str:
    lines = dedent(block).splitlines()
    if lines[0].startswith(">>>"):
        return "\n".join(lines)
    if all(line.startswith("    ") or not line for line in block.splitlines()):
        return "::\n\n" + indent(dedent(block), "    ")
    for at, line in enumerate(lines):
        if line.startswith(">>>") and at:
            return prose("\n".join([*lines[:at], "", *lines[at:]]), resolve)
    if re.match(r"([-*•]|\d+\.) ", lines[0]):
        items = re.split(r"\n(?=(?:[-*•]|\d+\.) )", "\n".join(lines))
        return "\n".join("- " + inline(re.sub(r"^([-*•]|\d+\.) ", "", item), resolve) for item in items)
    for at, line in enumerate(lines):
        if at and re.match(r"([-*•]|\d+\.) ", line):
            return prose("\n".join([*lines[:at], "", *lines[at:]]), resolve)
    return inline("\n".join(lines), resolve)


def prose(text: str, resolve: Resolve = nothing) -> str:
    """Paragraphs, lists, examples and indented blocks."""
    return "\n\n".join(_block(block, resolve) for block in _blocks(text))


def sections(text: str) -> list[tuple[str, str]]:
    """Split a docstring in Google's style.

    Returns:
        Headings, "" for prose, with the text below them.
    """
    heading = re.compile(rf"^({'|'.join(SECTIONS)}):[ ]*$", re.MULTILINE)
    parts = heading.split(text)
    found = [("", parts[0])]
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        # A section is indented; prose after it belongs to the text.
        inside, rest = [], []
        for line in body.strip("\n").splitlines():
            (rest if rest or (line and not line.startswith(" ")) else inside).append(line)
        found.append((name, dedent("\n".join(inside))))
        if rest:
            found.append(("", "\n".join(rest)))
    return found


def _definitions(entries: list[tuple[str, str]], types: Mapping[str, str], resolve: Resolve) -> str:
    lines = []
    for name, text in entries:
        names = [part.strip() for part in name.split(",")] if name else []
        kinds = dict.fromkeys(types[part] for part in names if part in types)
        term = ", ".join(f"``{part}``" for part in names) or "\\ "
        if kinds:
            term += " : " + " or ".join(f"``{kind}``" for kind in kinds)
        lines += [term, indent(prose(text, resolve) if text else "\\ ", "    ")]
    return "\n".join(lines)


def document(docstring: str, *, types: Mapping[str, str] | None = None, resolve: Resolve = nothing) -> str:
    """A docstring as reStructuredText, without markup that it does not have.

    Args:
        docstring: as `inspect.getdoc` returns it.
        types: annotations of the parameters, shown beside their names. Parameters that the docstring does not
            describe are listed with their type alone.
        resolve: finds the object that words between backticks name.
    """
    types, parts, listed = dict(types or {}), [], False
    for name, body in sections(docstring):
        title = TITLES.get(name, name)
        if name == "Args":
            listed = True
            entries = items(body)
            named = {part.strip().lstrip("*") for key, _ in entries for part in key.split(",")}
            entries += [(key, "") for key in types if key.lstrip("*") not in named]
            parts.append(f":{title}:\n" + indent(_definitions(entries, types, resolve), "    "))
        elif name in LISTED:
            parts.append(f":{title}:\n" + indent(_definitions(items(body), {}, resolve), "    "))
        elif name:
            parts.append(f":{title}:\n" + indent(prose(body, resolve), "    "))
        else:
            parts.append(prose(body, resolve))
    if types and not listed:
        entries = [(key, "") for key in types]
        parts.append(":Parameters:\n" + indent(_definitions(entries, types, resolve), "    "))
    return "\n\n".join(part for part in parts if part)
