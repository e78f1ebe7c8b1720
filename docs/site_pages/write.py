"""Write all pages that are made from the code and from files outside ``docs/``."""

from __future__ import annotations

import re
from pathlib import Path

from site_pages import gallery, losses, methods, reference
from site_pages.reference import update

COPIES = {
    "README.md": "readme",
    "CONTRIBUTING.md": "contributing",
    "CHANGELOG.md": "changelog",
    "bench/README.md": "benchmarks",
}
"""Pages that stay where developers look for them; the site shows copies with links of its own."""

MADE = "about"
"""Folder of the copies."""


def link(target: str, source: str) -> str:
    """A link of a file of the repository, as it has to be in ``docs/about``.

    Links to files that are no page of the site are left as words by `relink`.
    """
    path, hash_, anchor = target.partition("#")
    place = (Path(source).parent / path).as_posix()
    while "/../" in f"/{place}":
        place = re.sub(r"(^|/)[^/]+/\.\./", r"\1", place, count=1)
    if place in COPIES:
        return f"{COPIES[place]}.md{hash_}{anchor}"
    if place == "docs/methods.md":
        return "../methods/index.md"
    if place.startswith("docs/") and place.endswith((".md", ".png", ".gif")):
        return f"../{place.removeprefix('docs/')}{hash_}{anchor}"
    return ""


def relink(text: str, source: str) -> str:
    """Text of a file of the repository with links that hold on the site."""

    def replace(match: re.Match) -> str:
        words, target = match.groups()
        if re.match(r"https?:|#|mailto:", target):
            return match[0]
        place = link(target, source)
        return f"[{words}]({place})" if place else words

    return re.sub(r"(?<!\!)\[([^\]]*)\]\(([^)\s]+)\)", replace, text)


def write_copies(docs: Path) -> None:
    """Write the copies of README and its like."""
    for source, name in COPIES.items():
        path = docs.parent / source
        if path.is_file():
            text = relink(path.read_text(), source)
            text = re.sub(r"!\[([^\]]*)\]\((?:\.\./)?docs/([^)]+)\)", r"![\1](../\2)", text)
            update(docs / MADE / f"{name}.md", text)


def write_pages(docs: Path) -> None:
    """Write all pages below the folder of the documentation."""
    reference.write(docs / "reference")
    methods.write(docs / "methods")
    losses.write(docs / "losses")
    gallery.write(docs / "gallery")
    write_copies(docs)
