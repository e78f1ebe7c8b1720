"""Measures the layout of the source: ``python -m bench.layout --write`` records it and writes docs/design.md's tables.

For a commit and for this checkout: the files of the package and their lengths, and for one method of each kind the
files that an import reaches and the names that are imported on the way.
"""

from __future__ import annotations

import argparse
import ast
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.checkout import commit_of, source
from bench.provenance import ROOT, provenance
from bench.records import RESULTS, append, published, read
from bench.table import _lines, replaced

FOLDER, PAGE = RESULTS / "layout", ROOT / "docs" / "design.md"

METHODS = {
    "k-means": ("jaxcluster.cluster.kmeans",),
    "Gaussian mixture": ("jaxcluster.cluster.gmm.fit",),
    "DBSCAN": ("jaxcluster.cluster.dbscan",),
    "DEC, the module": ("jaxcluster.deep.dec",),
    "DEC, the estimator": ("jaxcluster.estimators.deep.dec",),
    "SwAV, the module": ("jaxcluster.deep.swav",),
    "SwAV, the estimator": ("jaxcluster.estimators.deep.self_supervised", "jaxcluster.estimators.deep.swav"),
}
"""Modules of each method: the first of these names that exists."""

PACKAGE = {
    "files": "files",
    "median_lines": "median lines of a file",
    "longest_file": "lines of the longest file",
    "longest_function": "lines of the longest function, its docstring apart",
    "lines": "lines",
    "comments": "own-line comments in 1,000 lines",
}
"""Titles of what is measured of the package."""

EMPTY = 3
"""Most lines of an ``__init__`` that does not count as a file: a docstring alone."""


def file_of(root: Path, module: str) -> Path | None:
    """The file of a module; None for names that are no modules."""
    path = root.joinpath(*module.split("."))
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)


def imported(root: Path, module: str) -> tuple[set[str], set[tuple[str, str]]]:
    """Imports at the top of a module.

    Returns:
        The modules of the package, and the (module, name) pairs that are no modules.
    """
    modules, names = set(), set()
    for node in ast.parse(file_of(root, module).read_text()).body:
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names if name.name.startswith("jaxcluster")}
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxcluster"):
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                modules.add(inner if file_of(root, inner) else node.module)
                if not file_of(root, inner):
                    names.add((node.module, name.name))
    return modules, names


def reached(root: Path, module: str) -> dict[str, int]:
    """Files that an import of a module reaches, the packages around them included, and names imported on the way."""
    seen, names, waiting = set(), set(), {module}
    while waiting:
        module = waiting.pop()
        if module in seen or module == "jaxcluster":
            continue
        seen.add(module)
        modules, more = imported(root, module)
        names |= more
        parts = module.split(".")
        waiting |= modules | {".".join(parts[:size]) for size in range(2, len(parts))}
    lengths = [len(file_of(root, module).read_text().splitlines()) for module in seen]
    return {"files": sum(length > EMPTY for length in lengths), "names": len(names)}


def package(root: Path) -> dict[str, float]:
    """Files, lines, functions and comments of the package."""
    texts = [path.read_text() for path in sorted((root / "jaxcluster").rglob("*.py"))]
    lengths = [len(text.splitlines()) for text in texts]
    comments = sum(line.strip().startswith("#") for text in texts for line in text.splitlines())
    bodies = [
        node.body[1:] if ast.get_docstring(node) else node.body
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    ]
    return {
        "files": len(texts),
        "median_lines": statistics.median(lengths),
        "longest_file": max(lengths),
        "longest_function": max(body[-1].end_lineno - body[0].lineno + 1 for body in bodies if body),
        "lines": sum(lengths),
        "comments": round(1000 * comments / sum(lengths), 1),
    }


def measure(root: Path) -> dict[str, Any]:
    """All figures of the source in a folder."""
    found = {title: [name for name in names if file_of(root, name)] for title, names in METHODS.items()}
    return {
        "package": package(root),
        "methods": {title: reached(root, names[0]) for title, names in found.items() if names},
    }


def markdown(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, str]:
    """Tables of two measurements.

    Returns:
        The table of methods, and that of the package.
    """
    methods = [("Method", "Before: files / names", "Now: files / names"), ("---", "---:", "---:")]
    for title, counts in now["methods"].items():
        pairs = [before["methods"].get(title), counts]
        methods.append((title, *("—" if pair is None else f"{pair['files']} / {pair['names']}" for pair in pairs)))
    rows = [("The package", "Before", "Now"), ("---", "---:", "---:")]
    rows += [(title, *(f"{each['package'][key]:,g}" for each in (before, now))) for key, title in PACKAGE.items()]
    return _lines(methods), _lines(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures a commit and this checkout, and prints both."""
    parser = argparse.ArgumentParser(prog="python -m bench.layout", description=__doc__)
    parser.add_argument("--before", default="3dd0cde", metavar="REF", help="commit to compare with")
    parser.add_argument("--write", action="store_true", help="record the outcome and write docs/design.md")
    options = parser.parse_args(arguments)
    try:
        commit = commit_of(options.before)
    except ValueError as error:
        parser.error(str(error))
    with source(options.before) as folder:
        before = measure(folder)
    now = measure(ROOT)
    print("\n\n".join(markdown(before, now)))
    if options.write:
        made = provenance({}, quick=False)
        record = {"case": "layout", "data": commit, "before": before, "now": now, "provenance": made}
        append(FOLDER / f"{made['date'][:10]}.jsonl", record)
        write_page()
    return 0


def write_page(page: Path = PAGE) -> None:
    """Put the latest record into docs/design.md."""
    record = published(read(FOLDER))[-1]
    methods, rows = markdown(record["before"], record["now"])
    origin = f"Before: commit {record['data'][:10]}; now: {record['provenance']['commit'][:10]}."
    text = replaced(page.read_text(), f"{origin}\n\n{methods}", "methods")
    page.write_text(replaced(text, rows, "package"))


if __name__ == "__main__":
    raise SystemExit(main())
