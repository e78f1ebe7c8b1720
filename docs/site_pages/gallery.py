"""The gallery: a page for each script of ``examples/`` that makes a picture, and one page of all pictures."""

from __future__ import annotations

from pathlib import Path

from site_pages.methods import fenced, picture
from site_pages.reference import update
from site_pages.scripts import FOLDERS, Script, scripts


def page(script: Script) -> str:
    """The page of one script."""
    parts = [f"# {script.title}\n", script.text + "\n", picture(script, width="720px"), fenced(script.code, "python")]
    if script.methods:
        links = ", ".join(f"[{name}](../methods/{name}.md)" for name in script.methods)
        parts.append(f"\nMethods: {links}. The script: `examples/{script.folder}/{script.path.name}`.\n")
    return "\n".join(parts)


def thumbnail(script: Script) -> str:
    """A card with the picture, which leads to the page."""
    image = f":img-top: ../_static/figures/{script.picture.name}\n" if script.picture else ""
    return f":::{{grid-item-card}} {script.title}\n:link: {script.name}\n:link-type: doc\n{image}:::\n"


def index(made: list[Script]) -> str:
    """All pictures."""
    parts = [
        "# Gallery\n\nEach picture is made by a short script; a click shows it. `make figures` makes all of them.\n",
        "```{toctree}\n:hidden:\n\n" + "\n".join(script.name for script in made) + "\n```\n",
    ]
    for folder, heading in FOLDERS.items():
        own = [script for script in made if script.folder == folder]
        if own:
            cards = "\n".join(map(thumbnail, own))
            parts.append(
                f"## {heading}\n\n::::{{grid}} 2 2 3 3\n:gutter: 3\n:class-container: gallery\n\n{cards}::::\n"
            )
    return "\n".join(parts)


def write(folder: Path) -> None:
    """Write the pages of the gallery."""
    made = scripts()
    for script in made:
        update(folder / f"{script.name}.md", page(script))
    update(folder / "index.md", index(made))
