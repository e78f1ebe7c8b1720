"""A page for each registered method: hand-written text, table of `docs/methods.md`, code three ways, picture."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path

from jaxcluster.cli.fit import EXAMPLES
from jaxcluster.estimators import CLASSES
from jaxcluster.estimators.registry import ESTIMATORS, EstimatorInfo
from site_pages.reference import update
from site_pages.scripts import ROOT, Script, scripts

FAMILIES = {
    "partition": ("Centers and medoids", "Each cluster has a center, and each row joins the nearest one."),
    "mixture": ("Mixtures", "Each cluster is a distribution, and each row has a probability of each."),
    "density": ("Density", "Clusters are dense regions, found without their number; rows between them are noise."),
    "graph": ("Graphs", "Rows are nodes, and clusters are parts of a graph with little weight between them."),
    "deep": ("Deep clustering", "A network learns the coordinates in which the clusters lie."),
}
"""Heading and one sentence for each family, in the order of the site."""

TAKES = {
    "takes_weights": "sample weights",
    "takes_missing": "missing cells",
    "takes_sparse": "sparse rows",
    "takes_sources": "rows beyond memory",
    "takes_categories": "columns of words",
    "takes_classes": "classes of some rows",
}
"""Fields of `EstimatorInfo`, in words."""


SHAPES = """\
```{figure} ../pictures/shapes.png
:alt: Eight methods on five shapes.
:width: 100%

Eight methods on five shapes: each line is a set of rows, each column a method. Gray is noise.
```
"""
"""The picture on top of the list of methods."""


@cache
def table() -> tuple[list[str], list[list[str]]]:
    """The table of `docs/methods.md`.

    Returns:
        The cells of its head, and those of each row.
    """
    lines = [line for line in (ROOT / "docs" / "methods.md").read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if "---" not in line]
    return cells[0], [row for row in cells[1:] if len(row) == len(cells[0])]


def rows_of(class_name: str) -> list[list[str]]:
    """Rows of the table whose first cell names a class; its own row comes first."""
    found = [row for row in table()[1] if re.search(rf"`{class_name}\b", row[0])]
    return sorted(found, key=lambda row: f"`{class_name}`" not in row[0])


def name_of(info: EstimatorInfo) -> str:
    """The name of a method in words, as in the table; the name of its class where the table has none."""
    rows = rows_of(info.class_name)
    return rows[0][0].partition(" (")[0] if rows else info.class_name


def facts(info: EstimatorInfo) -> str:
    """Rows of the table of methods that belong to a method, one field a line."""
    head, rows = table()[0], rows_of(info.class_name)
    parts = []
    for row in rows:
        name = row[0] if len(rows) > 1 else ""
        lines = [f"| {name or 'Field'} | |", "| --- | --- |"]
        lines += [f"| {field} | {cell} |" for field, cell in zip(head[1:], row[1:], strict=True)]
        parts.append("\n".join(lines))
    symbols = "n samples, d features, k clusters, t steps, b samples in a batch, s steps of a split, p parameters of"
    return "\n\n".join(parts) + f"\n\n{symbols} the networks.\n" if parts else ""


def takes(info: EstimatorInfo) -> str:
    """A list of what the method takes, and what it does not take."""
    yes = [words for field, words in TAKES.items() if getattr(info, field)]
    no = [words for field, words in TAKES.items() if not getattr(info, field)]
    finds = (
        "It finds the number of clusters itself." if info.clusters is None else f"`{info.clusters}` has to be given."
    )
    if not info.labels:
        finds = "It gives coordinates and no clusters."
    return (
        f"Takes {', '.join(yes) if yes else 'numbers'}"
        + (f"; does not take {', '.join(no)}" if no else "")
        + f". {finds}\n"
    )


def fenced(code: str, language: str) -> str:
    """A block of code."""
    return f"```{language}\n{code}\n```"


def code(info: EstimatorInfo, script: Script | None) -> str:
    """Tabs with the same fit by the estimator, the function and the shell."""
    cells = script.cells() if script else {}
    if not cells:
        clusters = f"{info.clusters}=3, " if info.clusters else ""
        rows = f'X = jc.datasets.load("blobs:n=300,k=3").x\nmodel = jc.{info.class_name}({clusters})'
        cells = {"Estimator": f"import jaxcluster as jc\n\n{rows}.fit(X)".replace(", )", ")")}
    shell = cells.pop("Shell", "")
    shell = "\n".join(line.removeprefix("# ") for line in shell.splitlines())
    if not shell and info.labels:
        words = EXAMPLES.get(info.name or "", f"digits{' --k 10' if info.clusters else ''} --out runs/{info.name}")
        shell = f"jaxcluster fit {info.name} {words}"
    tabs = [(name or "Estimator", fenced(text, "python")) for name, text in cells.items()]
    if shell:
        tabs.append(("Shell", fenced(shell, "sh")))
    return "::::{tab-set}\n" + "\n".join(f":::{{tab-item}} {name}\n{text}\n:::" for name, text in tabs) + "\n::::\n"


def picture(script: Script | None, *, width: str = "640px", up: str = "../") -> str:
    """The picture of a script with its title as caption; "" where it has not run."""
    if script is None or script.picture is None:
        return ""
    place = f"{up}_static/figures/{script.picture.name}"
    return f":::{{figure}} {place}\n:alt: {script.title}\n:width: {width}\n\n{script.title}.\n:::\n"


def about(cls: type) -> str:
    """The docstring of a class up to its arguments, as Markdown, for a method without a text of its own."""
    text = (inspect.getdoc(cls) or "").split("\nArgs:")[0].strip()
    return text.replace("``", "`").replace("*", "\\*") + "\n"


def page(name: str, text: str, shown: list[Script]) -> str:
    """The page of one method.

    Args:
        name: the registered name.
        text: its hand-written text, or "".
        shown: scripts of the gallery that show it.
    """
    info = ESTIMATORS.info(name)
    own = next((script for script in shown if script.folder == "methods" and script.path.stem == name), None)
    title = name_of(info)
    parts = [f"# {title[:1].upper()}{title[1:]}\n\n`jc.{info.class_name}`: {info.title}.\n", picture(own)]
    parts += [text or about(ESTIMATORS[name])]
    parts += [f"## Code\n\n{code(info, own)}", f"## At a glance\n\n{facts(info)}\n{takes(info)}"]
    others = [script for script in shown if script is not own]
    if others:
        parts.append(
            "## Pictures\n\n" + "\n".join(f"- [{each.title}](../gallery/{each.name}.md)" for each in others) + "\n"
        )
    parts.append(f"All parameters and attributes: {{py:obj}}`jaxcluster.{info.class_name}`.\n")
    return "\n".join(part for part in parts if part)


def card(name: str) -> str:
    """A line of the list of methods."""
    info = ESTIMATORS.info(name)
    rows = rows_of(info.class_name)
    when = rows[0][table()[0].index("when to use")] if rows else ""
    title = name_of(info)
    return f"| [{title[:1].upper()}{title[1:]}]({name}.md)<br>`{info.class_name}` | {info.title} | {when} |"


def others() -> str:
    """Functions of the table of methods that no estimator stands for."""
    classes = {entry.location.split(":")[1] for entry in CLASSES.values()}
    rows = [row for row in table()[1] if not any(re.search(rf"`{name}\b", row[0]) for name in classes)]
    lines = ["| Method | what | when to use |", "| --- | --- | --- |"]
    head = table()[0]
    lines += [f"| {row[0]} | {row[head.index('what')]} | {row[head.index('when to use')]} |" for row in rows]
    return "\n".join(lines)


def index() -> str:
    """The list of methods by family."""
    parts = ["# Methods\n\nWhich one? The [guide](../guide/which-method.md) asks a few questions.\n", SHAPES]
    head = "| Method | in a few words | when to use |\n| --- | --- | --- |\n"
    known = {*FAMILIES, *(entry.family for entry in CLASSES.values())}
    order = [*FAMILIES, *sorted(known - FAMILIES.keys())]
    for family in order:
        names = [name for name, entry in CLASSES.items() if entry.family == family]
        title, text = FAMILIES.get(family, (family.capitalize(), ""))
        toc = "```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```"
        parts.append(f"## {title}\n\n{text}\n\n{head}" + "\n".join(map(card, names)) + f"\n\n{toc}\n")
    parts.append(f"## Functions without an estimator\n\n{others()}\n")
    source = (ROOT / "docs" / "methods.md").read_text()
    notes = [part for part in source.split("\n\n") if not part.startswith(("#", "|", "n samples"))]
    parts.append("## Notes\n\n" + "\n\n".join(notes))
    return "\n".join(parts)


def write(folder: Path) -> None:
    """Write the pages of all methods."""
    texts, made = folder.parent / "texts" / "methods", scripts()
    for name in CLASSES:
        text = texts / f"{name}.md"
        shown = [script for script in made if name in script.methods or script.path.stem == name]
        update(folder / f"{name}.md", page(name, text.read_text() if text.is_file() else "", shown))
    update(folder / "index.md", index())
