"""A page for each module of losses: hand-written text, its graph and gradient, and its functions."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import jaxcluster
from site_pages.methods import fenced, picture
from site_pages.reference import update
from site_pages.scripts import ROOT, scripts

HELPERS = ("validation",)
"""Modules of the package of losses that hold no loss."""


def families() -> dict[str, list[str]]:
    """Public names of the losses, by the module that defines them."""
    found: dict[str, list[str]] = {}
    source = (ROOT / "jaxcluster" / "losses" / "__init__.py").read_text()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxcluster.losses."):
            names = [alias.name for alias in node.names if alias.name in jaxcluster.losses.__all__]
            found[(node.module or "").rpartition(".")[2]] = names
    return {name: names for name, names in found.items() if name not in HELPERS and names}


def page(family: str, names: list[str], text: str) -> str:
    """The page of one family of losses."""
    made = next((script for script in scripts() if script.folder == "losses" and script.path.stem == family), None)
    title = text.partition("\n")[0] if text.startswith("# ") else f"# {family.replace('_', ' ').capitalize()}"
    body = text.partition("\n")[2] if text.startswith("# ") else ""
    parts = [title + "\n", picture(made), body]
    module = inspect.getdoc(importlib.import_module(f"jaxcluster.losses.{family}")) or ""
    example = [block for block in module.split("\n\n") if block.startswith(">>>")]
    if example:
        parts.append(f"## Example\n\n{fenced(example[0], 'python')}\n")
    parts.append("## Functions\n\n" + "\n".join(f"- {{py:obj}}`jaxcluster.losses.{name}`" for name in names) + "\n")
    if made:
        parts.append(f"## The picture's code\n\n{fenced(made.code, 'python')}\n")
    return "\n".join(part for part in parts if part)


def write(folder: Path) -> None:
    """Write the pages of all losses."""
    texts = folder.parent / "texts" / "losses"
    lines, cards = [], []
    made = {script.path.stem: script for script in scripts() if script.folder == "losses"}
    for family, names in families().items():
        text = texts / f"{family}.md"
        text = text.read_text() if text.is_file() else ""
        update(folder / f"{family}.md", page(family, names, text))
        title = text.partition("\n")[0].removeprefix("# ") or family.replace("_", " ")
        shown = [f"`{name}`" for name in names if any(part in name for part in ("loss", "ncut", "nll", "swapped"))]
        shown = shown or [f"`{name}`" for name in names if name.islower()]
        lines.append(f"| [{title}]({family}.md) | {', '.join(shown)} |")
        if family in made:
            image = f":img-top: ../_static/figures/{made[family].picture.name}\n" if made[family].picture else ""
            cards.append(f":::{{grid-item-card}} {title}\n:link: {family}\n:link-type: doc\n{image}:::\n")
    toc = "```{toctree}\n:hidden:\n\n" + "\n".join(families()) + "\n```"
    grid = "::::{grid} 2 2 3 3\n:gutter: 3\n:class-container: gallery\n\n" + "\n".join(cards) + "::::\n\n"
    head = "| Family | losses |\n| --- | --- |\n"
    intro = (
        "Losses are pure functions of arrays: they work in any JAX model, under `jit`, `vmap` and `grad`, and have "
        "finite gradients on batches without positives, with one class, or with equal samples. The methods of deep "
        "clustering call the same functions.\n"
    )
    update(folder / "index.md", f"# Losses\n\n{intro}\n{head}" + "\n".join(lines) + f"\n\n{grid}{toc}\n")
