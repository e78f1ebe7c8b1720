"""The small scripts under ``examples/`` that make the pictures: their titles, texts and cells of code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

FOLDERS = {"gallery": "Gallery", "methods": "One picture a method", "losses": "Losses", "animations": "Animations"}
"""Folders of ``examples/`` whose scripts make pictures, and their headings in the gallery."""

PICTURES = ROOT / "docs" / "_static" / "figures"
"""Folder of the pictures, which `site_pages.figures` writes."""


class Script(NamedTuple):
    """A script of the gallery.

    Attributes:
        path: its file.
        title: the first line of its docstring, without the full stop.
        text: the rest of its docstring.
        methods: registered names of the methods that it shows, from the line ``Methods: ...`` of its docstring.
        code: the lines below the docstring.
    """

    path: Path
    title: str
    text: str
    methods: tuple[str, ...]
    code: str

    @property
    def folder(self) -> str:
        """Name of the folder below ``examples/``."""
        return self.path.parent.name

    @property
    def name(self) -> str:
        """Name of the page: folder and file."""
        return f"{self.folder}-{self.path.stem}"

    @property
    def picture(self) -> Path | None:
        """The picture that it made; None where it has not run yet."""
        found = [path for path in picture_paths(self.path) if path.is_file()]
        return found[0] if found else None

    def cells(self) -> dict[str, str]:
        """Code by the heading of its cell, ``# %% Estimator``."""
        parts = re.split(r"^# %% *(.*)$", self.code, flags=re.MULTILINE)
        cells = {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))
        return {name: text.strip("\n") for name, text in cells.items() if text.strip()}


def picture_paths(path: Path) -> list[Path]:
    """Places where the picture of a script may lie: a moving one, or a still one."""
    return [PICTURES / f"{path.parent.name}-{path.stem}{suffix}" for suffix in (".gif", ".png")]


def script_paths() -> list[Path]:
    """Every script that makes a picture."""
    return [path for folder in FOLDERS for path in sorted((ROOT / "examples" / folder).glob("*.py"))]


def read(path: Path) -> Script:
    """Read a script without running it."""
    source = path.read_text()
    tree = ast.parse(source)
    docstring = ast.get_docstring(tree) or path.stem
    head = tree.body[0]
    code = "\n".join(source.splitlines()[head.end_lineno if isinstance(head, ast.Expr) else 0 :]).strip("\n")
    title, _, text = docstring.partition("\n")
    named = re.search(r"^Methods: (.+?)\.?$", text, re.MULTILINE)
    text = re.sub(r"^Methods: .+$", "", text, flags=re.MULTILINE).strip()
    methods = tuple(re.split(r", *", named[1])) if named else ()
    return Script(path, title.rstrip("."), text, methods, code)


def scripts() -> list[Script]:
    """Every script that makes a picture, read."""
    return [read(path) for path in script_paths()]
