"""Look for pages without a picture or code and names without an example: ``python docs/site_pages/check.py``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1]
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

SHOWN = re.compile(
    r"^\s*```(?!\{toctree\}|\{eval-rst\})\S|^\s*>>> |^\s*\.\. code-block::|!\[|\{figure\}|:img-top:", re.MULTILINE
)
"""A block of code, an example, or a picture, in Markdown or reStructuredText."""

LISTS = ("about/changelog.md", "reference/index.rst")
"""Pages that only list what changed, and other pages."""


def pages_without(docs: Path) -> list[str]:
    """Pages of the site, as Sphinx reads them, that have neither a picture nor code."""
    left_out = {"_build", "_static", "texts", "site_pages"}
    paths = [path for path in sorted(docs.rglob("*")) if path.suffix in (".md", ".rst")]
    names = {path: path.relative_to(docs) for path in paths}
    return [
        str(name)
        for path, name in names.items()
        if not left_out & set(name.parts)
        and str(name) not in (*LISTS, "methods.md")
        and not SHOWN.search(path.read_text())
    ]


def main() -> None:
    """Write the pages that are made, and end with an error where something is missing."""
    from site_pages.examples import without_example
    from site_pages.write import write_pages

    write_pages(DOCS)
    for name in (bare := pages_without(DOCS)):
        print(f"docs/{name} has neither a picture nor code.", file=sys.stderr)
    for name in (silent := without_example()):
        print(f"{name} has no example: add it to docs/texts/reference.", file=sys.stderr)
    if bare or silent:
        sys.exit(1)


if __name__ == "__main__":
    main()
